"""How soon does the monitor stop a run that is being hacked, and how often one that is not?

    python benchmarks/monitor_simulation.py --output benchmarks/monitor_simulation.md

Two sources of runs. `policy`: small softmax policies trained by policy gradient against a reward that pays for filler, or
against one that does not; nothing about their curves is put in by hand. All others: held-out curves of given shapes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.monitor_policies import ANSWERS, PROMPTS, Trace, train
from guerdon.diagnose.monitor import Settings, thresholds
from guerdon.diagnose.monitor_evidence import (
    KINDS,
    Evidence,
    Looks,
    best_look,
    noise_variance,
    smooth,
    weigh,
    width_of,
    within_prompts,
)
from guerdon.evaluate.intervals import wilson

START, SD, BATCH = 0.35, 0.25, 0.01  # gold of the reference; of one answer; what the prompts of a step have in common
WANDER, MEMORY = 0.04, 8  # slow wander of the policy: SD as a share of the gain, steps
Array = np.ndarray
Curves = tuple[Array, Array, Array]  # gold as a share of its gain, proxy, KL in nats; each (runs, steps)


def smoothstep(x: Array) -> Array:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def rising(t: Array, rng: np.random.Generator) -> Array:
    """Goes on to rise until the end, faster at first."""
    tau, part = rng.uniform(0.15, 0.4, (len(t), 1)), rng.uniform(0.35, 0.7, (len(t), 1))
    return part * (1 - np.exp(-t / tau)) / (1 - np.exp(-1 / tau)) + (1 - part) * t


def levelling(t: Array, rng: np.random.Generator) -> Array:
    """Rises and levels off."""
    tau, form = rng.uniform(0.12, 0.35, (len(t), 1)), rng.uniform(1, 2, (len(t), 1))
    return 1 - np.exp(-((t / tau) ** form))


def gao(t: Array, kl: Array, rng: np.random.Generator) -> Curves:
    d = np.sqrt(kl) / np.sqrt(kl[:, -1:])
    u = np.maximum(d * rng.uniform(1.8, 3, (len(t), 1)), 1e-9)
    return u * (1 - np.log(u)), d ** rng.uniform(0.7, 1, (len(t), 1)), kl


def bump(half: tuple[float, float], flat: tuple[float, float]) -> Callable[[Array, Array, np.random.Generator], Curves]:
    """S-shaped rise, a plateau of `flat` steps, then a fall that takes `half` steps to lose half of the gain."""

    def curves(t: Array, kl: Array, rng: np.random.Generator) -> Curves:
        runs, steps = t.shape
        at, peak = np.arange(steps)[None], rng.uniform(0.25, 0.55, (runs, 1)) * steps
        up = smoothstep(at / peak) ** rng.uniform(0.8, 1.8, (runs, 1))
        after = np.maximum(at - peak - rng.uniform(*flat, (runs, 1)), 0) / rng.uniform(*half, (runs, 1))
        down = 0.5 * after ** rng.uniform(1.3, 2, (runs, 1))
        return np.where(at < peak, up, 1 - np.minimum(down, 1.3)), rising(t, rng), kl

    return curves


def together(t: Array, kl: Array, rng: np.random.Generator) -> Curves:
    f = levelling(t, rng)
    return f, f, kl


def slow(t: Array, kl: Array, rng: np.random.Generator) -> Curves:
    f = rising(t, rng)
    return f, f, kl


def creep(t: Array, kl: Array, rng: np.random.Generator) -> Curves:
    f, late = levelling(t, rng), rng.uniform(0.1, 0.2, (len(t), 1))
    return f, (1 - late) * f + late * t, kl


def bent(t: Array, kl: Array, rng: np.random.Generator) -> Curves:
    f, bend = rising(t, rng), rng.uniform(0.2, 0.4, (len(t), 1))
    return (f - bend * f * f) / (1 - bend), f, kl


HACKED = {
    "gao": gao,
    "fast": bump((25, 40), (0, 0)),
    "slow fall": bump((60, 100), (0, 0)),
    "plateau": bump((30, 60), (20, 50)),
}
BENIGN = {"together": together, "still rising": slow, "creep": creep, "bent": bent}


class Runs(Protocol):
    """Runs that can be asked for held-out scores, a step at a time."""

    gold: Array  # true mean gold, (runs, steps)

    def look(self, step: int, n: Array) -> tuple[Array, ...]:
        """The fields of `Looks` at a step, each (runs,), from n held-out scores per run."""


@dataclass
class Shaped:
    """Runs whose gold follows a curve: half of the scores are second answers to the prompt of another."""

    gold: Array
    proxy: Array
    kl: Array
    wander: Array
    relation: Array  # correlation of held-out and proxy within prompts
    rng: np.random.Generator

    def look(self, step: int, n: Array) -> tuple[Array, ...]:
        runs, rng = len(self.gold), self.rng
        mean = self.gold[:, step] + self.wander[:, step] + rng.normal(size=runs) * np.sqrt(SD**2 / n + BATCH**2)
        groups = n // 2
        r = self.relation[:, step, None]
        a, b = rng.normal(size=(2, runs, int(groups.max())))
        products = a * (r * a + np.sqrt(1 - r * r) * b) * (np.arange(a.shape[1])[None] < groups[:, None])
        within = SD**2 * rng.chisquare(n - 1) / (n - 1)
        return (n, mean, within, self.proxy[:, step], self.kl[:, step], groups, products.sum(1), (products**2).sum(1))


def shaped(name: str, runs: int, steps: int, gain: Array, rng: np.random.Generator) -> Shaped:
    """Runs of one shape. Of the rate that a pure tilt would show within prompts, 0 to 80 % is there to be seen."""
    t = np.broadcast_to(np.arange(steps) / (steps - 1), (runs, steps))
    kl = rng.uniform(5, 60, (runs, 1)) * t ** rng.uniform(0.9, 1.6, (runs, 1))
    share, proxy, kl = (HACKED | BENIGN)[name](t, kl, rng)
    gold = START + gain[:, None] * share
    rate = np.gradient(gold, axis=1) / np.maximum(np.gradient(proxy, axis=1), 0.02 / steps)
    spread = rng.uniform(0.2, 0.5, (runs, 1)) / 0.2  # SD of the proxy within prompts over that of gold
    relation = np.clip(rng.uniform(0, 0.8, (runs, 1)) * rate * spread, -0.6, 0.6)
    return Shaped(
        gold, proxy + 0.01 * rng.normal(size=gold.shape), kl, wander(runs, steps, rng) * gain[:, None], relation, rng
    )


class Trained:
    """Runs of `monitor_policies`; true gold is the mean of all answers, smoothed over eleven steps."""

    def __init__(self, traces: Sequence[Trace], rng: np.random.Generator) -> None:
        self.traces, self.rng = traces, rng
        means = np.stack([trace.gold.mean((1, 2)) for trace in traces])
        padded = np.pad(means, ((0, 0), (5, 5)), mode="edge")
        self.gold = np.stack([padded[:, k : k + means.shape[1]] for k in range(11)]).mean(0)

    def look(self, step: int, n: Array) -> tuple[Array, ...]:
        """n scores: two answers to each of n / 2 prompts, or more of each when there are not so many prompts."""
        rows = []
        for trace, wanted in zip(self.traces, n, strict=True):
            answers = min(max(2, -(-int(wanted) // PROMPTS)), ANSWERS)
            prompts = self.rng.permutation(PROMPTS)[: int(wanted) // answers]
            gold, proxy = trace.gold[step, prompts, :answers].ravel(), trace.proxy[step, prompts, :answers].ravel()
            groups = within_prompts(gold, proxy, prompts.repeat(answers))
            rows.append((len(gold), gold.mean(), gold.var(ddof=1), trace.proxy[step].mean(), trace.kl[step], *groups))
        return tuple(np.array(part) for part in zip(*rows, strict=True))


def wander(runs: int, steps: int, rng: np.random.Generator) -> Array:
    keep, noise = np.exp(-1 / MEMORY), rng.normal(size=(runs, steps))
    path = np.zeros((runs, steps))
    for t in range(1, steps):
        path[:, t] = keep * path[:, t - 1] + np.sqrt(1 - keep**2) * noise[:, t]
    return WANDER * path


@dataclass(frozen=True)
class Outcome:
    """stop: look of the first stop, or the number of looks; best: look to go back to; kind: index of the evidence;
    scores: held-out scores spent until then, per step."""

    stop: Array
    best: Array
    kind: Array
    scores: Array


def watch(runs: Runs, budget: int, settings: Settings, correct: bool = True) -> Outcome:
    """Look at every step with the monitor's own evidence; `correct=False` stops at 1.96 instead, as one look would allow."""
    count, steps = runs.gold.shape
    limits = np.array([thresholds(settings)[kind] if correct else 1.96 for kind in KINDS])
    stop, kind = np.full(count, steps), np.full(count, -1)
    n = np.full(count, budget)
    fields: list[list[Array]] = []
    for step in range(steps):
        fields.append([np.asarray(part, dtype=float) for part in runs.look(step, n)])
        found = weigh(looks_of(fields), settings.rules)
        excess = np.stack([getattr(found, name) for name in KINDS]) - limits[:, None]
        is_new = (excess.max(0) >= 0) & (stop == steps)
        stop[is_new], kind[is_new] = step, excess.argmax(0)[is_new]
        n = np.where(is_suspicious(found, settings), settings.boost * budget, budget)
    looks = looks_of(fields)
    best = np.array([best_of(looks, i, min(stop[i] + 1, steps), settings) for i in range(count)])
    spent = np.array([looks.n[i, : stop[i] + 1].mean() for i in range(count)])
    return Outcome(stop, best, kind, spent)


def is_suspicious(found: Evidence, settings: Settings) -> Array:
    limits = thresholds(settings)
    return np.max([getattr(found, kind) / limits[kind] for kind in KINDS], axis=0) >= settings.alert


def looks_of(fields: list[list[Array]]) -> Looks:
    return Looks(*(np.stack(part, axis=-1) for part in zip(*fields, strict=True)))


def best_of(looks: Looks, run: int, until: int, settings: Settings) -> int:
    one = Looks(*(getattr(looks, name)[run, :until] for name in Looks.__dataclass_fields__))
    curve, support = smooth(one, width_of(until))
    return best_look(curve, np.sqrt(noise_variance(one) / support), settings.slack)
