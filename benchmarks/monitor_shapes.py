"""Runs whose true gold follows a curve of a given shape, for `monitor_simulation.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

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
    "fast fall": bump((25, 40), (0, 0)),
    "slow fall": bump((60, 100), (0, 0)),
    "plateau": bump((30, 60), (20, 50)),
}
BENIGN = {"together": together, "still rising": slow, "creep": creep, "bent": bent}


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
        liked, none = (groups, products.sum(1), (products**2).sum(1)), np.zeros(runs)  # log-ratios are not known
        return (n, mean, within, self.proxy[:, step], self.kl[:, step], *liked, *[none] * 10)


def shaped(name: str, runs: int, steps: int, gain: float, rng: np.random.Generator) -> Shaped:
    """Runs of one shape. Of the rate that a pure tilt would show within prompts, 0 to 80 % is there to be seen."""
    t = np.broadcast_to(np.arange(steps) / (steps - 1), (runs, steps))
    kl = rng.uniform(5, 60, (runs, 1)) * t ** rng.uniform(0.9, 1.6, (runs, 1))
    share, proxy, kl = (HACKED | BENIGN)[name](t, kl, rng)
    gold = START + gain * share
    rate = np.gradient(gold, axis=1) / np.maximum(np.gradient(proxy, axis=1), 0.02 / steps)
    spread = rng.uniform(0.2, 0.5, (runs, 1)) / 0.2  # SD of the proxy within prompts over that of gold
    relation = np.clip(rng.uniform(0, 0.8, (runs, 1)) * rate * spread, -0.6, 0.6)
    proxy = proxy + 0.01 * rng.normal(size=gold.shape)
    return Shaped(gold, proxy, kl, gain * wander(runs, steps, rng), relation, rng)


def wander(runs: int, steps: int, rng: np.random.Generator) -> Array:
    keep, noise = np.exp(-1 / MEMORY), rng.normal(size=(runs, steps))
    path = np.zeros((runs, steps))
    for t in range(1, steps):
        path[:, t] = keep * path[:, t - 1] + np.sqrt(1 - keep**2) * noise[:, t]
    return WANDER * path
