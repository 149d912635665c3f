"""What the votes on a question mean, given the raters: how good each candidate is, and which of two is better.

In: a fitted rater model. Out: for each question the qualities of its candidates and p(better) for each pair.

p(better) is the probability that the *typical* rater (slope 1), shown the two in no order and made to decide, prefers the
first: the mean of S(d) over the posterior of the difference d. It is the target that a Bradley-Terry reward is trained to:
the reward difference of a perfect model is then d in nats of the typical rater.
"""

from __future__ import annotations

import numpy as np

from guerdon.data.likelihood import NODES, blocks
from guerdon.data.raters import RaterModel
from guerdon.data.votes import Floats, Ints

STEPS = 12  # Newton steps; the log posterior is concave, and eight are enough for 1e-10


def better(model: RaterModel) -> Floats:
    """(P,) p(better) of the first candidate of each pair of the votes; for each question they agree with one ranking."""
    found = np.full(len(model.votes.question), 0.5)
    lead = np.tanh(model.p.scale * NODES / 2) / 2  # S(d) - 1/2
    for block in blocks(model.votes, model.p):
        found[block.pairs] = 0.5 + block.weight @ lead
    for size in np.unique(model.votes.size):
        if size > 2:
            _rankings(model, int(size), found)
    return np.where(np.abs(found - 0.5) < 1e-9, 0.5, found)  # an even vote is a tie, whatever the rounding says


def _rankings(model: RaterModel, k: int, found: Floats) -> None:
    """p(better) for the questions of K > 2 candidates: their qualities at the maximum, with Laplace's covariance.

    Each quality has a normal prior with variance scale^2 / 2, each pair of a ranking the weight 2/K. With difference m and
    variance v, p(better) = S(m / sqrt(1 + pi v / 8)) (MacKay 1992).
    """
    votes, p = model.votes, model.p
    of_pairs = np.flatnonzero(votes.size == k)
    rows = np.flatnonzero((votes.size == k)[votes.pair])
    asked, local = np.unique(votes.question[of_pairs], return_inverse=True)
    place = np.full(len(votes.question), -1)
    place[of_pairs] = local
    pair, rater = votes.pair[rows], votes.rater[rows]
    q, i, j = place[pair], votes.first[pair], votes.second[pair]
    outcome, c = votes.outcome[rows], p.threshold[rater]
    theta = np.zeros((len(asked), k))
    precision = np.eye(k) * 2 / p.scale**2
    for _ in range(STEPS):
        h = p.skill[rater] * (theta[q, i] - theta[q, j]) + p.side[rater] * votes.side[rows]
        u, v = 1 / (1 + np.exp(c - h)), 1 / (1 + np.exp(h + c))
        slope = ((outcome >= 0) * (1 - u) - (outcome <= 0) * (1 - v)) * p.skill[rater] * (2 / k)
        bend = ((outcome >= 0) * u * (1 - u) + (outcome <= 0) * v * (1 - v)) * p.skill[rater] ** 2 * (2 / k)
        gradient, hessian = -theta @ precision, np.tile(precision, (len(asked), 1, 1))
        np.add.at(gradient, (q, i), slope)
        np.add.at(gradient, (q, j), -slope)
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            np.add.at(hessian, (q, a, b), sign * bend)
        theta = theta + np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    covariance = np.linalg.inv(hessian)
    first, second = votes.first[of_pairs], votes.second[of_pairs]
    m = theta[local, first] - theta[local, second]
    v = covariance[local, first, first] + covariance[local, second, second] - 2 * covariance[local, first, second]
    found[of_pairs] = 1 / (1 + np.exp(-m / np.sqrt(1 + np.pi * v / 8)))


def ranks_of(k: int, first: Ints, second: Ints, p: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(ranks, probabilities) of one question as a `Comparison` holds them, from the p(better) of its pairs."""
    wins = np.zeros(k)
    np.add.at(wins, first, p > 0.5)
    np.add.at(wins, second, p < 0.5)
    values = sorted(set(wins.tolist()), reverse=True)
    ranks = tuple(float(values.index(w)) for w in wins.tolist())
    return ranks, tuple(float(x) for x in p)
