"""HHH alignment: helpful, honest, harmless, other (Askell et al. 2021, arXiv 2112.00861).

Rule: the preferred answer scores strictly higher, a tie is wrong; overall is the micro average over all pairs, as in the
BIG-bench task, with each category beside it. Few prompts are distinct, so intervals resample prompts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from guerdon.data.containers import Row
from guerdon.data.hub import is_hub_id, parse_hub_id
from guerdon.evaluate.benchmarks.estimate import RESAMPLES, Result, accuracy, weighted
from guerdon.evaluate.benchmarks.item import Item, make_item, rows_with, sheet
from guerdon.evaluate.columns import Floats
from guerdon.types import DataError

HUB = "HuggingFaceH4/hhh_alignment"
METRIC = "accuracy, micro average"
CATEGORIES = ("helpful", "honest", "harmless", "other")


def load(path: str | os.PathLike[str]) -> list[Item]:
    """Rows with `prompt`, `chosen`, `rejected`, `source`; or the hub set, all its configurations unless one is named."""
    name = os.fspath(path)
    if not is_hub_id(name):
        return [_item(row) for row in rows_with(path, ("prompt", "chosen", "rejected", "source"))]
    hub = parse_hub_id(name)
    configs = [hub.config] if hub.config else list(CATEGORIES)
    return [
        _hub_item(row, config)
        for config in configs
        for row in rows_with(f"{hub.name}/{config}:test", ("input", "targets"))
    ]


def _item(row: Row) -> Item:
    answers = [row.data["chosen"], row.data["rejected"]]
    return make_item(
        str(row.data.get("idx", row.line)), str(row.data["source"]), row.data["prompt"], answers, [True, False]
    )


def _hub_item(row: Row, config: str) -> Item:
    targets: Any = row.data["targets"]
    if not isinstance(targets, dict) or len(targets.get("choices", ())) != len(targets.get("labels", ())):
        raise DataError(f"{row.place}: 'targets' needs choices and labels of equal length; give {HUB}")
    return make_item(
        row.place, config, row.data["input"], targets["choices"], [bool(label) for label in targets["labels"]]
    )


def measure(items: Sequence[Item], scores: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Result:
    """Micro accuracy, each category, and in `details` the macro average."""
    s = sheet(items, scores)
    names = dict.fromkeys(s.category.tolist())
    weights = {name: 1 / len(names) for name in names}
    macro = weighted(s.wins, s.category, weights, s.group, seed=seed, resamples=resamples)
    return accuracy("hhh", s, metric=METRIC, details={"macro average": macro}, seed=seed, resamples=resamples)
