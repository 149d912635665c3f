"""Raters with skill, leanings and a side they prefer; every probability has a closed form.

A rater feels a utility for each completion, adds Gumbel noise, and ranks. For two completions this is the Bradley-Terry
model with ties of Rao & Kupper (1967): with d the difference of the utilities as shown, left minus right, and t the tie
threshold, P(left) = sigmoid(d - t), P(right) = sigmoid(-d - t), and the rest is a tie.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from guerdon.lab.gold import gold, words
from guerdon.lab.phrases import FLATTERY

_FORMATTED = re.compile(r"^\s*[-*] |\*\*", re.MULTILINE)


class Judgement(NamedTuple):
    """What one rater said of completions in the order in which they were shown: `ranks[0]` belongs to the first shown.

    Lower is better, equal is a tie, as in `guerdon.types.Comparison`.
    """

    rater: str
    ranks: tuple[int, ...]


class Odds(NamedTuple):
    """Probabilities that the left one wins, that the right one wins, and of a tie. They sum to 1."""

    left: float
    right: float
    tie: float


@dataclass(frozen=True)
class Rater:
    """One rater. All knobs are in nats of utility, the unit in which one nat is odds of e to 1."""

    name: str
    skill: float = 12.0
    """nats per unit of gold difference: the inverse temperature"""
    side_bias: float = 0.0
    """nats by which the first shown is preferred to the last, the others in between"""
    length_bias: float = 0.0
    """nats per doubling of the number of words"""
    format_bias: float = 0.0
    """nats for a list or bold words"""
    sycophancy: float = 0.0
    """nats for being praised"""
    tie_threshold: float = 0.0
    """nats below which two completions feel the same"""

    def utility(self, prompt: str, completion: str) -> float:
        """How good a completion seems to this rater, wherever it is shown, in nats."""
        return (
            self.skill * gold(prompt, completion)
            + self.length_bias * math.log2(1 + len(words(completion)))
            + self.format_bias * bool(_FORMATTED.search(completion))
            + self.sycophancy * any(praise in completion for praise in FLATTERY)
        )

    def p_left(self, prompt: str, left: str, right: str) -> Odds:
        """The odds when `left` is shown first."""
        return self.odds(self.utility(prompt, left) - self.utility(prompt, right) + self.side_bias)

    def odds(self, difference: float) -> Odds:
        """The odds for a difference of utilities, left minus right, in nats, side bias included."""
        left, right = _sigmoid(difference - self.tie_threshold), _sigmoid(-difference - self.tie_threshold)
        return Odds(left, right, max(0.0, 1 - left - right))

    def judge(self, prompt: str, left: str, right: str, rng: random.Random) -> Judgement:
        """A judgement of two completions, drawn from `p_left`."""
        return self.rank(prompt, (left, right), rng)

    def rank(self, prompt: str, shown: Sequence[str], rng: random.Random) -> Judgement:
        """A ranking of K >= 2 completions in the order shown.

        Neighbours in the ranking whose noisy utilities differ by at most the threshold share a rank, so that with K > 2
        ties may join into longer runs; without ties the ranking follows Plackett (1975) and Luce (1959).
        """
        last = len(shown) - 1
        felt = [
            self.utility(prompt, text) - self.side_bias * i / last - math.log(-math.log(1 - rng.random() or 1e-300))
            for i, text in enumerate(shown)
        ]
        ranks, rank = [0] * len(shown), 0
        order = sorted(range(len(shown)), key=lambda i: -felt[i])
        for better, worse in pairwise(order):
            rank += felt[better] - felt[worse] > self.tie_threshold
            ranks[worse] = rank
        return Judgement(self.name, tuple(ranks))


RATERS: tuple[Rater, ...] = (
    Rater("expert", skill=20.0, tie_threshold=0.3),
    Rater("steady", skill=12.0, tie_threshold=0.2),
    Rater("hurried", skill=6.0, side_bias=0.5),
    Rater("verbose-minded", skill=10.0, length_bias=0.4, tie_threshold=0.2),
    Rater("impressionable", skill=9.0, side_bias=0.2, format_bias=0.5, sycophancy=0.5, tie_threshold=0.2),
)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
