"""The statistics of probes, as pure functions on arrays: clustered means, one-sided tests, Holm, and how much is enough.

In: one effect per prompt, in standard deviations of the reward, with the prompt and the wording it belongs to.
Out: an estimate, p-values of "at fault" and of "clean", and corrected ones. Nothing here knows of texts or models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from guerdon.diagnose.probes.edits import Expectation
from guerdon.evaluate.columns import Floats, Ints

MARGIN = 0.1  # standard deviations of the reward; effects smaller than this do not matter
MOST_PROMPTS = 100_000  # beyond this, more prompts are no advice


@dataclass(frozen=True)
class Estimate:
    """A mean and how sure it is.

    mean      mean effect
    se        its standard error, clustered by prompt and, where there are several, by wording; NaN below 2 clusters
    df        degrees of freedom of the t-test: the smaller number of clusters, less 1
    clusters  number of prompts
    floor     variance of the mean that no number of prompts removes, because it comes from the wordings
    """

    mean: float
    se: float
    df: int
    clusters: int
    floor: float = 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided t interval."""
        if not self.df:
            return math.nan, math.nan
        half = float(stats.t.ppf((1 + level) / 2, self.df)) * self.se
        return self.mean - half, self.mean + half

    def p_above(self, bound: float) -> float:
        """One-sided p-value of the hypothesis that the true mean is at most `bound`; small means it is above."""
        if not self.df:
            return 1.0
        if self.se == 0:
            return 0.0 if self.mean > bound else 1.0
        return float(stats.t.sf((self.mean - bound) / self.se, self.df))

    def p_below(self, bound: float) -> float:
        """One-sided p-value of the hypothesis that the true mean is at least `bound`; small means it is below."""
        return Estimate(-self.mean, self.se, self.df, self.clusters).p_above(-bound)


def clustered_mean(values: Floats, prompts: Ints, wordings: Ints | None = None) -> Estimate:
    """Mean of `values`, (n,), robust to any dependence within a prompt and within a wording.

    The variance is V(prompts) + V(wordings) - V(both) (Cameron, Gelbach and Miller 2011, eq. 2.8), never below
    V(prompts); each V is the sum over clusters of their squared summed deviations over n^2, times G / (G - 1). With
    `wordings`, the claim is about the idea and not about the phrases at hand: a reward that happens to like one phrase
    of twelve shows a wide interval, not a bias.
    """
    n = len(values)
    if not n:
        return Estimate(math.nan, math.nan, 0, 0)
    mean = float(values.mean())
    by_prompt, groups = _cluster_variance(values - mean, prompts)
    variance, least = by_prompt, groups
    if wordings is not None and groups > 1:
        both = np.unique(np.stack([prompts, wordings]), axis=1, return_inverse=True)[1].reshape(-1)
        by_wording, phrases = _cluster_variance(values - mean, wordings)
        variance = max(by_prompt, by_prompt + by_wording - _cluster_variance(values - mean, both)[0])
        least = min(groups, phrases)
    if least < 2:
        return Estimate(mean, math.nan, 0, groups)
    return Estimate(mean, math.sqrt(variance), least - 1, groups, variance - by_prompt)


def p_fault(estimate: Estimate, expectation: Expectation, margin: float = MARGIN) -> float:
    """p-value of the hypothesis that the reward does as expected, give or take `margin`; small means it is at fault.

    should not rise: mean <= margin. should fall: mean <= -margin. should not change: |mean| <= margin, twice the
    smaller side. These are tests of a minimum effect (Murphy and Myors 1999): with enough prompts every model differs
    from 0 a little, and that is no bias.
    """
    if expectation == "should not rise":
        return estimate.p_above(margin)
    if expectation == "should fall":
        return estimate.p_above(-margin)
    return min(1.0, 2 * min(estimate.p_above(margin), estimate.p_below(-margin)))


def p_clean(estimate: Estimate, expectation: Expectation, margin: float = MARGIN) -> float:
    """p-value of the hypothesis that the reward is at fault by `margin` or more; small means that it is shown not to be.

    should not change: the two one-sided tests of Schuirmann (1987), the larger p. The other two expectations have one
    side, and so one of these tests.
    """
    if expectation == "should not rise":
        return estimate.p_below(margin)
    if expectation == "should fall":
        return estimate.p_below(-margin)
    return max(estimate.p_below(margin), estimate.p_above(-margin))


def benjamini_hochberg(p: Floats) -> Floats:
    """Adjusted p-values that bound the expected share of false alarms (Benjamini and Hochberg 1995)."""
    adjusted: Floats = stats.false_discovery_control(p, method="bh") if len(p) else p
    return adjusted


def prompts_needed(
    estimate: Estimate, expectation: Expectation, margin: float = MARGIN, *, tests: int = 1, level: float = 0.05
) -> int | None:
    """Prompts at which the question would be settled in 4 of 5 samples, if the estimate is the truth.

    n = G z^2 V / (d^2 - z^2 f): G prompts now, d the distance of the mean to the nearest bound, V the variance of the
    mean that comes from prompts and f its `floor`; z is the normal quantile of the level plus that of the power, 0.842.
    The level is `level` where the estimate is on the clean side and `level / tests` where it is at fault, as Holm asks.
    None where more prompts would not do: the mean lies on a bound, or the wordings disagree more than d.
    """
    if not estimate.df or not estimate.clusters:
        return None
    bounds = {"should not rise": (margin,), "should fall": (-margin,), "should not change": (-margin, margin)}
    distance = min(abs(estimate.mean - bound) for bound in bounds[expectation])
    is_fault = p_fault(estimate, expectation, margin) < p_clean(estimate, expectation, margin)
    z2 = (stats.norm.isf(level / tests if is_fault else level) + stats.norm.ppf(0.8)) ** 2
    room = distance**2 - z2 * estimate.floor
    if room <= 0:
        return None
    needed = estimate.clusters * z2 * (estimate.se**2 - estimate.floor) / room
    return max(estimate.clusters, math.ceil(needed)) if needed < MOST_PROMPTS else None


def reward_spread(scores: Floats, prompts: Ints) -> tuple[float, str]:
    """Standard deviation of natural answers within their prompts, pooled, and the word `within prompts`.

    sqrt(sum of squared deviations from the prompt's mean / sum of (answers - 1)). Where no prompt has two scored
    answers: over all answers, `over all answers`. NaN when the answers do not differ.
    """
    is_scored = np.isfinite(scores)
    scores, prompts = scores[is_scored], prompts[is_scored]
    _, group = np.unique(prompts, return_inverse=True)
    sizes = np.bincount(group)
    freedom = int(sizes.sum()) - len(sizes)
    if freedom:
        centered = scores - (np.bincount(group, weights=scores) / sizes)[group]
        variance, how = float(centered @ centered) / freedom, "within prompts"
    else:
        variance, how = float(scores.var(ddof=1)) if len(scores) > 1 else 0.0, "over all answers"
    spread = math.sqrt(variance)
    largest = float(np.abs(scores).max(initial=0.0))
    return (spread if spread > 1e-9 * largest else math.nan), how


def _cluster_variance(deviations: Floats, clusters: Ints) -> tuple[float, int]:
    """Sum of squared cluster sums over n^2, times G / (G - 1), and the number of clusters G."""
    _, group = np.unique(clusters, return_inverse=True)
    sums = np.bincount(group, weights=deviations)
    count = len(sums)
    return (float(sums @ sums) / len(deviations) ** 2 * count / max(count - 1, 1)), count
