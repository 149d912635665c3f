"""The fits find planted coefficients and the peak they imply, and refuse what they cannot know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guerdon.diagnose.kl_fits import fit_best_of_n, fit_reinforcement
from guerdon.evaluate.best_of_n import grid, kl_nats
from guerdon.types import DataError


def planted(alpha, beta, noise, largest=1024, resamples=2000, seed=0):
    """A best-of-n gold curve of the form, and draws around it whose error grows with n, as that of prompts does."""
    rng = np.random.default_rng(seed)
    n = grid(largest)
    d = np.sqrt(kl_nats(n))
    truth = 0.3 + d * (alpha - beta * d)

    def error(size):
        return noise * (rng.normal(size=(size, 1)) + d * rng.normal(size=(size, 1)))

    gold = truth + error(1)[0]
    return n, gold, gold + error(resamples)


def test_planted_coefficients_come_back_exactly():
    fit = fit_best_of_n(*planted(0.8, 0.25, 1e-9))
    assert (fit.alpha, fit.beta) == pytest.approx((0.8, 0.25), abs=1e-6)
    assert fit.peak_kl == pytest.approx((0.8 / 0.5) ** 2, rel=1e-5)  # d* = alpha / (2 beta)
    assert fit.peak_gold == pytest.approx(0.8**2 / (4 * 0.25), rel=1e-5)  # alpha^2 / (4 beta)
    assert fit.refusal == ""
    assert fit.points == len(grid(1024)) - 1


def test_intervals_hold_the_truth_about_95_times_in_100():
    held = 0
    for seed in range(200):
        fit = fit_best_of_n(*planted(0.8, 0.25, 0.02, resamples=200, seed=seed))
        held += fit.alpha_interval[0] <= 0.8 <= fit.alpha_interval[1]
    assert 178 <= held <= 198


@pytest.mark.parametrize(
    ("alpha", "beta", "noise", "largest", "message"),
    [
        (0.8, 0.25, 1e-6, 4, "Only 3 KL values"),
        (0.5, 0.0, 0.02, 1024, "interval of beta reaches 0"),
        (0.5, -0.1, 1e-6, 1024, "bends upward"),
        (-0.5, 0.1, 1e-6, 1024, "not shown to rise"),
        (0.8, 0.05, 1e-6, 64, "too far to extrapolate"),  # peak at 64 nats, pool to 3.2
    ],
)
def test_what_cannot_be_identified_is_refused(alpha, beta, noise, largest, message):
    fit = fit_best_of_n(*planted(alpha, beta, noise, largest))
    assert message in fit.refusal
    assert math.isnan(fit.peak_kl)
    assert math.isnan(fit.peak_gold)


def test_another_shape_is_refused():
    n = grid(1024)
    gold = np.where(n < 64, 0.0, 1.0) + 0.01 * n**0.25
    fit = fit_best_of_n(n, gold, gold + 1e-6 * np.random.default_rng(0).normal(size=(500, 1)))
    assert fit.refusal


def test_flat_gold_and_no_draws_are_refused():
    n = grid(64)
    assert "does not change" in fit_best_of_n(n, np.ones(len(n)), np.ones((500, len(n)))).refusal
    assert "too few prompts" in fit_best_of_n(n, kl_nats(n), np.empty((0, len(n)))).refusal
    assert "Only 0 KL values" in fit_best_of_n(n[:1], np.ones(1), np.ones((5, 1))).refusal


def test_reinforcement_form_comes_back_and_leaves_the_origin_alone():
    kl = np.array([0.01, 0.2, 1.5, 3, 6, 12, 25, 50, 100])
    d = np.sqrt(kl)
    gold = 2 + d * (0.9 - 0.35 * np.log(d))
    gold[:2] = 99  # near the origin the slope of the form is infinite: these must not count
    fit = fit_reinforcement(kl, gold + 1e-9 * np.sin(kl), start=2)
    assert (fit.alpha, fit.beta) == pytest.approx((0.9, 0.35), abs=1e-6)
    assert fit.peak_kl == pytest.approx(math.exp(0.9 / 0.35 - 1) ** 2, rel=1e-4)
    assert fit.peak_gold == pytest.approx(0.35 * math.exp(0.9 / 0.35 - 1), rel=1e-4)
    assert fit.points == 7
    assert fit.refusal == ""


def test_reinforcement_interval_is_that_of_least_squares():
    rng = np.random.default_rng(1)
    kl = np.linspace(1, 60, 12)
    d = np.sqrt(kl)
    gold = d * (0.9 - 0.35 * np.log(d)) + 0.02 * rng.normal(size=12)
    fit = fit_reinforcement(kl, gold, start=0)
    from scipy import stats

    design = np.stack([d, -d * np.log(d)], axis=1)
    estimate, left, _, _ = np.linalg.lstsq(design, gold, rcond=None)
    error = math.sqrt(left[0] / 10 * np.linalg.inv(design.T @ design)[1, 1])
    half = stats.t.ppf(0.975, 10) * error
    assert fit.beta == pytest.approx(estimate[1])
    assert fit.beta_interval == pytest.approx((estimate[1] - half, estimate[1] + half), abs=0.15 * half)


def test_too_few_measured_points_say_so():
    with pytest.raises(DataError, match="2 points have a KL of 1 nats or more"):
        fit_reinforcement(np.array([0.1, 0.5, 2, 3]), np.zeros(4), start=0)
