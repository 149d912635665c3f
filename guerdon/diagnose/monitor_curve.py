"""What the monitor reads off a run beside its evidence: the smoothed curve, Gao's fit, and signals that need no held-out score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guerdon.diagnose.kl_fits import Fit, fit_reinforcement
from guerdon.diagnose.monitor_evidence import STARTING, Evidence, Looks, best_look, smooth, width_of
from guerdon.evaluate.columns import Floats

BASELINE = 10  # first steps that signals without held-out scores are compared with
RECENT = 5  # last steps that are compared
BINS = 12  # KL points that Gao's curve is fitted to


def far_signals(rows: Sequence[Mapping[str, Any]], far: float) -> dict[str, float]:
    """Signals that need no held-out score and lie far from the start while the proxy is above it: name -> shift in SD.

    Shift: mean of the last 5 steps minus mean of the first 10, over the standard deviation of those ten step means, at
    least 2 % of their size. Steps without a reward are passed over. Empty before twenty steps.
    """
    rows = [row for row in rows if math.isfinite(row["proxy"])]
    if len(rows) < 2 * BASELINE:
        return {}
    proxy = [row["proxy"] for row in rows]
    if not np.mean(proxy[-RECENT:]) > np.mean(proxy[:BASELINE]):
        return {}
    shifts = {}
    for name in rows[-1]["signals"]:
        values = np.array([row["signals"].get(name, math.nan) for row in rows], dtype=np.float64)
        first, last = values[:BASELINE], values[-RECENT:]
        if not (np.isfinite(first).all() and np.isfinite(last).all()):
            continue
        spread = max(float(first.std(ddof=1)), 0.02 * abs(float(first.mean())), 1e-9)
        shift = float(last.mean() - first.mean()) / spread
        if abs(shift) >= far:
            shifts[name] = shift
    return shifts


def summary(looks: Looks, found: Evidence, slack: float) -> dict[str, float]:
    """Best look, gain and loss with its interval, from the smoothed curve of held-out."""
    curve, support = smooth(looks, width_of(looks.count))
    noise = float(found.noise)
    best = best_look(curve, np.sqrt(noise / support), slack)
    recent = looks.n[-8:]
    now = float((recent * looks.mean[-8:]).sum() / recent.sum())
    start = start_of(looks.n, looks.mean)
    lost = float(curve[best]) - now
    error = 1.96 * math.sqrt(noise * (1 / float(support[best]) + 1 / float(recent.sum())))
    return {
        "best": float(best),
        "gain": float(curve[best]) - start,
        "lost": lost,
        "lost_low": lost - error,
        "lost_high": lost + error,
    }


def fit_steps(n: Floats, kl: Floats, mean: Floats) -> Fit | None:
    """Gao's curve through at most `BINS` groups of neighbouring steps; None before five groups of 1 nat or more.

    n, kl, mean   held-out scores of each step, its KL in nats per sequence, and the mean of its held-out scores
    """
    size = max(4, math.ceil(len(n) / BINS))
    groups = [slice(i, i + size) for i in range(STARTING, len(n) - size + 1, size)]
    if len(groups) < 5:
        return None
    weight = [n[group].sum() for group in groups]
    means = np.array([(n[g] * kl[g]).sum() for g in groups]) / weight
    gold = np.array([(n[g] * mean[g]).sum() for g in groups]) / weight
    order = np.argsort(means, kind="stable")
    if (means >= 1.0).sum() < 5:
        return None
    return fit_reinforcement(means[order], gold[order], start=start_of(n, mean))


def start_of(n: Floats, mean: Floats) -> float:
    """Held-out of the policy as it was at the start: the mean over the scores of the first steps."""
    return float((n[:STARTING] * mean[:STARTING]).sum() / n[:STARTING].sum())
