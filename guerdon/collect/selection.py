"""Whether choosing questions earns its keep: a controlled trial inside the study, at equal numbers of labels.

The prompts of the random arm are split in halves, and each half is held out once. A Bradley-Terry model on a reward model's
features is fitted to n labels of the other half, another one to n labels of the active arms, and both are measured on the
half that was held out, which no model chose.
The gain is that of labels as they are trained on, each counting once. Beside it stands the gain of labels weighted by P(random) /
P(active), which speak for the whole pool but are fewer in effect; P(random) = 1 / number of questions that could be asked is
read from the random judgement that arrived nearest. The interval is a bootstrap over prompts
in which split, training labels and held-out labels are all drawn anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from guerdon.collect.choose import FLOOR
from guerdon.types import Judgement

Verdict = Literal["earns", "no gain", "not yet known"]
Floats = NDArray[np.float64]
WORTHWHILE = 0.01  # accuracy below which a gain is not worth an active arm
LEAST = 60  # prompts per training set and held out, below which nothing is fitted
ARMS = ("random", "uncertain", "d-optimal")
SPREAD = 2.0  # standard deviation of a margin before any label, in nats


@dataclass(frozen=True, slots=True)
class SelectionReport:
    """What active selection brought. Accuracies are shares of decided held-out pairs that a model orders as the rater did.

    verdict     `earns`: the interval of the gain lies above 0; `no gain`: it lies below `WORTHWHILE`; `not yet known`: neither
    sentence    the same for people, with the numbers
    labels      judgements in each of the two training sets
    held_out    prompts held out in each split
    random      accuracy after training on labels of the random arm
    active      accuracy after training on labels of the active arms
    gain        active - random; `low` and `high` its 95 % interval
    weighted_gain  the same after training on weighted labels, with its interval
    """

    verdict: Verdict
    sentence: str
    labels: int = 0
    held_out: int = 0
    random: float = math.nan
    active: float = math.nan
    gain: float = math.nan
    low: float = math.nan
    high: float = math.nan
    weighted_gain: float = math.nan
    weighted_low: float = math.nan
    weighted_high: float = math.nan

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SelectionReport:
        """What `dataclasses.asdict` made, also of a version with other fields."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


@dataclass(frozen=True, slots=True)
class Labels:
    """Pairs of judgements: feature differences z (first - second), target (1, 0.5 or 0 for the first), weight, prompt."""

    z: Floats
    target: Floats
    weight: Floats
    prompt: NDArray[np.int64]
    judgement: NDArray[np.int64]


def selection_report(
    judgements: Iterable[Judgement],
    features: Mapping[str, Floats],
    *,
    resamples: int = 200,
    seed: int = 0,
) -> SelectionReport:
    """The trial for judgements in order of arrival; `features` holds (K, width) by question id, on one scale for all.

    Only rankings by people on ordinary questions count, and only where features are known.
    """
    usable = [
        j
        for j in judgements
        if j.kind == "human" and j.answer == "ranked" and j.arm in ARMS and j.probability and j.question.id in features
    ]
    importance = _importance(usable)
    prompts: dict[str, int] = {}
    keys = [prompts.setdefault(json.dumps(j.question.prompt), len(prompts)) for j in usable]
    judged = list(zip(usable, importance, keys, strict=True))
    chosen = {
        "random": [row for row in judged if row[0].arm == "random"],
        "active": [r for r in judged if r[0].arm != "random"],
    }
    arms = {name: _labels(rows, features) for name, rows in chosen.items() if rows}
    if len(arms) < 2:
        missing = "the active arms" if "random" in arms else "the random arm"
        return SelectionReport("not yet known", f"Not yet known: there are no labels of {missing} to compare.")
    few = min(len(np.unique(arms["random"].prompt)) // 2, len(np.unique(arms["active"].prompt)))
    if few < LEAST:
        return SelectionReport(
            "not yet known",
            f"Not yet known: {few} prompts are too few for a training set; the trial needs {LEAST} of an active arm and "
            f"{2 * LEAST} of the random one.",
        )
    return _trial(arms["random"], arms["active"], resamples, np.random.default_rng(seed))


def fit(labels: Labels, rows: NDArray[np.int64], weight: Floats) -> Floats:
    """(width,) weights of a Bradley-Terry model on some rows: penalised likelihood, a Gaussian prior of margins of `SPREAD`."""
    z, target = labels.z[rows], labels.target[rows]
    penalty = z.shape[1] / SPREAD**2
    total = max(float(weight.sum()), 1e-12)
    w = weight * (
        len(np.unique(labels.judgement[rows])) / total
    )  # weights say which labels count, not how many there are

    theta = np.zeros(z.shape[1])
    value = w.sum() * np.log(2)
    for _ in range(50):  # Newton's method; the prior keeps the matrix well-conditioned
        p = expit(z @ theta)
        gradient = z.T @ (w * (p - target)) + penalty * theta
        step = np.linalg.solve((z.T * (w * p * (1 - p))) @ z + penalty * np.eye(len(theta)), gradient)
        while True:  # half steps, should a full one ever overshoot
            new = theta - step
            margin = z @ new
            reached = float(w @ (np.logaddexp(0, margin) - target * margin)) + penalty / 2 * float(new @ new)
            if reached <= value + 1e-9 or not np.abs(step).max() > 1e-9:
                break
            step = step / 2
        theta, value = new, reached
        if np.abs(step).max() < 1e-7:
            break
    return theta


def _trial(random: Labels, active: Labels, resamples: int, rng: np.random.Generator) -> SelectionReport:
    points = np.array([_once(random, active, rng, resample=False) for _ in range(max(6, resamples // 20))])
    draws = np.array([_once(random, active, rng, resample=True) for _ in range(resamples)])
    n, held_out = int(points[:, 3].mean()), int(points[:, 4].mean())
    by_random, weighted, by_active = map(float, points[:, :3].mean(axis=0))
    gain, weighted_gain = by_active - by_random, weighted - by_random
    low, high = _interval(draws[:, 2] - draws[:, 0], gain)
    weighted_low, weighted_high = _interval(draws[:, 1] - draws[:, 0], weighted_gain)
    verdict: Verdict = "earns" if low > 0 else "no gain" if high < WORTHWHILE else "not yet known"
    says = {
        "earns": "Active selection earns its keep",
        "no gain": "Active selection brings no gain worth having; switch it off",
        "not yet known": "Not yet known whether active selection earns its keep",
    }[verdict]
    return SelectionReport(
        verdict,
        f"{says}: with {n:,} labels each, {by_active:.1%} against {by_random:.1%} accuracy on prompts chosen at random, a gain of "
        f"{100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}).",
        n,
        held_out,
        by_random,
        by_active,
        gain,
        low,
        high,
        weighted_gain,
        weighted_low,
        weighted_high,
    )


def _interval(draws: Floats, gain: float) -> tuple[float, float]:
    """95 % percentiles of the draws, moved to have the gain as their mean.

    Labels drawn twice teach nothing twice, so that every draw is of a smaller training set, where gains differ.
    """
    low, high = np.quantile(draws, [0.025, 0.975]) - draws.mean() + gain
    return float(low), float(high)


def _once(random: Labels, active: Labels, rng: np.random.Generator, resample: bool) -> tuple[float, ...]:
    """(accuracy by random, by weighted active, by plain active, labels, held-out prompts): means over both halves of a split."""
    prompts, others = np.unique(random.prompt), np.unique(active.prompt)
    half = dict(zip(rng.permutation(prompts).tolist(), np.arange(len(prompts)) % 2, strict=True))
    drawn = rng.choice(prompts, len(prompts)) if resample else rng.permutation(prompts)
    more = rng.choice(others, len(others)) if resample else rng.permutation(others)
    side = np.array([half[p] for p in drawn.tolist()])
    found = []
    for held in (0, 1):
        allowed = more[~np.isin(more, drawn[side == held])]
        first, second = _rows(random, drawn[side != held]), _rows(active, allowed)
        n = min(_judgements(random, first)[-1], _judgements(active, second)[-1])
        first, second = first[_judgements(random, first) <= n], second[_judgements(active, second) <= n]
        thetas = (
            fit(random, first, random.weight[first]),
            fit(active, second, active.weight[second]),
            fit(active, second, _plain(active, second)),
        )
        test = _rows(random, drawn[side == held])
        found.append((*(_accuracy(random, test, theta) for theta in thetas), float(n), float(np.sum(side == held))))
    return tuple(np.mean(found, axis=0).tolist())


def _judgements(labels: Labels, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many judgements the rows hold, up to and with each."""
    return np.cumsum(np.diff(labels.judgement[rows], prepend=-1) != 0)


def _rows(labels: Labels, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of these prompts, in their order, as often as they are named."""
    by_prompt = np.argsort(labels.prompt, kind="stable")
    starts = np.searchsorted(labels.prompt[by_prompt], prompts, side="left")
    ends = np.searchsorted(labels.prompt[by_prompt], prompts, side="right")
    return np.concatenate([by_prompt[s:e] for s, e in zip(starts, ends, strict=True)])


def _plain(labels: Labels, rows: NDArray[np.int64]) -> Floats:
    """Weights without importance: each judgement counts once, shared by its pairs."""
    sizes = np.bincount(labels.judgement)
    return np.asarray(1 / sizes[labels.judgement[rows]])


def _accuracy(labels: Labels, rows: NDArray[np.int64], theta: Floats) -> float:
    """Share of decided pairs in the right order, a margin of exactly 0 counting half; each judgement counts once."""
    rows = rows[labels.target[rows] != 0.5]
    if not len(rows):
        return math.nan
    right = 0.5 + 0.5 * np.sign(labels.z[rows] @ theta) * np.sign(labels.target[rows] - 0.5)
    return float(np.average(right, weights=_plain(labels, rows)))


def _labels(judged: Sequence[tuple[Judgement, float, int]], features: Mapping[str, Floats]) -> Labels:
    z, target, weight, prompt, number = [], [], [], [], []
    for position, (judgement, importance, key) in enumerate(judged):
        h, ranks, k = features[judgement.question.id], judgement.ranks, len(judgement.ranks)
        for a, b in combinations(range(k), 2):
            z.append(h[a] - h[b])
            target.append(0.5 + 0.5 * np.sign(ranks[b] - ranks[a]))
            weight.append(importance / (k * (k - 1) / 2))
            prompt.append(key)
            number.append(position)
    return Labels(np.array(z), np.array(target), np.array(weight), np.array(prompt), np.array(number))


def _importance(judgements: Sequence[Judgement]) -> list[float]:
    """1 for the random arm; P(random) / P(active), at most 1 / FLOOR, with P(random) of the nearest random judgement."""
    chance = [(i, j.probability) for i, j in enumerate(judgements) if j.arm == "random" and j.probability]
    if not chance:
        return [1.0] * len(judgements)
    places = np.array([i for i, _ in chance])
    found = []
    for i, judgement in enumerate(judgements):
        if judgement.arm == "random" or not judgement.probability:
            found.append(1.0)
            continue
        after = int(np.searchsorted(places, i))
        near = min((c for c in (after - 1, after) if 0 <= c < len(places)), key=lambda c: abs(int(places[c]) - i))
        found.append(min(float(chance[near][1]) / judgement.probability, 1 / FLOOR))
    return found
