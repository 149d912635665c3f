"""The scores of a benchmark run as a file that carries all a rule needs, so that it can be measured again anywhere.

One row per item: `benchmark`, `model`, `id`, `category`, `group`, `correct`, `chars`, `scores`. No texts, so that it may
be published where the benchmark itself may not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guerdon.data.containers import stream
from guerdon.evaluate.benchmarks.estimate import Result
from guerdon.evaluate.benchmarks.item import Item, matrix, number
from guerdon.evaluate.columns import Floats, plain
from guerdon.files import write_text
from guerdon.types import ConfigError, DataError

COLUMNS = ("benchmark", "model", "id", "category", "group", "correct", "scores")


def write_score_table(
    path: str | os.PathLike[str], benchmark: str, items: Sequence[Item], scores: Mapping[str, Floats]
) -> None:
    """Write `.jsonl`, one row per item and model; NaN as null. Raises ConfigError for another ending."""
    if Path(path).suffix != ".jsonl":
        raise ConfigError(f"{path}: benchmark scores are written as .jsonl; choose this ending")
    lines = []
    for model, wide in scores.items():
        for item, row in zip(items, wide.tolist(), strict=True):
            record: dict[str, Any] = {"benchmark": benchmark, "model": model, "id": item.id, "category": item.category}
            record |= {"group": item.group, "correct": item.correct, "chars": item.chars}
            lines.append(json.dumps(plain(record | {"scores": row[: len(item.correct)]}, keep_none=True)) + "\n")
    write_text(Path(path), "".join(lines))


def is_score_table(path: str | os.PathLike[str]) -> bool:
    """Whether the file is one that `write_score_table` wrote, by the columns of its first row."""
    if not Path(path).is_file() or Path(path).suffix != ".jsonl":
        return False
    return all(name in next(iter(stream(path))).data for name in COLUMNS)


def read_score_table(path: str | os.PathLike[str], benchmark: str) -> tuple[list[Item], dict[str, Floats | Result]]:
    """Items without texts, and the scores of each model. Raises DataError when it belongs to another benchmark."""
    by_model: dict[str, list[tuple[Item, list[float]]]] = {}
    for row in stream(path):
        absent = [name for name in COLUMNS if name not in row.data]
        if absent:
            raise DataError(f"{row.place}: no column {absent[0]!r}; write the table with guerdon benchmark --table")
        if row.data["benchmark"] != benchmark:
            raise DataError(f"{row.place}: scores of {row.data['benchmark']}, not of {benchmark}; name that benchmark")
        data = row.data
        marks = tuple(bool(mark) for mark in data["correct"])
        chars = tuple(float(length) for length in data.get("chars") or ())
        item = Item(str(data["id"]), str(data["category"]), marks, str(data["group"]), chars=chars)
        values = [number(value, row.place) for value in data["scores"]]
        if len(values) != len(marks):
            raise DataError(f"{row.place}: {len(marks)} candidates but {len(values)} scores")
        by_model.setdefault(str(data["model"]), []).append((item, values))
    items = [item for item, _ in next(iter(by_model.values()))]
    found: dict[str, Floats | Result] = {}
    for model, rows in by_model.items():
        if [item for item, _ in rows] != items:
            raise DataError(f"{path}: {model} has other items than the first model; write one table per set of items")
        found[model] = matrix(items, [values for _, values in rows])
    return items, found
