"""Score comparisons with any `Scorer` and line the rewards up as a score table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from guerdon.data.split import prompt_key
from guerdon.evaluate.table import ScoreTable
from guerdon.types import Comparison, Score, Scorer

BLOCK = 128  # comparisons handed over at once: enough to fill batches, few enough that progress moves


def score_comparisons(
    scorer: Scorer,
    comparisons: Sequence[Comparison],
    *,
    gold: Sequence[Sequence[float]] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> ScoreTable:
    """One row per completion, in the order of `comparisons`; `advance` is told how many more comparisons are done."""
    scores: list[list[Score]] = []
    for start in range(0, len(comparisons), BLOCK):
        block = comparisons[start : start + BLOCK]
        flat = iter(scorer.score([conversation for comparison in block for conversation in comparison.conversations()]))
        scores += [[next(flat) for _ in comparison.completions] for comparison in block]
        advance(len(block))
    keys = [prompt_key(comparison) for comparison in comparisons]
    return ScoreTable.build(comparisons, scores, prompt_keys=keys, gold=gold)
