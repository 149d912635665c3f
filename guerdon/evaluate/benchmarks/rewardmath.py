"""RewardMATH: one right solution against nine wrong ones from nine sources (Kim et al. 2024, arXiv 2410.01729).

Rule (kimsh0507/RewardMATH_official, `src/evaluation/eval.py`): accuracy is the share of problems whose right solution
scores strictly higher than all wrong ones; MRR is the mean of 1/rank of the right solution, which stands behind wrong
ones of equal score. A process reward model gives one score per step, made into one per solution by the minimum, maximum,
product, geometric mean, mean or last.

Accuracy at k distractors is the chance that the right solution beats k of the wrong ones drawn at random: with b wrong
ones strictly below it out of m, C(b, k) / C(m, k). At k = 1 it is the pairwise accuracy, at k = m the accuracy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import comb

from guerdon.data.containers import Row
from guerdon.evaluate.benchmarks.estimate import RESAMPLES, Result, mean
from guerdon.evaluate.benchmarks.item import (
    Item,
    Sheet,
    make_item,
    matrix,
    number,
    prompt_group,
    rows_with,
    score_rows,
    sheet,
)
from guerdon.evaluate.columns import Floats
from guerdon.types import DataError

METRIC = "right solution above all wrong ones"
AGGREGATIONS = ("min", "max", "prod", "geometric_mean", "mean", "last")
RIGHT = ("human_to_GPT-4", "chosen")


def load(path: str | os.PathLike[str]) -> list[Item]:
    """Rows with `problem`, `eval_solution` (steps or text), `solution_type`: one row per solution, grouped by problem.

    Steps are joined with line breaks.
    """
    rows = rows_with(path, ("problem", "eval_solution", "solution_type"))
    problems: dict[str, list[Row]] = {}
    for row in rows:
        problems.setdefault(str(row.data.get("problem_id", row.data["problem"])), []).append(row)
    items = []
    for id, group in problems.items():
        texts = [row.data["eval_solution"] for row in group]
        answers = ["\n".join(map(str, text)) if isinstance(text, list) else text for text in texts]
        marks = [row.data["solution_type"] == "chosen" for row in group]
        items.append(make_item(id, str(group[0].data.get("subject", "")), group[0].data["problem"], answers, marks))
    return items


def aggregate(steps: Sequence[float], how: str) -> float:
    """One score out of the scores of the steps. Raises ValueError for an unknown rule, DataError without steps."""
    if not steps:
        raise DataError("a solution has no step scores; leave it out or give it a score of its own")
    if how == "min":
        return min(steps)
    if how == "max":
        return max(steps)
    if how == "prod":
        return math.prod(steps)
    if how == "geometric_mean":
        return math.prod(steps) ** (1 / len(steps))
    if how == "mean":
        return sum(steps) / len(steps)
    if how == "last":
        return steps[-1]
    raise ValueError(f"aggregation {how!r} is none of {', '.join(AGGREGATIONS)}")


def at_k(s: Sheet) -> Floats:
    """Accuracy at k = 1, 2, ... distractors of each item, up to the fewest wrong candidates: (n, k)."""
    below = ((s.scores < s.worst_right[:, None]) & s.wrong).sum(axis=1)
    total = s.wrong.sum(axis=1)
    k = np.arange(1, int(total.min()) + 1 if len(total) else 1)
    shares: Floats = comb(below[:, None], k[None, :]) / comb(total[:, None], k[None, :])
    return shares


def reciprocal_rank(s: Sheet) -> Floats:
    """1/rank of the best right candidate of each item; wrong ones of equal score stand before it."""
    ahead = ((s.scores >= s.best_right[:, None]) & s.wrong).sum(axis=1)
    ranks: Floats = 1.0 / (1 + ahead)
    return ranks


def measure(items: Sequence[Item], scores: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Result:
    """Accuracy; `details`: accuracy with ties called right, MRR, pairwise accuracy; `curves`: accuracy at k."""
    s = sheet(items, scores)
    options = {"seed": seed, "resamples": resamples}
    shares = at_k(s)
    loose = (s.worst_right >= s.best_wrong).astype(np.float64)
    details = {
        "MRR": mean(reciprocal_rank(s), s.group, **options),
        "accuracy with ties right": mean(loose, s.group, **options),
    }
    if shares.shape[1]:
        details["pairwise accuracy"] = mean(shares[:, 0], s.group, **options)
    repeated = len(s.items) - s.prompts
    return Result(
        benchmark="rewardmath",
        metric=METRIC,
        overall=mean(s.wins, s.group, **options),
        categories={},
        details=details,
        items=len(s.items),
        prompts=s.prompts,
        ties=s.ties,
        unscored=s.unscored,
        curves={"accuracy at k": tuple(shares.mean(axis=0).tolist())} if len(shares) else {},
        notes=(f"{repeated} of {len(s.items)} problems stand there twice; the official rule counts each.",)
        if repeated
        else (),
    )


def read_scores(
    path: str | os.PathLike[str], items: Sequence[Item] | None = None
) -> tuple[list[Item], dict[str, Floats | Result]]:
    """A file of `results/RewardMATH` or `results/Rewardbench`: `problem`, `solution_reference`, `score`, or one row per
    solution with `output.step_scores`. Step scores give one result per aggregation, named after it.
    """
    rows = score_rows(path)
    kept, scores = _by_solution(rows) if "solution_type" in rows[0].data else _by_problem(rows)
    name = Path(path).name.partition(".jsonl")[0].removesuffix(".json")
    if not any(isinstance(score, list) for row in scores for score in row):
        values = [[number(score, item.id) for score in row] for item, row in zip(kept, scores, strict=True)]
        return kept, {name: matrix(kept, values)}
    return kept, {
        f"{name} {how}": matrix(kept, [[aggregate(steps, how) for steps in row] for row in scores])
        for how in AGGREGATIONS
    }


def _by_problem(rows: Sequence[Row]) -> tuple[list[Item], list[list[Any]]]:
    items, scores = [], []
    for row in rows:
        if not {"problem", "solution_reference", "score"} <= row.data.keys():
            raise DataError(f"{row.place}: expected problem, solution_reference and score; give a published score file")
        marks = tuple(reference in RIGHT for reference in row.data["solution_reference"])
        if not any(marks) or len(marks) != len(row.data["score"]):
            raise DataError(
                f"{row.place}: no right solution, or not one score per solution; give a published score file"
            )
        items.append(Item(row.place, "", marks, prompt_group(row.data["problem"])))
        scores.append(list(row.data["score"]))
    return items, scores


def _by_solution(rows: Sequence[Row]) -> tuple[list[Item], list[list[Any]]]:
    problems: dict[str, list[Row]] = {}
    for row in rows:
        problems.setdefault(str(row.data.get("problem_id", row.data.get("problem"))), []).append(row)
    items, scores = [], []
    for id, group in problems.items():
        marks = tuple(row.data.get("solution_type") == "chosen" for row in group)
        items.append(Item(id, "", marks, prompt_group(str(group[0].data.get("problem", id)))))
        scores.append([row.data["output"]["step_scores"] for row in group])
    return items, scores
