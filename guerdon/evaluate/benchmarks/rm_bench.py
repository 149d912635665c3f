"""RM-Bench: small errors against fine style, a 3x3 matrix per domain (Liu et al. 2024, arXiv 2410.16184).

Rule (THU-KEG/RM-Bench, README, `compute_accuracy`): each item has three right and three wrong answers in the styles
concise, detailed, detailed with markdown. A[i][j] is the share of items whose right answer in style i scores strictly
higher than the wrong one in style j. hard is the mean of the three cells with i < j (the wrong answer has the finer
style), normal the diagonal, easy the three cells with i > j. A domain scores (hard + normal + easy) / 3; the overall
score is the mean of the domains chat, code, math, safety, and each difficulty the mean of its four domain values. The
two safety files are one domain, pooled.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.data.containers import Row
from guerdon.evaluate.benchmarks.estimate import RESAMPLES, Result, weighted
from guerdon.evaluate.benchmarks.item import Item, make_item, matrix, number, prompt_group, rows_with, score_rows, sheet
from guerdon.evaluate.columns import Floats, texts
from guerdon.types import DataError

HUB = "THU-KEG/RM-Bench"
METRIC = "mean of four domains"
DOMAINS = ("chat", "code", "math", "safety")
STYLES = ("concise", "detailed", "markdown")
DIFFICULTIES = ("easy", "normal", "hard")
LEVEL = np.array([["normal", "hard", "hard"], ["easy", "normal", "hard"], ["easy", "easy", "normal"]], dtype=object)


def load(path: str | os.PathLike[str]) -> list[Item]:
    """Rows with `prompt`, `chosen[3]`, `rejected[3]`; the domain from `domain` or, without it, from the file's name.

    Where a folder holds the merged file `total_dataset` beside the domain files, the merged file alone is read.
    """
    folder = Path(path)
    merged = next(iter(sorted(folder.glob("total_dataset*"))), None) if folder.is_dir() else None
    rows = rows_with(merged or path, ("prompt", "chosen", "rejected"))
    items = []
    for row in rows:
        answers = [*_three(row, "chosen"), *_three(row, "rejected")]
        items.append(make_item(_id(row), _domain(row), row.data["prompt"], answers, [True] * 3 + [False] * 3))
    return items


def _id(row: Row) -> str:
    return f"{_domain(row)}:{row.data.get('id', row.line)}"


def _three(row: Row, name: str) -> list[Any]:
    value = row.data[name]
    if not isinstance(value, list) or len(value) != len(STYLES):
        raise DataError(f"{row.place}: {name!r} must be a list of three, one per style; give the benchmark's own files")
    return value


def _domain(row: Row) -> str:
    name = str(row.data.get("domain") or Path(row.file).name).lower()
    found = next((domain for domain in DOMAINS if name.startswith(domain)), None)
    if found is None:
        raise DataError(
            f"{row.place}: no domain; add a column 'domain' ({', '.join(DOMAINS)}) or name the file after its domain"
        )
    return found


def measure(items: Sequence[Item], scores: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Result:
    """Overall and the domains; `details` holds the difficulties, over domains and in each; `curves` the matrices.

    Scores are (items, 6): three right answers and then three wrong ones, in the order of the styles.
    """
    s = sheet(items, scores)
    if s.items and any(item.correct != (True,) * 3 + (False,) * 3 for item in s.items):
        raise DataError("RM-Bench items have three right and then three wrong answers; give the benchmark's own files")
    cells = s.scores[:, :3, None] - s.scores[:, None, 3:6]
    wins = (s.scores[:, :3, None] > s.scores[:, None, 3:6]).astype(np.float64)
    domains = [name for name in DOMAINS if (s.category == name).any()]
    values, groups = wins.reshape(-1), np.repeat(s.group, 9)
    strata = texts([f"{domain} {level}" for domain in s.category for level in LEVEL.reshape(-1)])
    options = {"seed": seed, "resamples": resamples}

    def over(names: Sequence[str], levels: Sequence[str]) -> Any:
        weights = {f"{name} {level}": 1 / len(names) / len(levels) for name in names for level in levels}
        return weighted(values, strata, weights, groups, **options)

    details = {level: over(domains, [level]) for level in DIFFICULTIES} if domains else {}
    details |= {f"{name} {level}": over([name], [level]) for name in domains for level in DIFFICULTIES}
    missing = [name for name in DOMAINS if name not in domains]
    return Result(
        benchmark="rm-bench",
        metric=METRIC if not missing else f"mean of {len(domains)} of four domains",
        overall=over(domains, DIFFICULTIES),
        categories={name: over([name], DIFFICULTIES) for name in domains},
        details=details,
        items=len(s.items),
        prompts=s.prompts,
        ties=int((cells == 0).sum()),
        unscored=s.unscored,
        curves={
            f"{name} matrix": tuple(wins[s.category == name].mean(axis=0).reshape(-1).tolist()) for name in domains
        },
        notes=(f"Absent domains: {', '.join(missing)}; published scores cover all.",) if missing else (),
    )


def read_scores(
    path: str | os.PathLike[str], items: Sequence[Item] | None = None
) -> tuple[list[Item], dict[str, Floats | Result]]:
    """A file or folder of `results/`: the rows of the data with `score_chosen[3]` and `score_rejected[3]`."""
    known = {item.id: item for item in items or ()}
    kept, scores = [], []
    for row in score_rows(path):
        if not {"score_chosen", "score_rejected"} <= row.data.keys():
            raise DataError(f"{row.place}: expected score_chosen and score_rejected; give a published score file")
        values = [
            number(value, row.place) for name in ("score_chosen", "score_rejected") for value in _three(row, name)
        ]
        prompt = str(row.data.get("prompt", row.place))
        bare = Item(_id(row), _domain(row), (True,) * 3 + (False,) * 3, prompt_group(prompt))
        kept.append(known.get(bare.id) or bare)
        scores.append(values)
    return kept, {Path(path).name: matrix(kept, scores)}
