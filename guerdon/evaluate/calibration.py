"""Margins read as probabilities, p = sigmoid(margin / temperature), and whether they deserve it.

In: margins of decided pairs, chosen minus rejected.
Out: likelihood, Brier score, the reliability curve, the expected calibration error, and the temperature that mends it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit

from guerdon.evaluate.columns import Floats, Ints
from guerdon.evaluate.intervals import expanded_tail, wilson
from guerdon.evaluate.table import PairTable
from guerdon.types import ConfigError

BINS = 10
WIDEST = 1e3  # a temperature stays within this factor of the mean |margin|, either way
DRAWS = 20_000_000  # numbers drawn at most for one interval of the calibration error


@dataclass(frozen=True, eq=False)
class Reliability:
    """One entry per bin of equal mass: mean confidence, share right with its Wilson band, and number of pairs."""

    confidence: Floats
    accuracy: Floats
    n: Ints
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Temperature:
    """A temperature, and what it does for pairs of prompts that it was not fitted on.

    value                    fitted on all pairs, in the units of the reward; p = sigmoid(margin / value)
    low, high                smallest and largest of the values fitted without one fold
    at_bound                 True when no finite positive temperature is best: margins all right, or no better than a coin
    nll, brier, ece          out of fold: every pair at the temperature fitted on the other folds
    folds                    number of parts the prompts were dealt into
    """

    value: float
    low: float
    high: float
    at_bound: bool
    nll: float
    brier: float
    ece: float
    folds: int


def preference_probability(margin: Any, temperature: float = 1.0) -> Any:
    """Probability that the first of two answers is preferred, sigmoid(margin / temperature).

    `margin` is reward(first) - reward(second), a number or an array. Raises ConfigError unless temperature > 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"a temperature is a positive number, got {temperature}")
    return expit(np.asarray(margin) / temperature)[()]


def credit(margin: Floats) -> Floats:
    """1 where the chosen answer scores higher, 1/2 where the scores are equal, 0 otherwise."""
    shares: Floats = np.heaviside(margin, 0.5)
    return shares


def nll(margin: Floats) -> Floats:
    """-log sigmoid(margin) in nats, one value per pair: the Bradley-Terry loss (arXiv 2203.02155, eq. 1)."""
    return np.logaddexp(0.0, -margin)


def brier(margin: Floats) -> Floats:
    """(1 - sigmoid(margin))^2, one value per pair (Brier 1950): 0.25 for a model that knows nothing."""
    loss: Floats = np.square(expit(-margin))
    return loss


def equal_mass_bins(values: Floats, bins: int) -> Ints:
    """Bin of each value, 0 to bins-1, about equally many in each; equal values share a bin, whatever their order."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    chosen: NDArray[np.int64] = np.floor(middle / max(len(values), 1) * bins).astype(np.int64)
    return chosen[inverse.reshape(-1)]


def reliability(pairs: PairTable, bins: int = BINS) -> Reliability:
    """How often the raters preferred what the model prefers, by how sure it is; decided, scored pairs only.

    Confidence is max(p, 1 - p), from 0.5 to 1; equal scores count 1/2.
    Source: Guo et al. 2017 (arXiv 1706.04599), with bins of equal mass in place of equal width.
    """
    margin = pairs.margin[pairs.is_decided & pairs.is_scored]
    confidence, right = expit(np.abs(margin)), credit(margin)
    index = equal_mass_bins(confidence, bins)
    n = np.bincount(index, minlength=bins)
    used = n > 0
    n = n[used]
    accuracy = np.bincount(index, weights=right, minlength=bins)[used] / n
    low, high = wilson(accuracy, n)
    mean = np.bincount(index, weights=confidence, minlength=bins)[used] / n
    return Reliability(mean, accuracy, n, low, high)


def ece(curve: Reliability) -> float:
    """Mean over pairs of |accuracy - confidence| of their bin; NaN without pairs. Small samples push it up."""
    if not len(curve.n):
        return float("nan")
    return float(np.average(np.abs(curve.accuracy - curve.confidence), weights=curve.n))


def ece_interval(
    pairs: PairTable, *, bins: int = BINS, seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the calibration error when whole prompts are drawn with replacement; (NaN, NaN) below two prompts.

    A plain bootstrap fails here: noise in a bin adds to |accuracy - confidence| whatever its sign, so a small sample of
    a calibrated model has an error well above 0. With d the signed errors of the bins, times their share of the pairs,
    and d* those of a resample (bins as they are):
    low   ece - the upper quantile of the noise, sum over bins of |d* - d|, or sign(d) (d* - d) where |d| is above three
          of its standard errors; not below 0. It never promises too much: |d| <= |true| + |noise|.
    high  ece + a normal quantile times the standard deviation of the resampled ece; the upward bias stays in.
    Above 20,000 prompts fewer resamples are drawn, at least 200.
    """
    used = pairs.is_decided & pairs.is_scored
    margin, (_, group) = pairs.margin[used], np.unique(pairs.group[used], return_inverse=True)
    clusters = int(group.max()) + 1 if len(group) else 0
    if clusters < 2:
        return math.nan, math.nan
    confidence = expit(np.abs(margin))
    index = equal_mass_bins(confidence, bins)
    sums = np.bincount(group * bins + index, weights=credit(margin) - confidence, minlength=clusters * bins)
    columns = np.column_stack([sums.reshape(clusters, bins), np.bincount(group, minlength=clusters)])
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, clusters, clusters) for _ in range(min(resamples, max(200, DRAWS // clusters))))
    drawn = np.stack([np.bincount(draw, minlength=clusters) @ columns for draw in draws])
    errors, point = drawn[:, :-1] / drawn[:, -1:], columns[:, :-1].sum(axis=0) / len(margin)
    noise = errors - point
    is_certain = np.abs(point) > 3 * noise.std(axis=0)
    excess = np.where(is_certain, np.sign(point) * noise, np.abs(noise)).sum(axis=1)
    total, tail = float(np.abs(point).sum()), expanded_tail(group, level)
    spread = float(np.abs(errors).sum(axis=1).std())
    high = total - float(stats.norm.ppf(tail)) * spread
    return max(0.0, total - float(np.quantile(excess, 1 - tail))), min(1.0, high)


def fit_temperature(margin: Floats) -> float:
    """The temperature T that minimises the mean of -log sigmoid(margin / T), in the units of the reward.

    Guo et al. 2017 (arXiv 1706.04599, section 4.2) for one logit. The loss is convex in b = 1 / T, so the root of its
    derivative, -mean(margin * sigmoid(-b * margin)), is the minimum. Where there is none (all pairs right, or the mean
    margin not positive), T is the bound, mean |margin| over or times 1,000. 1.0 when all margins are 0.
    """
    scale = float(np.abs(margin).mean()) if len(margin) else 0.0
    if scale == 0:
        return 1.0
    units = margin / scale

    def slope(log_b: float) -> float:
        return -float(np.mean(units * expit(-math.exp(log_b) * units)))

    bound = math.log(WIDEST)
    if slope(-bound) >= 0:
        return scale * WIDEST
    if slope(bound) <= 0:
        return scale / WIDEST
    return scale / math.exp(brentq(slope, -bound, bound, xtol=1e-12))


def cross_fit_temperature(pairs: PairTable, *, folds: int = 5, seed: int = 0) -> Temperature:
    """Fit a temperature on all decided, scored pairs, and measure it on prompts that it has not seen.

    Prompts are dealt into `folds` parts; the pairs of each part are judged at the temperature fitted on the others.
    Raises ConfigError when there are fewer prompts than folds.
    """
    used = pairs.where(pairs.is_decided & pairs.is_scored)
    prompts, group = np.unique(used.group, return_inverse=True)
    if len(prompts) < folds:
        raise ConfigError(
            f"{len(prompts)} prompts with a decided, scored pair are too few to calibrate on; give at least {folds}"
        )
    fold = (np.random.default_rng(seed).permutation(len(prompts)) % folds)[group]
    fitted = np.array([fit_temperature(used.margin[fold != k]) for k in range(folds)])
    value = fit_temperature(used.margin)
    ratio = value / float(np.abs(used.margin).mean()) if used.margin.any() else 1.0
    margin = used.margin / fitted[fold]
    return Temperature(
        value=value,
        low=float(fitted.min()),
        high=float(fitted.max()),
        at_bound=not 1.001 / WIDEST < ratio < WIDEST / 1.001,
        nll=float(nll(margin).mean()),
        brier=float(brier(margin).mean()),
        ece=ece(reliability(replace(used, margin=margin))),
        folds=folds,
    )
