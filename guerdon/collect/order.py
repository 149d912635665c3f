"""In which order candidates are shown: counterbalanced, over each question's raters and over each rater's questions.

A tally is a K x K matrix, tally[candidate][position] = how often. The orders offered are the K cyclic shifts and their
mirror images, so that the greedy choice completes one Latin square after another.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

Tally = list[list[int]]
SLACK = 2  # how far, per candidate, a rater's balance may be off for the sake of a question's


def empty(k: int) -> Tally:
    return [[0] * k for _ in range(k)]


def orders(k: int) -> list[tuple[int, ...]]:
    """The orders that are offered for K candidates: every cyclic shift, forwards and (K > 2) backwards."""
    forward = [tuple((p + shift) % k for p in range(k)) for shift in range(k)]
    return forward if k == 2 else forward + [order[::-1] for order in forward]


def add(tally: Tally, order: Sequence[int], times: int = 1) -> Tally:
    """The tally after showing candidates in this order."""
    new = [list(row) for row in tally]
    for position, candidate in enumerate(order):
        new[candidate][position] += times
    return new


def cost(tally: Tally, order: Sequence[int]) -> int:
    """How often these candidates were in these positions before: what a balanced choice keeps low."""
    return sum(tally[candidate][position] for position, candidate in enumerate(order))


def choose(question: Tally, rater: Tally, rng: random.Random) -> tuple[tuple[int, ...], int]:
    """The order to show, and by how much it is off the best for the question and for the rater together (0: for neither).

    The question's balance goes first as long as the rater's stays within `SLACK` showings of even.
    """
    k = len(question)
    offered = orders(k)
    rng.shuffle(offered)
    best_question = min(cost(question, order) for order in offered)
    best_rater = min(cost(rater, order) for order in offered)
    allowed = [order for order in offered if cost(rater, order) - best_rater <= (SLACK - 1) * k]
    order = min(allowed, key=lambda order: (cost(question, order), cost(rater, order)))
    return order, cost(question, order) - best_question + cost(rater, order) - best_rater


def spread(tally: Tally) -> int:
    """The largest difference between two cells: 0 or 1 is as even as whole numbers allow."""
    cells = [count for row in tally for count in row]
    return max(cells) - min(cells)
