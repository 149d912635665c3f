"""Pools of real answers with gold values, for best-of-n without a policy; read in place from the data folder.

In: the folder of real preference data. Out: candidate tables without scores, and the text of each instruction.
Gold is `preference - 1`: the judge's probability that the answer beats the baseline's.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guerdon.evaluate.candidates import CandidateTable

NOT_CANDIDATES = ("gpt4_1106_preview", "NullModel", "text_davinci_003")  # the baseline, an attack, an unlisted model
SPLITS = ("train", "test")


def alpaca_eval(data: Path, splits: tuple[str, ...] = SPLITS) -> CandidateTable:
    """One answer of each of 48 models to every instruction that all of them answered; `source` is the model."""
    rows = [
        row for row in _rows(data / "alpaca-eval/weighted_gpt4_turbo", splits) if row["model"] not in NOT_CANDIDATES
    ]
    models = {row["model"] for row in rows}
    answered: dict[str, set[str]] = {}
    for row in rows:
        answered.setdefault(row["instruction"], set()).add(row["model"])
    return _table([row for row in rows if answered[row["instruction"]] == models], "model")


def bon_tulu(data: Path, splits: tuple[str, ...] = SPLITS) -> CandidateTable:
    """Eleven samples of tulu-2-dpo-13b for each instruction."""
    rows = [row | {"model": "tulu-2-dpo-13b"} for row in _rows(data / "bon-tulu13b", splits)]
    return _table(rows, "candidate")


def _table(rows: list[dict[str, Any]], candidate: str) -> CandidateTable:
    return CandidateTable.build(
        [row["instruction"] for row in rows],
        [None] * len(rows),
        completion=[row[candidate] for row in rows],
        gold=[row["preference"] - 1 for row in rows],
        source=[row["model"] for row in rows],
        text=[row["output_2"] for row in rows],
    )


def _rows(folder: Path, splits: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for split in splits:
        with gzip.open(folder / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            yield from map(json.loads, file)
