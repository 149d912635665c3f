"""Numbers with intervals over prompts: plain means, and weighted means of strata such as a mean of section means.

In: one value per row with the prompt it belongs to. Out: `Estimate`s, gathered in the `Result` of a benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from guerdon.evaluate.benchmarks.item import Sheet
from guerdon.evaluate.columns import Floats, Ints, Texts, plain
from guerdon.evaluate.intervals import prompt_bootstrap

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval over prompts (NaN when there is none), and how many rows it is made of."""

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0


@dataclass(frozen=True)
class Result:
    """What a benchmark says about one set of scores. Shares lie in 0..1; an undefined number is NaN (null in `to_dict`).

    benchmark   name of the benchmark
    metric      what `overall` is, in words
    overall     the headline number of the benchmark
    categories  the same for its sections, domains or subsets
    details     further numbers that the benchmark defines
    items       items that were measured, from so many `prompts`
    ties        items or comparisons decided by an exactly equal score
    unscored    items left out because a candidate has no score
    curves      numbers in a row, such as accuracy against the number of distractors
    notes       what keeps the number from being compared with published ones
    """

    benchmark: str
    metric: str
    overall: Estimate
    categories: Mapping[str, Estimate]
    details: Mapping[str, Estimate]
    items: int
    prompts: int
    ties: int
    unscored: int
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types; a number that is not finite becomes None."""
        record: dict[str, Any] = plain(asdict(self), keep_none=True)
        return record


def mean(values: Floats, groups: Ints, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean over rows, with the interval that resampling whole prompts gives; no interval with `resamples` 0."""
    value = float(values.mean()) if len(values) else math.nan
    if not len(values) or not resamples:
        return Estimate(value, n=len(values))
    return Estimate(value, *prompt_bootstrap(values, groups, seed=seed, resamples=resamples), len(values))


def by_category(values: Floats, sheet: Sheet, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """The mean in each category, in order of first appearance."""
    found = {}
    for name in dict.fromkeys(sheet.category.tolist()):
        rows = sheet.category == name
        found[name] = mean(values[rows], sheet.group[rows], seed=seed, resamples=resamples)
    return found


def weighted(
    values: Floats,
    strata: Texts,
    weights: Mapping[str, float],
    groups: Ints,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Sum over strata of weight times the mean of the stratum; rows of strata without a weight are left out.

    The interval resamples prompts over the linearised estimate: with N rows, row i of stratum s stands for
    estimate + w_s N/n_s (x_i - mean_s), whose mean is the estimate and whose spread over prompts is, to first order,
    its own, whatever prompts the strata share (infinitesimal jackknife; Efron 1982). NaN when a stratum is empty.
    """
    keep = np.isin(strata, list(weights))
    values, strata, groups = values[keep], strata[keep], groups[keep]
    if not weights or not set(weights) <= set(strata.tolist()):
        return Estimate(math.nan, n=len(values))
    estimate = 0.0
    spread = np.zeros(len(values))
    for name, weight in weights.items():
        rows = strata == name
        average = float(values[rows].mean())
        estimate += weight * average
        spread[rows] = weight * len(values) / int(rows.sum()) * (values[rows] - average)
    return linearised(estimate, spread, groups, seed=seed, resamples=resamples)


def linearised(estimate: float, spread: Floats, groups: Ints, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """An estimate whose error is the mean of `spread` (one value per row, mean 0), with its interval over prompts."""
    interval = mean(estimate + spread, groups, seed=seed, resamples=resamples)
    return Estimate(estimate, interval.low, interval.high, len(spread))


def accuracy(
    benchmark: str,
    sheet: Sheet,
    *,
    metric: str,
    details: Mapping[str, Estimate] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """The result of a benchmark whose headline is the mean over items of a strict win, by category."""
    return Result(
        benchmark=benchmark,
        metric=metric,
        overall=mean(sheet.wins, sheet.group, seed=seed, resamples=resamples),
        categories=by_category(sheet.wins, sheet, seed=seed, resamples=resamples),
        details=details or {},
        items=len(sheet.items),
        prompts=sheet.prompts,
        ties=sheet.ties,
        unscored=sheet.unscored,
    )
