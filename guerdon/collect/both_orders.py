"""What the order on the screen does to a rater who saw questions both ways round: position bias and self-agreement."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from guerdon.evaluate.intervals import prompt_bootstrap
from guerdon.types import Judgement


@dataclass(frozen=True, slots=True)
class BothOrders:
    """Shares over pairs of candidates, with 95 % intervals (bootstrap over questions); NaN where nothing was counted.

    questions  with at least one ranking in a known order
    first      share of decided pairs that the candidate shown earlier won; 0.5 is no position bias when all were asked both ways
    pairs      pairs that were judged in opposite orders
    same       share of those with the same verdict both times (the same winner, or a tie twice)
    flipped    share of those whose winner changed with the order
    """

    questions: int
    first: float
    first_interval: tuple[float, float]
    pairs: int
    same: float
    same_interval: tuple[float, float]
    flipped: float

    def render(self) -> str:
        """Two sentences for people."""
        text = (
            f"The answer shown first won {self.first:.1%} of decided pairs ({_between(self.first_interval)}; no bias is 50 %)."
            if math.isfinite(self.first)
            else "No pair was decided, so nothing is known of a position bias."
        )
        if self.pairs:
            text += (
                f" Asked both ways round, {self.same:.1%} of {self.pairs:,} pairs had the same verdict "
                f"({_between(self.same_interval)}), "
                f"{self.flipped:.1%} the opposite winner."
            )
        return text


def both_orders(judgements: Iterable[Judgement]) -> BothOrders:
    """Position bias and self-agreement of the judgements of one rater; those without an order or a ranking count for nothing."""
    first: list[tuple[int, float]] = []  # (question, 1 when the earlier one won)
    seen: dict[tuple[int, int, int], dict[bool, float]] = defaultdict(
        dict
    )  # pair -> shown as given? -> difference of ranks
    numbers: dict[str, int] = {}
    for judgement in judgements:
        if judgement.answer != "ranked" or not judgement.order:
            continue
        question = numbers.setdefault(judgement.question.id, len(numbers))
        for early, late in combinations(judgement.order, 2):
            gap = judgement.ranks[late] - judgement.ranks[early]
            if gap:
                first.append((question, float(gap > 0)))
            pair = (question, min(early, late), max(early, late))
            seen[pair].setdefault(early < late, gap if early < late else -gap)
    both = [(pair[0], np.sign(ways[True]), np.sign(ways[False])) for pair, ways in seen.items() if len(ways) == 2]
    same = [(question, float(a == b)) for question, a, b in both]
    return BothOrders(
        questions=len(numbers),
        first=_mean(first),
        first_interval=_interval(first),
        pairs=len(both),
        same=_mean(same),
        same_interval=_interval(same),
        flipped=_mean([(question, float(a * b < 0)) for question, a, b in both]),
    )


def _between(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.1%} to {high:.1%}" if math.isfinite(low) else "interval not known"


def _mean(values: list[tuple[int, float]]) -> float:
    return float(np.mean([value for _, value in values])) if values else float("nan")


def _interval(values: list[tuple[int, float]]) -> tuple[float, float]:
    if not values:
        return float("nan"), float("nan")
    groups, numbers = zip(*values, strict=True)
    return prompt_bootstrap(np.array(numbers), np.array(groups))
