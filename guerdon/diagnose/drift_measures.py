"""Every number of the drift check: how far the current sample lies from the reference in features, rewards and answers.

In: both samples' rows together, and how to redraw them. Out: one `Measure` each, with an interval over prompts and a
p-value. `docs/drift.md` defines them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from guerdon.diagnose import surface
from guerdon.diagnose.resample import Statistic, TwoSamples, rank_p_value, weighted_mean, weighted_sd
from guerdon.diagnose.twosample import (
    Ellipsoid,
    Separation,
    folds_by_prompt,
    log_ratios,
    median_bandwidth,
    mmd2,
    outlier_share,
    separation,
)
from guerdon.evaluate.columns import Floats, Ints

SHARE, REFERENCE_SD, POOLED_SD, RATIO = "share", "reference SD", "pooled SD", "ratio"
NOTHING = 1e-6  # share of the whole spread below which a side has none of its own


@dataclass(frozen=True)
class Measure:
    """One comparison of the current sample with the reference.

    value       the size of the difference, with its 95 % interval over prompts (NaN where it has none)
    neutral     what `value` is when nothing has changed
    p, p_holm   of the test that nothing has changed, alone and corrected for all tests of the check
    reference, current   the quantity itself on both sides, where there is one
    part        `features`, `reward` or `answers`
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    neutral: float = 0.0
    unit: str = ""
    reference: float = math.nan
    current: float = math.nan
    part: str = "answers"

    @property
    def is_significant(self) -> bool:
        return self.p_holm < 0.05


def classifier(points: Floats, rows: TwoSamples, seed: int) -> Measure:
    """AUC of a classifier that tells the samples apart."""
    fold = folds_by_prompt(rows.group, rows.is_current, seed)
    ratios = log_ratios(points, rows.is_current, fold, np.ones(len(points), dtype=np.bool_))
    found: Separation = separation(points, rows, fold, ratios)
    return Measure(
        "classifier AUC", found.auc, found.low, found.high, found.p, neutral=0.5, unit="AUC", part="features"
    )


def discrepancy(points: Floats, rows: TwoSamples) -> Measure:
    """Squared maximum mean discrepancy."""
    values = mmd2(points, rows, median_bandwidth(points))
    return Measure("MMD²", float(values[0]), p=rank_p_value(values), unit="kernel units", part="features")


def outliers(points: Floats, rows: TwoSamples, ellipsoid: Ellipsoid) -> Measure:
    """Share of current answers beyond the 99th percentile of reference answers that the ellipsoid was not fitted on."""
    distance = ellipsoid.distances(points)

    def share(reference: Floats, current: Floats) -> Floats:
        return outlier_share(distance, reference, current)

    value, low, high = rows.interval(share)
    labels = rows.permuted.astype(np.float64)
    p = rank_p_value(share(1 - labels, labels))  # one-sided: fewer outliers are no reason to worry
    return Measure("outliers", value, low, high, p, neutral=0.01, unit=SHARE, part="features")


def rewards(values: Floats, rows: TwoSamples) -> Iterator[Measure]:
    """Shift of the mean, ratio of the spreads, and distance of the distributions, in reference standard deviations."""
    before, now = values[~rows.is_current], values[rows.is_current]
    means, spreads = (float(before.mean()), float(now.mean())), (float(before.std()), float(now.std()))
    yield _measure("reward mean", REFERENCE_SD, rows, mean_shift(values), means, "reward")
    yield _ratio("reward spread", rows, lambda r, c: _divided(weighted_sd(values, c), weighted_sd(values, r)), spreads)
    apart = wasserstein(values)
    sides = np.stack([~rows.is_current, rows.is_current])[:, :, None].astype(np.float64)
    distance = float(apart(sides[0], sides[1])[0])
    yield Measure("reward distance", distance, p=rows.p_value(apart), unit=REFERENCE_SD, part="reward")


def disagreement(members: Floats, rows: TwoSamples) -> Measure:
    """Ratio of the mean standard deviations over ensemble members, current to reference."""
    spread = members.std(axis=1, ddof=1)
    return _ratio(
        "disagreement",
        rows,
        lambda r, c: _divided(weighted_mean(spread, c), weighted_mean(spread, r)),
        (float(spread[~rows.is_current].mean()), float(spread[rows.is_current].mean())),
    )


def answers(texts: Sequence[str], rows: TwoSamples) -> Iterator[Measure]:
    """Length, layout, repetition, refusals and openers."""
    for name, values in surface.columns(texts).items():
        yield column(name, values, rows)
    yield opener_reuse(surface.openers(texts)[0], rows)


def column(name: str, values: Floats, rows: TwoSamples) -> Measure:
    """Shift of the mean of one property of the answers; without a test when all answers are alike."""
    sides = float(values[~rows.is_current].mean()), float(values[rows.is_current].mean())
    if np.ptp(values) == 0:
        return Measure(name, 0.0, 0.0, 0.0, unit=POOLED_SD, reference=sides[0], current=sides[1])
    return _measure(name, POOLED_SD, rows, mean_shift(values, pooled=True), sides)


def opener_reuse(opener: Ints, rows: TwoSamples) -> Measure:
    """Difference in the share of answers that begin with their sample's most common first three words.

    The interval is for the two openers that were found; the test looks for the most common ones anew each time.
    """
    count = int(opener.max()) + 1
    table = sparse.csr_array((np.ones(len(opener)), (opener, np.arange(len(opener)))), shape=(count, len(opener)))

    def most(weights: Floats) -> Floats:
        return _divided((table @ weights).max(axis=0), weights.sum(0))

    is_common = [
        (opener == np.bincount(opener[side]).argmax()).astype(np.float64)
        for side in (~rows.is_current, rows.is_current)
    ]
    value, low, high = rows.interval(lambda r, c: weighted_mean(is_common[1], c) - weighted_mean(is_common[0], r))
    p = rows.p_value(lambda r, c: most(c) - most(r))
    before, now = float(is_common[0][~rows.is_current].mean()), float(is_common[1][rows.is_current].mean())
    return Measure("opener reuse", value, low, high, p, unit=SHARE, reference=before, current=now)


def mean_shift(values: Floats, *, pooled: bool = False) -> Statistic:
    """(mean of current - mean of reference) / SD, of the reference or, `pooled`, the root mean square of both sides'.

    Where that is zero, the SD of all answers together takes its place.
    """
    fallback = float(values.std()) or 1.0

    def shift(reference: Floats, current: Floats) -> Floats:
        spread = weighted_sd(values, reference)
        if pooled:
            spread = np.sqrt((spread**2 + weighted_sd(values, current) ** 2) / 2)
        spread = np.where(spread > NOTHING * fallback, spread, fallback)
        return (weighted_mean(values, current) - weighted_mean(values, reference)) / spread

    return shift


def wasserstein(values: Floats) -> Statistic:
    """Area between the distribution functions (Wasserstein-1) in reference standard deviations."""
    order = np.argsort(values)
    gaps = np.diff(values[order])[:, None]
    fallback = float(values.std()) or 1.0

    def distance(reference: Floats, current: Floats) -> Floats:
        apart = _distribution(current[order]) - _distribution(reference[order])
        spread = weighted_sd(values, reference)
        area: Floats = (np.abs(apart[:-1]) * gaps).sum(0) / np.where(spread > NOTHING * fallback, spread, fallback)
        return area

    return distance


def _distribution(weights: Floats) -> Floats:
    mass: Floats = np.cumsum(weights, axis=0)
    return _divided(mass, mass[-1])


def _divided(over: Floats, under: Floats) -> Floats:
    """NaN for 0 / 0: a ratio of what neither side has."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = over / under
    return ratio


def _measure(
    name: str,
    unit: str,
    rows: TwoSamples,
    statistic: Statistic,
    sides: tuple[float, float] = (math.nan, math.nan),
    part: str = "answers",
) -> Measure:
    value, low, high = rows.interval(statistic)
    p = rows.p_value(statistic)
    return Measure(name, value, low, high, p, unit=unit, reference=sides[0], current=sides[1], part=part)


def _ratio(name: str, rows: TwoSamples, statistic: Statistic, sides: tuple[float, float]) -> Measure:
    """A ratio of rewards, tested on the logarithm, so that twice and half are equally far."""

    def logarithm(before: Floats, now: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            value: Floats = np.log(statistic(before, now))
        return value

    value, low, high = rows.interval(statistic)
    p = rows.p_value(logarithm)
    return Measure(name, value, low, high, p, math.nan, 1.0, RATIO, *sides, part="reward")
