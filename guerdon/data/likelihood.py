"""What a vote says about a rater and a pair: the likelihood that the rater model maximises, with its derivatives.

Rater r, shown candidates i and j of a question whose qualities differ by d = theta_i - theta_j, answers by

    h = a_r d + b_r s        s = (places that i was shown before j) / (K - 1): 1 or -1 for K = 2, 0 when not known
    P(i) = S(h - c_r)        P(j) = S(-h - c_r)        P(tie) = 1 - P(i) - P(j)        S(x) = 1 / (1 + exp(-x))

the tie model of Rao and Kupper (1967) with a slope (the rater's skill) and an intercept (his side). d is not known; it is
normal with mean 0 and standard deviation `scale`, and is summed out on a grid, so that neither many raters nor many
questions with a single vote bias what is said of the raters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from guerdon.data.votes import Floats, Ints, Votes

NODES = np.linspace(-4, 4, 25)  # standard deviations
LOG_MASS = -(NODES**2) / 2 - np.log(np.exp(-(NODES**2) / 2).sum())
ROWS = 8192  # votes at a time: what stays in a processor's cache


@dataclass(frozen=True, eq=False)
class Parameters:
    """skill a, side b and log tie threshold log c of each rater, (R,) each, and the spread of the quality differences.

    `ties` is False when nobody ever said tie: then c is 0 and `tie` means nothing.
    """

    skill: Floats
    side: Floats
    tie: Floats
    scale: float
    ties: bool

    @property
    def threshold(self) -> Floats:
        return np.exp(self.tie) if self.ties else np.zeros_like(self.tie)


@dataclass(frozen=True, eq=False)
class Block:
    """Votes of whole pairs, with what the model says of them at each node; (v, M) and (p, M) arrays.

    log    log-likelihood of each vote                        eta, tau  its derivatives by h and c
    curve  minus its second derivatives by (h,h), (h,c), (c,c), only when asked for
    weight posterior mass of each node for each pair          total     log-likelihood of each pair
    local  pair of each vote within the block
    """

    rows: slice
    pairs: slice
    local: Ints
    log: Floats
    eta: Floats
    tau: Floats
    curve: tuple[Floats, Floats, Floats] | None
    weight: Floats
    total: Floats


def blocks(votes: Votes, p: Parameters, *, curvature: bool = False) -> Iterator[Block]:
    """All votes in blocks of whole pairs."""
    starts = votes.starts
    low = 0
    while low < len(starts) - 1:
        high = max(low + 1, int(np.searchsorted(starts, starts[low] + ROWS, side="right")) - 1)
        yield _block(votes, p, low, high, starts, curvature)
        low = high


def _block(votes: Votes, p: Parameters, low: int, high: int, starts: Ints, curvature: bool) -> Block:
    rows = slice(int(starts[low]), int(starts[high]))
    rater, outcome = votes.rater[rows], votes.outcome[rows]
    c = p.threshold[rater][:, None]
    h = p.skill[rater][:, None] * (p.scale * NODES) + (p.side[rater] * votes.side[rows])[:, None]
    not_second, not_first, tied = outcome[:, None] >= 0, outcome[:, None] <= 0, outcome[:, None] == 0
    log_u, u = _log_sigmoid(h - c)
    log_v, v = _log_sigmoid(-h - c)
    log = np.where(not_second, log_u, 0.0) + np.where(not_first, log_v, 0.0)
    up, down = np.where(not_second, 1 - u, 0.0), np.where(not_first, 1 - v, 0.0)
    tau = -up - down
    if p.ties:
        gap = -np.expm1(-2 * c)
        log = log + np.where(tied, 2 * c + np.log(gap), 0.0)
        tau = tau + np.where(tied, 2 / gap, 0.0)
    total = np.add.reduceat(log, starts[low:high] - rows.start, axis=0) + LOG_MASS
    top = total.max(axis=1, keepdims=True)
    weight = np.exp(total - top)
    mass = weight.sum(axis=1, keepdims=True)
    curve = None
    if curvature:
        first, second = up * u, down * v
        bend = np.where(tied, 4 * np.exp(-2 * c) / gap**2, 0.0) if p.ties else 0.0
        curve = (first + second, second - first, first + second + bend)
    return Block(
        rows, slice(low, high), votes.pair[rows] - low, log, up - down, tau, curve, weight / mass,
        (top + np.log(mass))[:, 0],
    )  # fmt: skip


def _log_sigmoid(x: Floats) -> tuple[Floats, Floats]:
    """log S(x) and S(x), without overflow."""
    small = np.exp(-np.abs(x))
    log = np.minimum(x, 0) - np.log1p(small)
    return log, np.where(x >= 0, 1.0, small) / (1 + small)


def outcome_odds(p: Parameters, rater: Ints, side: Floats) -> Floats:
    """(v, 3, M) probability at each node that these raters call the first better, the second better, or a tie."""
    c = p.threshold[rater][:, None]
    h = p.skill[rater][:, None] * (p.scale * NODES) + (p.side[rater] * side)[:, None]
    first, second = _log_sigmoid(h - c)[1], _log_sigmoid(-h - c)[1]
    return np.stack([first, second, np.maximum(0.0, 1 - first - second)], axis=1)
