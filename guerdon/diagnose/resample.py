"""Two samples redrawn by prompt: labels permuted for tests, rows weighted for intervals.

Answers to one prompt are alike, so whole prompts are relabelled or drawn, never single rows. A prompt that both samples
answer is a pair of its own: its answers trade places among themselves. A statistic is written once, as a function of
row weights, and serves for the data (column 0), for a test and for an interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guerdon.evaluate.columns import Floats, Ints

Mask = NDArray[np.bool_]
Statistic = Callable[[Floats, Floats], Floats]  # weights of reference and of current rows, each (n, B) -> (B,)


@dataclass(frozen=True, eq=False)
class TwoSamples:
    """Rows of both samples: the number of their prompt, whether they belong to the current one, and how to redraw them.

    permuted    (n, 1 + B) labels, true is current; column 0 as given, the others under "both samples are alike"
    bootstrap   (n, 1 + B) row weights of a bootstrap over prompts; column 0 is ones
    """

    group: Ints
    is_current: Mask
    permuted: Mask
    bootstrap: Floats

    @classmethod
    def draw(cls, group: Ints, is_current: Mask, times: int, seed: int) -> TwoSamples:
        """Draw `times` relabellings and as many bootstrap samples."""
        rng = np.random.default_rng(seed)
        group = np.unique(group, return_inverse=True)[1].reshape(-1).astype(np.int64)
        permuted = np.column_stack([is_current, _permuted(group, is_current, times, rng)])
        weights = np.column_stack([np.ones(len(group)), _bootstrapped(group, is_current, times, rng)])
        return cls(group, is_current, permuted, weights)

    def where(self, keep: Mask) -> TwoSamples:
        """Some of the rows; a relabelling stays one, because it moves whole prompts or trades within them."""
        return TwoSamples(self.group[keep], self.is_current[keep], self.permuted[keep], self.bootstrap[keep])

    def interval(self, statistic: Statistic, level: float = 0.95) -> tuple[float, float, float]:
        """The statistic and its percentile interval over prompts."""
        current = self.is_current[:, None]
        values = statistic(self.bootstrap * ~current, self.bootstrap * current)
        if not np.isfinite(values[1:]).any():
            return float(values[0]), math.nan, math.nan
        low, high = np.nanquantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
        return float(values[0]), float(low), float(high)

    def p_value(self, statistic: Statistic, neutral: float = 0.0) -> float:
        """Two-sided permutation p-value: how often relabelling moves the statistic as far from `neutral`."""
        labels = self.permuted.astype(np.float64)
        return rank_p_value(np.abs(statistic(1 - labels, labels) - neutral))


def rank_p_value(values: Floats) -> float:
    """(1 + number of permuted values at least as large as the first) / (1 + their number); NaN without a first value.

    Never zero, and exact under exchangeability (Phipson and Smyth 2010).
    """
    if not math.isfinite(values[0]):
        return math.nan
    reached = values[1:] >= values[0] - 1e-12 * max(1.0, abs(values[0]))
    return float((1 + reached.sum()) / len(values))


def thin(group: Ints, most: int, seed: int) -> Mask:
    """Keep at most `most` rows of each group, drawn by the seed."""
    order = np.lexsort([np.random.default_rng(seed).random(len(group)), group])
    ordered = group[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    place = np.arange(len(group)) - np.maximum.accumulate(np.where(first, np.arange(len(group)), 0))
    keep = np.zeros(len(group), dtype=np.bool_)
    keep[order] = place < most
    return keep


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Mean of one column under each of (n, B) weights; NaN where they sum to zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = (values @ weights) / weights.sum(0)
    return mean


def weighted_sd(values: Floats, weights: Floats) -> Floats:
    """Standard deviation of one column under each of (n, B) weights."""
    centred = values - values.mean()
    spread = weighted_mean(centred**2, weights) - weighted_mean(centred, weights) ** 2
    return np.sqrt(np.maximum(spread, 0.0))


def _sides(group: Ints, is_current: Mask) -> tuple[Mask, Mask]:
    """Per prompt: does the reference answer it, does the current sample?"""
    current = np.bincount(group, weights=is_current) > 0
    reference = np.bincount(group, weights=~is_current) > 0
    return reference, current


def _permuted(group: Ints, is_current: Mask, times: int, rng: np.random.Generator) -> Mask:
    """(n, times) labels: prompts of one side trade whole, answers to a prompt of both sides trade within it."""
    reference, current = _sides(group, is_current)
    labels = np.empty((len(group), times), dtype=np.bool_)
    alone = np.flatnonzero(reference != current)
    place = np.zeros(len(reference), dtype=np.int64)
    place[alone] = np.arange(len(alone))
    drawn = rng.permuted(np.repeat(current[alone][:, None], times, axis=1), axis=0)
    is_shared = (reference & current)[group]
    labels[~is_shared] = drawn[place[group[~is_shared]]]
    rows = np.flatnonzero(is_shared)
    rows = rows[np.lexsort([is_current[rows], group[rows]])]
    keys = group[rows][:, None] + rng.random((len(rows), times))  # stays within the prompt's place in the order
    mixed = np.empty_like(keys, dtype=np.bool_)
    np.put_along_axis(mixed, np.argsort(keys, axis=0), is_current[rows][:, None], axis=0)
    labels[rows] = mixed
    return labels


def _bootstrapped(group: Ints, is_current: Mask, times: int, rng: np.random.Generator) -> Floats:
    """(n, times) counts: prompts drawn with replacement, separately those of either side and those of both."""
    reference, current = _sides(group, is_current)
    counts = np.zeros((len(reference), times))
    for stratum in (reference & current, reference & ~current, current & ~reference):
        size = int(stratum.sum())
        if size:
            counts[stratum] = rng.multinomial(size, np.full(size, 1 / size), size=times).T
    return counts[group]
