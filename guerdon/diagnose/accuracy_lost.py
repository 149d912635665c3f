"""How much accuracy a reward model loses on the current policy's answers, measured or estimated.

Measured on fresh comparisons where there are any; otherwise estimated from the reference comparisons, each weighted by
how much more often the current policy would give such a pair of answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from guerdon.diagnose.resample import TwoSamples, weighted_mean
from guerdon.evaluate.columns import Floats, Ints, Texts

FEWEST = 50  # prompts, and effective pairs, below which no claim is made
BALANCE = (0.5, 2.0)  # the mean density ratio over the reference is 1 when the ratio is right


@dataclass(frozen=True, eq=False)
class Labelled:
    """Decided, scored pairs: 1, 1/2 or 0 for right, tied and wrong, the key of their prompt, their two rows."""

    credit: Floats
    prompt: Texts
    chosen: Ints
    rejected: Ints


@dataclass(frozen=True)
class AccuracyLost:
    """Reference accuracy minus current accuracy, in shares; positive is a loss. NaN, with `refused`, where unknown.

    road        `fresh labels` or `importance weights`
    low, high   95 % interval over prompts
    p, p_holm   two-sided, of no difference, alone and corrected for all tests of the check; NaN for an estimate
    pairs       pairs behind `current`: fresh ones, or the effective number of reference ones
    refused     why there is no number
    """

    road: str
    reference: float = math.nan
    current: float = math.nan
    loss: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    pairs: float = 0.0
    refused: str = ""


def measured(reference: Labelled, fresh: Labelled, *, times: int = 999, seed: int = 0) -> AccuracyLost:
    """Accuracy on reference pairs minus accuracy on fresh ones; cluster bootstrap over prompts, z-test by its error."""
    road = "fresh labels"
    for name, side in (("reference", reference), ("fresh", fresh)):
        prompts = len(set(side.prompt))
        if prompts < FEWEST:
            return AccuracyLost(
                road,
                pairs=len(fresh.credit),
                refused=f"{prompts} prompts with decided, scored {name} pairs; {FEWEST} are needed",
            )
    credit = np.concatenate([reference.credit, fresh.credit])
    is_current = np.arange(len(credit)) >= len(reference.credit)
    rows = TwoSamples.draw(_numbers(reference, fresh), is_current, times, seed)

    def lost(before: Floats, now: Floats) -> Floats:
        return weighted_mean(credit, before) - weighted_mean(credit, now)

    loss, low, high = rows.interval(lost)
    error = float(np.std(lost(rows.bootstrap * ~is_current[:, None], rows.bootstrap * is_current[:, None])[1:]))
    p = 2 * float(norm.sf(abs(loss) / error)) if error else float(loss == 0)
    return AccuracyLost(
        road, float(reference.credit.mean()), float(fresh.credit.mean()), loss, low, high, p, pairs=len(fresh.credit)
    )


def weighted(
    reference: Labelled, log_ratio: Floats, answers: Floats, *, times: int = 999, seed: int = 0
) -> AccuracyLost:
    """Accuracy on the reference pairs under weights that turn them into the current policy's.

    log_ratio   per pair, the sum of both answers' log density ratios: the ratio of the pair when its two answers are
                drawn independently and both samples have the same prompts
    answers     log density ratios of all reference answers, to judge by their mean whether the ratio can be trusted

    The pair weight exp(log_ratio) is truncated at mean x sqrt(pairs) (Ionides 2008) and normalised by its sum. Refused
    when the effective sample size (sum w)^2 / sum w^2 (Kish 1965) is below 50, or when the reference hardly has
    answers such as the current ones, which the mean ratio shows.
    """
    road = "importance weights"
    prompts = len(set(reference.prompt))
    if prompts < FEWEST:
        refused = f"{prompts} prompts with decided, scored reference pairs; {FEWEST} are needed"
        return AccuracyLost(road, refused=refused)
    mean_ratio = float(np.exp(np.minimum(answers, 50.0)).mean())
    weight = np.exp(log_ratio - log_ratio.max())
    weight = np.minimum(weight, weight.mean() * math.sqrt(len(weight)))
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    if effective < FEWEST:
        refused = f"the weighted pairs are worth {effective:.0f} of {len(weight)}; {FEWEST} are needed"
        return AccuracyLost(road, pairs=effective, refused=refused)
    if not BALANCE[0] <= mean_ratio <= BALANCE[1]:
        refused = f"the mean density ratio over the reference is {mean_ratio:.2g} instead of 1: too little overlap"
        return AccuracyLost(road, pairs=effective, refused=refused)
    is_current = np.zeros(len(weight), dtype=np.bool_)
    rows = TwoSamples.draw(_numbers(reference), is_current, times, seed)
    credit = reference.credit

    def lost(before: Floats, _: Floats) -> Floats:
        return weighted_mean(credit, before) - weighted_mean(credit, before * weight[:, None])

    loss, low, high = rows.interval(lost)
    before = float(credit.mean())
    return AccuracyLost(road, before, before - loss, loss, low, high, pairs=effective)


def _numbers(*sides: Labelled) -> Ints:
    """Prompt numbers over all pairs of the sides; a prompt that both have is one."""
    keys = np.concatenate([side.prompt for side in sides]).astype(str)
    return np.unique(keys, return_inverse=True)[1].reshape(-1).astype(np.int64)
