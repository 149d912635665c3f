"""How gold falls behind as KL grows: the two forms of Gao, Schulman and Hilton (arXiv 2210.10760), or a reason why not.

In: gold at several KL. Out: coefficients with 95 % intervals, the peak they imply, and a sentence when it must not be read.
With d = sqrt(KL) in nats^0.5 and R gold above the start: best-of-n R = d (alpha - beta d), reinforcement learning
R = d (alpha - beta log d). KL is not comparable between the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guerdon.evaluate.best_of_n import kl_nats
from guerdon.evaluate.columns import Floats
from guerdon.types import DataError

FEWEST = 5  # KL values above the start
FURTHEST = 10 / 6  # Gao et al. extrapolate fits from KL <= 6 nats to 10
WORST = 0.1  # largest distance of form and curve, as a share of the range of gold, at which it still describes it

Interval = tuple[float, float]
NOTHING = (math.nan, math.nan)


@dataclass(frozen=True)
class Fit:
    """Coefficients of one form and the peak they imply.

    alpha      slope near the start, gold per nats^0.5; above 0 when optimising helps at all
    beta       how fast the gain is lost; below or about 0 there is no peak
    misfit     largest distance between form and curve, as a share of the range of R
    peak_kl    KL where the fitted gold is highest, nats; NaN when refused
    peak_gold  gold above the start at that KL; NaN when refused
    points     KL values fitted
    refusal    why the peak must not be read, one sentence; "" when it may
    """

    alpha: float
    alpha_interval: Interval
    beta: float
    beta_interval: Interval
    misfit: float
    peak_kl: float
    peak_kl_interval: Interval
    peak_gold: float
    points: int
    refusal: str


class Form(NamedTuple):
    """R = d (alpha - beta bend(d)), and the KL where it is highest."""

    bend: Callable[[Floats], Floats]
    peak: Callable[[Floats, Floats], Floats]


BEST_OF_N = Form(bend=lambda d: d, peak=lambda alpha, beta: (alpha / (2 * beta)) ** 2)
REINFORCEMENT = Form(bend=np.log, peak=lambda alpha, beta: np.exp(2 * np.minimum(alpha / beta - 1, 300)))


def fit_best_of_n(n: NDArray[np.integer], gold: Floats, draws: Floats) -> Fit:
    """R(d) = d (alpha - beta d) by least squares over the n above 1; peak at d = alpha / (2 beta).

    n      subset sizes, the first of them 1
    gold   (len(n),) best-of-n gold
    draws  (resamples, len(n)) the same, resampled over prompts: the intervals; gold at different n moves together, so
           residuals of the fit say nothing about its error

    KL is log n - (n-1)/n. The proxy needs no test: its own best-of-n curve can never fall.
    """
    rise, rises = gold[1:] - gold[0], draws[:, 1:] - draws[:, :1]
    return _fit(BEST_OF_N, kl_nats(n)[1:], rise, lambda solver, _: rises @ solver.T)


def fit_reinforcement(kl: Floats, gold: Floats, *, start: float, from_kl: float = 1.0, seed: int = 0) -> Fit:
    """R(d) = d (alpha - beta log d) for measured KL points of one run; peak at d = exp(alpha / beta - 1).

    kl       nats per sequence, as measured; points below `from_kl` are left out, because the slope at 0 is infinite and
             would bend the fit
    gold     gold of each point; `start` is the gold of the initial policy

    Intervals take the points for independent (multivariate t of least squares), which checkpoints of one run are not
    quite: read them as the least that is uncertain. Raises DataError when fewer than three points are left.
    """
    used = kl >= from_kl
    if used.sum() < 3:
        raise DataError(f"{int(used.sum())} points have a KL of {from_kl:g} nats or more; measure gold further out")
    rise = gold[used] - start

    def draw(solver: Floats, residual: Floats) -> Floats:
        freedom = len(rise) - 2
        variance = float(residual @ residual) / freedom
        rng = np.random.default_rng(seed)
        noise = rng.multivariate_normal(np.zeros(2), variance * (solver @ solver.T), size=4000)
        spread: Floats = noise / np.sqrt(rng.chisquare(freedom, size=(4000, 1)) / freedom)
        return solver @ rise + spread

    return _fit(REINFORCEMENT, kl[used], rise, draw)


def _fit(form: Form, kl: Floats, rise: Floats, draw: Callable[[Floats, Floats], Floats]) -> Fit:
    """Least squares of the form; `draw(solver, residual)` gives resampled (alpha, beta) rows for the intervals."""
    d = np.sqrt(kl)
    design = np.stack([d, -d * form.bend(d)], axis=1)
    solver = np.linalg.pinv(design)
    alpha, beta = solver @ rise
    residual = rise - design @ (alpha, beta)
    alphas, betas = draw(solver, residual).T
    misfit = float(np.abs(residual).max() / np.ptp([0.0, *rise])) if rise.any() else math.nan
    intervals = _interval(alphas), _interval(betas)
    peak = float(form.peak(alpha, beta)) if beta > 0 else math.inf
    refusal = _refusal(kl, rise, intervals, misfit, peak)
    peak_interval, top = NOTHING, math.nan
    if refusal:
        peak = math.nan
    else:
        is_bent = (betas > 0) & (alphas > 0)
        peak_interval = _interval(form.peak(alphas[is_bent], betas[is_bent]))
        at = np.sqrt(np.array([peak]))
        top = float((at * (alpha - beta * form.bend(at)))[0])
    return Fit(
        float(alpha), intervals[0], float(beta), intervals[1], misfit, peak, peak_interval, top, len(kl), refusal
    )


def _refusal(kl: Floats, rise: Floats, intervals: tuple[Interval, Interval], misfit: float, peak: float) -> str:
    alpha, beta = intervals
    if len(kl) < FEWEST:
        return f"Only {len(kl)} KL values: a curve needs at least {FEWEST}; give larger pools."
    if not rise.any():
        return "Gold does not change with n, so there is nothing to fit."
    if math.isnan(beta[0]):
        return "There are too few prompts for an interval."
    if alpha[0] <= 0:
        return "Gold is not shown to rise at first (the interval of alpha reaches 0), so the form does not apply."
    if misfit > WORST:
        return f"The form misses the curve by up to {100 * misfit:.0f} % of its range, so it does not describe it."
    if beta[1] <= 0:
        return "The fitted curve bends upward (beta is below 0), so it has no peak."
    if beta[0] <= 0:
        return "The interval of beta reaches 0: a peak is not identified in this range."
    if peak > FURTHEST * kl[-1]:
        return (
            f"The fitted peak, {peak:.1f} nats, lies far beyond the {kl[-1]:.1f} nats measured: too far to extrapolate."
        )
    return ""


def _interval(values: Floats) -> Interval:
    if len(values) < 2:
        return NOTHING
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
