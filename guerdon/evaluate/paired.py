"""Is one model better than another on the same pairs? Exact tests, correction for many, and what could be detected.

In: what each of two models gets per pair, or counts of the pairs that only one gets right. Out: p-values and sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from guerdon.evaluate.columns import Floats, Ints
from guerdon.evaluate.intervals import design_effect


def mcnemar(only_first: int, only_second: int) -> tuple[float, float]:
    """Exact two-sided p-value and mid-p of McNemar's test, from the pairs that just one of two models gets right.

    Under "no difference" each such pair is a coin toss, so only_first is Binomial(only_first + only_second, 1/2)
    (McNemar 1947); the mid-p takes half of the probability of what was seen (Fagerland, Lydersen and Laake 2013).
    Both assume independent pairs; `sign_flip` does not. (1, 1) without any such pair.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1.0, 1.0
    exact = 2 * float(stats.binom.cdf(fewer, n, 0.5))
    return min(1.0, exact), exact - float(stats.binom.pmf(fewer, n, 0.5))


def sign_flip(differences: Floats, groups: Ints) -> float:
    """Exact two-sided p-value for "the two models are alike on each prompt", which lets them swap whole prompts.

    differences  credit(first) - credit(second) for each pair: multiples of one half from -1 to 1
    groups       prompt of each pair

    The sum over prompts of +-D_g, all signs equally likely, D_g being the sum of differences in a prompt: Fisher's
    randomisation test (1935) on prompts. With one pair per prompt and no equal scores it is McNemar's exact test. The
    distribution is computed, not sampled: it is the Fourier inverse of prod_g cos(D_g w), exact to about 1e-14.
    """
    halves = np.rint(2 * np.bincount(groups, weights=differences)).astype(np.int64)
    sizes, counts = np.unique(np.abs(halves[halves != 0]), return_counts=True)
    seen, total = abs(int(halves.sum())), int((sizes * counts).sum())
    if seen == 0:
        return 1.0
    length = 2 * total + 1
    angle = 2 * math.pi / length * np.arange(total + 1)
    spectrum = np.ones(total + 1)
    for size, count in zip(sizes, counts, strict=True):
        spectrum *= np.cos(size * angle) ** count
    chance = np.fft.irfft(spectrum, n=length)[seen : total + 1].sum()
    return float(np.clip(2 * chance, 2.0 ** (1 - int(counts.sum())), 1.0))


def holm(p: Floats) -> Floats:
    """p-values adjusted so that rejecting those below a level errs once with at most that probability (Holm 1979).

    NaN, a test that could not be made, is not counted.
    """
    adjusted = np.full(len(p), math.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def smallest_difference(
    discordance: float, n: int, *, effect: float = 1.0, level: float = 0.95, power: float = 0.8
) -> float:
    """True difference of accuracy that a paired comparison finds with this power, as a share.

    (z(1 - (1 - level) / 2) + z(power)) sqrt(effect * discordance / n): discordance is the mean square of the
    difference per pair (the share of pairs that just one model gets right), `effect` the design effect of prompts
    (Miettinen 1968; Connor 1987). 25 % discordance gives 4.4 points at n = 1,000. NaN for n = 0.
    """
    z = stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)
    return float(z * math.sqrt(effect * discordance / n)) if n else math.nan


def prompt_effect(values: Floats, groups: Ints) -> float:
    """`design_effect` for planning: not below 1, and 1 where it is not defined."""
    effect = design_effect(values, groups)
    return max(1.0, effect) if math.isfinite(effect) else 1.0


def letter_groups(distinct: Sequence[tuple[int, int]], n: int) -> list[tuple[int, ...]]:
    """Groups of models 0..n-1 (best first) such that two share a group exactly when they are not in `distinct`.

    The compact letter display by insertion and absorption (Piepho 2004): start with one group of all; a distinct pair
    splits each group that holds both; a group inside another is dropped. Groups are sorted by their members.
    """
    groups: list[frozenset[int]] = [frozenset(range(n))]
    for pair in distinct:
        split = [group - {drop} if set(pair) <= group else group for group in groups for drop in pair]
        kept: list[frozenset[int]] = []
        for group in sorted(set(split), key=len, reverse=True):
            if not any(group <= other for other in kept):
                kept.append(group)
        groups = kept
    return sorted(tuple(sorted(group)) for group in groups)


def letter(k: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    return (letter(k // 26 - 1) if k >= 26 else "") + chr(ord("a") + k % 26)
