"""Best of K against verifiable answers, in the manner of PPE (Frick et al. 2024, arXiv 2410.14872).

In: many candidates per prompt, each right or wrong. The five numbers, first per set and then averaged over the sets:

    pair accuracy  mean over prompts of the share of (right, wrong) pairs in which right scores strictly higher
    ROC-AUC        chance that a right candidate of any prompt scores higher than a wrong one of any prompt, ties 1/2:
                   unlike the pair accuracy it asks for scores that mean the same on every prompt
    curve          share right of the best-scored of K candidates drawn without replacement, ties shared, K = 1, 2, ...;
                   `max score` is its highest point, `end score` its last
    loss           mean over K of the ideal curve (a right answer whenever one was drawn) minus the curve

PPE takes its pair accuracy over pairs that were sampled once per prompt; here all pairs count, of which that is an
estimate. Its code could not be read for this page, so compare with published values with caution.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from guerdon.data.containers import Row
from guerdon.evaluate.benchmarks.estimate import RESAMPLES, Estimate, Result, linearised, mean, weighted
from guerdon.evaluate.benchmarks.item import Bools, Item, Sheet, make_item, matrix, rows_with, sheet
from guerdon.evaluate.best_of_n import best_of_n
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.columns import Floats
from guerdon.types import DataError

METRIC = "pair accuracy, mean of sets"


def load(path: str | os.PathLike[str]) -> list[Item]:
    """Rows with `prompt`, `response_1`, ..., `scores` (one truth value each): a set lmarena-ai/PPE-...-Best-of-K."""
    return [_item(row) for row in rows_with(path, ("prompt", "response_1", "scores"))]


def _item(row: Row) -> Item:
    answers: list[Any] = []
    while f"response_{len(answers) + 1}" in row.data:
        answers.append(row.data[f"response_{len(answers) + 1}"])
    marks = row.data["scores"]
    if not isinstance(marks, list) or len(marks) != len(answers):
        raise DataError(f"{row.place}: {len(answers)} responses, but 'scores' is not a list of as many truth values")
    category = Path(row.file).name.partition(".")[0]
    return make_item(str(row.data.get("question_id", row.place)), category, row.data["prompt"], answers, marks)


def from_candidates(table: CandidateTable, category: str = "") -> tuple[list[Item], Floats]:
    """Items and scores out of a candidate table whose gold values are 0 or 1. Raises DataError for other gold."""
    bad = np.flatnonzero((table.gold != 0) & (table.gold != 1))
    if len(bad):
        raise DataError(
            f"candidate {table.completion[bad[0]]} of prompt {table.prompt[bad[0]]}: gold is {table.gold[bad[0]]}; "
            "best of K against right and wrong needs gold 0 or 1 for every candidate"
        )
    starts = table.starts()
    items, scores = [], []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        chars = tuple(table.chars[begin:end].tolist())
        marks = tuple(bool(value) for value in table.gold[begin:end])
        prompt = str(table.prompt[begin])
        items.append(Item(prompt, category, marks, prompt, chars=() if np.isnan(chars).any() else chars))
        scores.append(table.score[begin:end].tolist())
    return items, matrix(items, scores)


def pair_accuracy(s: Sheet) -> Floats:
    """Share of (right, wrong) pairs won strictly, per item; NaN where all candidates are right or all wrong."""
    pairs = s.right[:, :, None] & s.wrong[:, None, :]
    won = (pairs & (s.scores[:, :, None] > s.scores[:, None, :])).sum(axis=(1, 2))
    total = pairs.sum(axis=(1, 2))
    shares: Floats = np.divide(won, total, out=np.full(len(total), np.nan), where=total > 0)
    return shares


def curve(scores: Floats, right: Bools, exists: Bools) -> Floats:
    """Chance that the best-scored of k candidates drawn without replacement is right: (n, K) for k = 1..K.

    Candidates of equal score count with their mean. K is the smallest number of candidates of an item.
    """
    sizes = exists.sum(axis=1)
    k = np.arange(1, int(sizes.min()) + 1 if len(sizes) else 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return best_of_n(scores[exists], right[exists].astype(np.float64), starts, k)[:, :, 0]


def roc_auc(s: Sheet, **options: int) -> Estimate:
    """Area under the ROC curve over all candidates, with the interval over prompts of its linearised form.

    The placements of DeLong et al. (1988): the share of wrong scores below each right one, and of right above each wrong.
    """
    exists = s.right | s.wrong
    scores, right = s.scores[exists], s.right[exists]
    groups = np.repeat(s.group, exists.sum(axis=1))
    ups, downs = int(right.sum()), int((~right).sum())
    if not ups or not downs:
        return Estimate(float("nan"), n=len(scores))
    rank = rankdata(scores)
    placement = np.empty(len(scores))
    placement[right] = (rank[right] - rankdata(scores[right])) / downs
    placement[~right] = 1 - (rank[~right] - rankdata(scores[~right])) / ups
    area = float(placement[right].mean())
    share = np.where(right, len(scores) / ups, len(scores) / downs)
    return linearised(area, share * (placement - area), groups, **options)


def measure(items: Sequence[Item], scores: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Result:
    """Pair accuracy, overall (mean of the sets) and per set; `details`: ROC-AUC, end and max score, loss, ideal end."""
    s = sheet(items, scores)
    options = {"seed": seed, "resamples": resamples}
    accuracy = pair_accuracy(s)
    mixed = ~np.isnan(accuracy)
    names = [name for name in dict.fromkeys(s.category.tolist()) if (mixed & (s.category == name)).any()]

    def over(chosen: Sequence[str]) -> Estimate:
        weights = {name: 1 / len(chosen) for name in chosen}
        return weighted(accuracy[mixed], s.category[mixed], weights, s.group[mixed], **options)

    exists = s.right | s.wrong
    achieved = curve(s.scores, s.right, exists)
    ideal = curve(s.right.astype(np.float64), s.right, exists)
    details = {"ROC-AUC": roc_auc(s, **options)}
    if achieved.size:
        best = int(achieved.mean(axis=0).argmax())
        details |= {
            "end score": mean(achieved[:, -1], s.group, **options),
            "max score": mean(achieved[:, best], s.group, **options),
            "loss": mean((ideal - achieved).mean(axis=1), s.group, **options),
            "ideal end score": mean(ideal[:, -1], s.group, **options),
        }
    alike = int((~mixed).sum())
    tied = (s.right[:, :, None] & s.wrong[:, None, :] & (s.scores[:, :, None] == s.scores[:, None, :])).sum()
    return Result(
        benchmark="ppe",
        metric=METRIC,
        overall=over(names),
        categories={name: over([name]) for name in names} if len(names) > 1 else {},
        details=details,
        items=len(s.items),
        prompts=s.prompts,
        ties=int(tied),
        unscored=s.unscored,
        curves={
            name: tuple(c.mean(axis=0).tolist()) for name, c in (("best of K", achieved), ("ideal", ideal)) if c.size
        },
        notes=(f"{alike} prompts whose candidates are all right or all wrong have no pairs.",) if alike else (),
    )


def read_scores(
    path: str | os.PathLike[str], items: Sequence[Item] | None = None
) -> tuple[list[Item], dict[str, Floats | Result]]:
    """A candidate table (`prompt_id`, `completion_id`, `score`, `gold` 0 or 1, perhaps `chars` or `text`)."""
    kept, scores = from_candidates(CandidateTable.read(os.fspath(path)))
    return kept, {Path(path).name: scores}
