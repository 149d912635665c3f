"""What the winners of best-of-n have in common, how heavy the reward's error is in the tail, and the worst picks.

In: a candidate table in which every row has a score (and gold). Out: plain records for the page and the JSON file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from guerdon.evaluate.best_of_n import interval, resampled_means, win_probability
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.columns import Floats, Ints

MARKS = {
    "with a list": re.compile(r"^\s{0,6}(?:[-*+•]|\d{1,3}[.)])\s+\S", re.MULTILINE),
    "with bold text": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
    "with a heading": re.compile(r"^\s{0,3}#{1,6}\s+\S", re.MULTILINE),
}
SOURCES = 6  # of many, those whose share changes most
TAIL = 0.05  # share of the candidates that the tail index looks at
NORMAL, LAPLACE = 0.21198, 0.32390  # mean of log(x / u) above the 95 % quantile u of these distributions


@dataclass(frozen=True)
class Trait:
    """One property of the winner against a random candidate of the same prompt.

    random, winner  its mean over prompts; a share, or characters for `length`
    change          winner - random, with its 95 % interval (bootstrap over prompts)
    change_sd       change in standard deviations of the property over candidates
    """

    name: str
    random: float
    winner: float
    change: float
    low: float
    high: float
    change_sd: float
    sd_low: float
    sd_high: float


@dataclass(frozen=True)
class Tail:
    """How heavy the upper tail of the reward's error is (Hill 1975).

    hill       mean of log(error / threshold) over the errors above the threshold; the higher, the heavier
    low, high  95 % interval, bootstrap over prompts
    normal     what normal errors would give at the same share, 0.21 at 5 %
    laplace    what errors with exponential tails would give, 0.32: heavier than this is a heavy tail
    threshold  standard deviations
    n          errors above it
    """

    hill: float
    low: float
    high: float
    normal: float
    laplace: float
    threshold: float
    n: int


@dataclass(frozen=True)
class Example:
    """One prompt where the reward's favourite is much worse than the best candidate."""

    prompt: str
    pick: str
    pick_score: float
    pick_gold: float
    pick_source: str
    best: str
    best_score: float
    best_gold: float
    best_source: str


def traits(table: CandidateTable, n: int, *, seed: int = 0, resamples: int = 2000) -> list[Trait]:
    """Length, format and source of the best of n against a random candidate; what the table does not know is left out."""
    starts = table.starts()
    sizes = np.diff(starts)
    excess = win_probability(table.score, starts, n) - np.repeat(1 / sizes, sizes)
    features = dict(_features(table, excess))
    if not features:
        return []
    prompts = len(sizes)
    per_prompt = np.stack([np.add.reduceat(excess * feature, starts[:-1]) for feature in features.values()], axis=1)
    random = [np.add.reduceat(feature, starts[:-1]) @ (1 / sizes) / prompts for feature in features.values()]
    spread = [float(feature.std()) or math.nan for feature in features.values()]
    change = per_prompt.mean(axis=0)
    low, high = interval(resampled_means(per_prompt, seed=seed, resamples=resamples), prompts)
    return [
        Trait(name, *map(float, (r, max(r + c, 0.0), c, a, b, c / sd, a / sd, b / sd)))
        for name, r, c, a, b, sd in zip(features, random, change, low, high, spread, strict=True)
    ]


def tail_index(table: CandidateTable, *, seed: int = 0, resamples: int = 2000) -> Tail | None:
    """Hill's index of the upper 5 % of the reward's error; None below 50 such errors.

    The error is what is left of the reward when gold, in the units that fit best, is taken away: both are centred within
    each prompt, and gold is scaled by the least-squares slope. It is given in its own standard deviations. Heavy-tailed
    error lets a policy reach any reward at little KL and no gold (Kwa et al. 2024, arXiv 2407.14503); light does not.
    """
    starts = table.starts()
    proxy, gold = (within_prompt(values, starts) for values in (table.score, table.gold))
    if not proxy.any() or not gold.any():
        return None
    error = proxy - gold * (proxy @ gold) / (gold @ gold)
    error /= error.std() or 1.0
    threshold = float(np.quantile(error, 1 - TAIL))
    above = error > threshold
    if threshold <= 0 or above.sum() < 50:
        return None
    logs = np.where(above, np.log(np.where(above, error, threshold) / threshold), 0.0)
    sums = np.stack([np.add.reduceat(values, starts[:-1]) for values in (logs, above.astype(np.float64))], axis=1)
    hill = sums[:, 0].sum() / sums[:, 1].sum()
    drawn = resampled_means(sums, seed=seed, resamples=resamples)
    low, high = interval(drawn[:, 0] / drawn[:, 1], len(sums))
    return Tail(float(hill), float(low), float(high), NORMAL, LAPLACE, threshold, int(above.sum()))


def worst_picks(table: CandidateTable, prompts: Mapping[str, str], count: int) -> list[Example]:
    """The prompts where the highest-scored answer lies furthest below the best in gold; empty without texts."""
    if not count or not any(table.text):
        return []
    starts = table.starts()
    spans = list(pairwise(starts))
    pick = np.array([a + int(np.argmax(table.score[a:b])) for a, b in spans])
    best = np.array([a + int(np.argmax(table.gold[a:b])) for a, b in spans])
    loss = table.gold[best] - table.gold[pick]
    order = [int(i) for i in np.argsort(-loss, kind="stable")[:count] if loss[i] > 0]
    return [_example(table, prompts, int(pick[i]), int(best[i])) for i in order]


def within_prompt(values: Floats, starts: Ints) -> Floats:
    """Values minus the mean of their prompt."""
    sizes = np.diff(starts)
    centred: Floats = values - np.repeat(np.add.reduceat(values, starts[:-1]) / sizes, sizes)
    return np.where(np.abs(centred) > 1e-12 * np.abs(values), centred, 0.0)


def _example(table: CandidateTable, prompts: Mapping[str, str], pick: int, best: int) -> Example:
    sides = [
        (str(table.text[i]), float(table.score[i]), float(table.gold[i]), str(table.source[i])) for i in (pick, best)
    ]
    name = str(table.prompt[pick])
    return Example(prompts.get(name, name), *sides[0], *sides[1])


def _features(table: CandidateTable, excess: Floats) -> Iterator[tuple[str, Floats]]:
    """Name and value per row of every property that the table knows."""
    if np.isfinite(table.chars).all():
        yield "length", table.chars
    if any(table.text):
        for name, mark in MARKS.items():
            yield name, np.array([mark.search(text) is not None for text in table.text], dtype=np.float64)
    sources, index = np.unique(table.source, return_inverse=True)
    if len(sources) > 1:
        change = np.bincount(index.reshape(-1), weights=excess)
        for i in sorted(np.argsort(-np.abs(change))[:SOURCES], key=lambda i: -change[i]):
            yield f"from {sources[i] or 'an unnamed source'}", (index.reshape(-1) == i).astype(np.float64)
