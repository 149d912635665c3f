"""Raters who agree with each other more than their skills explain: copied answers, one person with two accounts.

In: votes. Out: every couple of raters with enough common pairs, and those of them that belong on the review
list. A flag is a question for a person to look into, never a reason to drop anybody: two raters who share a taste that
others lack agree too much as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from guerdon.data.likelihood import LOG_MASS, blocks, outcome_odds
from guerdon.data.raters import RaterModel, fit_raters
from guerdon.data.votes import Floats, Ints, Votes, couples_of

MIN_COMMON = 20  # common pairs below which a couple is not tested
LEVEL = 0.01  # chance that any honest couple of a study is flagged, when the model holds (Holm 1979)
MIN_EXCESS = 0.1  # agreement above what is expected that is worth anybody's time
SKILL_SPREAD = (
    0.2  # of the reference model: a clique that is a third of the raters must not pass for the only skilled ones
)
MOST_COUPLES = 400_000  # couples of votes that are looked at; beyond, whole pairs are left out at regular distances


@dataclass(frozen=True)
class Couple:
    """Two raters and how they agree.

    common     pairs of candidates that both judged (votes of a ranking of K count 2/K)
    agreement  share of them with the same outcome; a tie agrees with a tie
    expected   what the model expects, given what everybody else said of these pairs
    z          (agreement - expected) over its standard error under the model
    p          one-sided, adjusted for the number of couples tested (Holm); `flagged` when below LEVEL and the excess is
               at least MIN_EXCESS
    """

    first: str
    second: str
    common: float
    agreement: float
    expected: float
    z: float
    p: float
    flagged: bool


def couples(votes: Votes) -> list[Couple]:
    """All couples of raters with at least MIN_COMMON common pairs, the most suspicious first.

    The reference is a rater model whose skills are held together (SKILL_SPREAD). For each pair that both judged, the posterior of its quality difference is taken from all others' votes (theirs are
    taken out, or a couple that copies would vouch for itself), and the two votes are independent given the difference.
    """
    model = fit_raters(votes, skill_spread=SKILL_SPREAD)
    count = len(votes.raters)
    sums = np.zeros((4, count * count))  # common, agreeing, expected, variance
    stride = _stride(model)
    for block in blocks(votes, model.p):
        starts = np.searchsorted(block.local, np.arange(block.weight.shape[0] + 1)).astype(np.int64)
        a, b = couples_of(starts)
        rater = votes.rater[block.rows]
        keep = (rater[a] != rater[b]) & ((block.local[a] + block.pairs.start) % stride == 0)
        a, b = a[keep], b[keep]
        if not len(a):
            continue
        size = votes.size[block.pairs][block.local[a]]
        share = 2 / size
        expected = _expected(model, block.log, block.local, rater, votes.side[block.rows], a, b)
        agree = (votes.outcome[block.rows][a] == votes.outcome[block.rows][b]).astype(np.float64)
        key = np.minimum(rater[a], rater[b]) * count + np.maximum(rater[a], rater[b])
        # the C(K,2) pairs of two rankings go together: they count as K - 1 independent ones
        for row, values in enumerate((share, share * agree, share * expected, share * expected * (1 - expected))):
            sums[row] += np.bincount(key, values, count * count)
    return _tested(model.votes.raters, sums)


def _stride(model: RaterModel) -> int:
    sizes = np.diff(model.votes.starts)
    return max(1, math.ceil(float((sizes * (sizes - 1) // 2).sum()) / MOST_COUPLES))


def _expected(
    model: RaterModel, log: Floats, local: Ints, rater: Ints, side: Floats, a: Ints, b: Ints, step: int = 20_000
) -> Floats:
    """Probability that the two votes of each couple agree, given all the others on the same pair."""
    total = np.zeros((int(local[-1]) + 1, log.shape[1]))
    np.add.at(total, local, log)
    found = []
    for low in range(0, len(a), step):
        i, j = a[low : low + step], b[low : low + step]
        rest = total[local[i]] - log[i] - log[j] + LOG_MASS
        weight = np.exp(rest - rest.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        both = (outcome_odds(model.p, rater[i], side[i]) * outcome_odds(model.p, rater[j], side[j])).sum(axis=1)
        found.append((weight * both).sum(axis=1))
    return np.concatenate(found)


def _tested(raters: tuple[str, ...], sums: Floats) -> list[Couple]:
    common, agreeing, expected, variance = sums
    chosen = np.flatnonzero(common >= MIN_COMMON)
    z = (agreeing - expected)[chosen] / np.sqrt(np.maximum(variance[chosen], 1e-12))
    order = np.argsort(-z, kind="stable")
    found, p = [], 0.0
    for place, position in enumerate(order):
        key = chosen[position]
        p = max(p, min(1.0, float(stats.norm.sf(z[position])) * (len(chosen) - place)))
        share, likely = agreeing[key] / common[key], expected[key] / common[key]
        found.append(
            Couple(
                raters[key // len(raters)], raters[key % len(raters)], float(common[key]), float(share), float(likely),
                float(z[position]), p, bool(p < LEVEL and share - likely >= MIN_EXCESS),
            )
        )  # fmt: skip
    return found
