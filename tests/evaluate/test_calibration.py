"""Temperatures found again, out-of-fold numbers that do not flatter, and an error interval that knows its own bias."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit
from test_metrics import make_table, random_table

from guerdon.evaluate.calibration import (
    brier,
    cross_fit_temperature,
    ece,
    ece_interval,
    fit_temperature,
    nll,
    preference_probability,
    reliability,
)
from guerdon.evaluate.sheet import calibrate
from guerdon.types import ConfigError


def calibrated(n, temperature, seed=0, prompts=None, scale=1.0):
    """Pairs whose label is drawn with chance sigmoid(margin / temperature); `prompts` of them, or one for each pair."""
    rng = np.random.default_rng(seed)
    margin = np.abs(rng.normal(scale=scale * temperature, size=n))
    right = rng.random(n) < expit(margin / temperature)
    names = [str(i % prompts) for i in range(n)] if prompts else None
    return make_table([[m, 0] for m in margin], np.where(right[:, None], [[1, 2]], [[2, 1]]), names).pairs()


@pytest.mark.parametrize("temperature", [0.02, 1.0, 40.0])
def test_a_known_temperature_is_found(temperature):
    pairs = calibrated(20_000, temperature)
    assert fit_temperature(pairs.margin) == pytest.approx(temperature, rel=0.05)


def test_the_fit_is_the_minimum_that_scipy_finds():
    margin = np.random.default_rng(1).normal(0.4, 3, size=500)
    found = optimize.minimize_scalar(lambda log_t: nll(margin / math.exp(log_t)).mean(), bounds=(-4, 6), method="bounded", options={"xatol": 1e-10})  # fmt: skip
    assert fit_temperature(margin) == pytest.approx(math.exp(found.x), rel=1e-5)
    assert fit_temperature(7 * margin) == pytest.approx(7 * fit_temperature(margin))


def test_where_no_temperature_fits_it_is_the_bound_and_said_so():
    sure, wrong = np.array([1.0, 2.0, 3.0] * 5), np.array([-1.0, -2.0, 1.0] * 5)
    assert fit_temperature(sure) == pytest.approx(2 / 1000)
    assert fit_temperature(wrong) == pytest.approx(1000 * 4 / 3)
    assert fit_temperature(np.zeros(4)) == fit_temperature(np.zeros(0)) == 1.0
    for margins in (sure, wrong):
        assert cross_fit_temperature(make_table([[m, 0] for m in margins], [[1, 2]] * 15).pairs()).at_bound
    assert not cross_fit_temperature(calibrated(300, 3.0)).at_bound


def test_out_of_fold_numbers_by_a_plain_loop():
    pairs = calibrated(300, 5.0, prompts=60)
    found = cross_fit_temperature(pairs, folds=4, seed=3)
    fold = (np.random.default_rng(3).permutation(60) % 4)[pairs.group]
    margin = np.concatenate([pairs.margin[fold == k] / fit_temperature(pairs.margin[fold != k]) for k in range(4)])
    assert found.nll == pytest.approx(nll(margin).mean())
    assert found.brier == pytest.approx(brier(margin).mean())
    assert found.low <= found.value <= found.high
    assert found.nll >= nll(pairs.margin / found.value).mean()  # what is fitted on the same pairs flatters


def test_calibration_mends_a_loud_model():
    pairs = calibrated(4000, 8.0)
    found = cross_fit_temperature(pairs)
    assert ece(reliability(pairs)) > 0.1
    assert found.ece < 0.03
    assert found.nll < nll(pairs.margin).mean()


def test_too_few_prompts_cannot_be_dealt_into_folds():
    with pytest.raises(ConfigError, match="3 prompts"):
        cross_fit_temperature(random_table(60, prompts=3).pairs())
    assert calibrate(random_table(60, prompts=3)).temperature is None


def test_probabilities():
    assert preference_probability(math.log(3)) == pytest.approx(0.75)
    assert preference_probability(np.array([0.0, 2 * math.log(3)]), 2.0) == pytest.approx([0.5, 0.75])
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="positive"):
            preference_probability(1.0, wrong)


def test_the_error_interval_of_a_calibrated_model_reaches_down_and_of_a_loud_one_does_not():
    fine = [calibrated(400, 1.0, seed=seed) for seed in range(60)]
    assert np.mean([ece(reliability(pairs)) for pairs in fine]) > 0.04  # small samples push it up
    assert np.mean([ece_interval(pairs, resamples=200)[0] == 0 for pairs in fine]) >= 0.9
    loud = calibrated(4000, 8.0)
    low, high = ece_interval(loud)
    assert 0.05 < low < ece(reliability(loud)) < high
    assert all(math.isnan(end) for end in ece_interval(random_table(10, prompts=1).pairs()))


def test_the_error_interval_covers_the_error_of_many_pairs():
    """Margins twice too large: the error of 200,000 pairs is the truth for sets of 500."""
    loud = [
        replace(p, margin=2 * p.margin) for p in (calibrated(n, 1.0, seed=n + 7) for n in [200_000, *range(500, 540)])
    ]
    truth = ece(reliability(loud[0]))
    covered = [low <= truth <= high for low, high in (ece_interval(pairs, resamples=100) for pairs in loud[1:])]
    assert np.mean(covered) >= 0.9


def test_the_error_interval_knows_prompts():
    one = calibrated(300, 8.0)
    copies = one.where(np.repeat(np.arange(300), 10))
    assert np.diff(ece_interval(copies)) == pytest.approx(np.diff(ece_interval(one)), rel=0.15)


def test_the_sheet_is_plain_json():
    record = json.loads(json.dumps(calibrate(random_table()).to_dict(), allow_nan=False))
    assert set(record) == {"temperature", "ece_low", "ece_high", "aurc", "selective", "threshold", "reliability"}
    assert sum(band["n"] for band in record["reliability"]) == 300
    empty = calibrate(make_table([[math.nan, 1.0]], [[1, 2]])).to_dict()
    assert empty["aurc"] is None
    assert empty["selective"]["100"] is None
