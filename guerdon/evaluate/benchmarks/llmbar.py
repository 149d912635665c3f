"""LLMBar: does a judge see which answer follows the instruction (Zeng et al. 2023, arXiv 2310.07641).

Rule (princeton-nlp/LLMBar): accuracy in each of five subsets, one natural and four adversarial, whose wrong answers are
written to look better. The overall score here is the unweighted mean of the five. A reward model must score the right
answer strictly higher, as RewardBench asks of the same pairs: a tie is wrong. A judge is asked in both orders
(`swap`); upstream's statistics `correct_False` and `correct_True` are its accuracies in the given and in the swapped
order, in which an answer that could not be parsed is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from guerdon.data.containers import Row, stream
from guerdon.evaluate.benchmarks.estimate import RESAMPLES, Estimate, Result, by_category, mean, weighted
from guerdon.evaluate.benchmarks.item import Item, Sheet, make_item, rows_with, sheet
from guerdon.evaluate.columns import Floats
from guerdon.types import DataError

METRIC = "mean of five subsets"
SUBSETS = ("Natural", "Neighbor", "GPTInst", "GPTOut", "Manual")
_NAMES = {name.lower(): name for name in SUBSETS}


def load(path: str | os.PathLike[str]) -> list[Item]:
    """Rows with `input`, `output_1`, `output_2`, `label`; the subset is the file's name, or its folder's.

    Files and folders that are named otherwise (the processed sets beside the benchmark) are passed over.
    """
    rows = [row for row in rows_with(path, ("input", "output_1", "output_2", "label")) if _subset(row.file)]
    if not rows:
        raise DataError(f"{path}: no file here is named after a subset ({', '.join(SUBSETS)}); give the folder LLMBar")
    return [_item(row) for row in rows]


def _item(row: Row) -> Item:
    if str(row.data["label"]) not in ("1", "2"):
        raise DataError(f"{row.place}: label is {row.data['label']!r}; write 1 or 2")
    marks = [str(row.data["label"]) == which for which in ("1", "2")]
    subset = _subset(row.file)
    answers = [row.data["output_1"], row.data["output_2"]]
    return make_item(f"{subset}:{row.line - 1}", subset, row.data["input"], answers, marks)


def _subset(file: str) -> str:
    """The subset that a file belongs to by its name or the name of its folder; "" for none."""
    path = Path(file)
    names = (path.name.partition(".")[0].lower(), path.parent.name.lower())
    return next((_NAMES[name] for name in names if name in _NAMES), "")


def measure(items: Sequence[Item], scores: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Result:
    """Mean of the subsets, each subset, and in `details` the adversarial mean and the micro average."""
    s = sheet(items, scores)
    return _result(s, s.wins, s.ties, {}, seed, resamples)


def measure_labels(
    items: Sequence[Item],
    winner: Sequence[str | None],
    swapped: Sequence[str | None],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """A judge's choices in both orders, each `1`, `2` or None, in terms of output_1 and output_2; the mean counts.

    `details` has upstream's statistics `correct_False`, `correct_True`, `correct_both` and `equal` per subset.
    """
    s = sheet(items, np.zeros((len(items), 2)))
    label = ["1" if item.correct[0] else "2" for item in s.items]
    given = np.array([a == b for a, b in zip(winner, label, strict=True)], dtype=np.float64)
    other = np.array([a == b for a, b in zip(swapped, label, strict=True)], dtype=np.float64)
    equal = np.array([a == b for a, b in zip(winner, swapped, strict=True)], dtype=np.float64)
    statistics = {"correct_False": given, "correct_True": other, "correct_both": given * other, "equal": equal}
    unparsed = sum(choice not in ("1", "2") for choice in (*winner, *swapped))
    return _result(s, (given + other) / 2, unparsed, statistics, seed, resamples)


def _result(s: Sheet, wins: Floats, ties: int, statistics: dict[str, Floats], seed: int, resamples: int) -> Result:
    options = {"seed": seed, "resamples": resamples}
    present = [name for name in SUBSETS if (s.category == name).any()]
    adversarial = [name for name in present if name != "Natural"]

    def over(names: Sequence[str], values: Floats = wins) -> Estimate:
        return weighted(values, s.category, {name: 1 / len(names) for name in names}, s.group, **options)

    details = {"micro average": mean(wins, s.group, **options)}
    if adversarial:
        details["adversarial mean"] = over(adversarial)
    for key, values in statistics.items():
        details |= {f"{name} {key}": found for name, found in by_category(values, s, **options).items()}
    missing = [name for name in SUBSETS if name not in present]
    return Result(
        benchmark="llmbar",
        metric=METRIC if not missing else f"mean of {len(present)} of five subsets",
        overall=over(present),
        categories={name: over([name]) for name in present},
        details=details,
        items=len(s.items),
        prompts=s.prompts,
        ties=ties,
        unscored=s.unscored,
        notes=(f"Absent subsets: {', '.join(missing)}.",) if missing else (),
    )


def read_scores(
    path: str | os.PathLike[str], items: Sequence[Item] | None = None
) -> tuple[list[Item], dict[str, Floats | Result]]:
    """Labels of judges: `subset`, `idx` (row of the subset), `evaluator`, `winner`, `winner_swapped`; needs the items."""
    if not items:
        raise DataError(f"{path}: labels of judges hold no right answers; name the benchmark as well with --data")
    by_judge: dict[str, dict[str, Row]] = {}
    for row in stream(path):
        if not {"subset", "idx", "evaluator", "winner", "winner_swapped"} <= row.data.keys():
            raise DataError(f"{row.place}: expected subset, idx, evaluator, winner and winner_swapped")
        subset = _NAMES.get(re.split(r"[/\\]", str(row.data["subset"]))[-1].lower(), "")
        by_judge.setdefault(str(row.data["evaluator"]), {})[f"{subset}:{row.data['idx']}"] = row
    found: dict[str, Floats | Result] = {}
    for judge, rows in by_judge.items():
        absent = [item.id for item in items if item.id not in rows]
        if absent:
            raise DataError(f"{path}: {judge} has no label for {absent[0]} and {len(absent) - 1} more items")
        judged = [rows[item.id].data for item in items]
        found[judge] = measure_labels(
            items, [row["winner"] for row in judged], [row["winner_swapped"] for row in judged]
        )
    return list(items), found
