"""Weighted means of strata and their intervals."""

import math

import numpy as np
import pytest

from guerdon.evaluate.benchmarks.estimate import mean, weighted
from guerdon.evaluate.columns import texts
from guerdon.evaluate.intervals import prompt_bootstrap


def test_one_stratum_of_weight_one_is_the_plain_mean_with_its_interval():
    rng = np.random.default_rng(1)
    values, groups = (rng.random(200) < 0.6).astype(float), rng.integers(0, 80, 200)
    plain = mean(values, groups)
    same = weighted(values, texts(["a"] * 200), {"a": 1.0}, groups)
    assert (plain.value, plain.n) == (values.mean(), 200)
    assert (plain.low, plain.high) == prompt_bootstrap(values, groups)
    assert same.value == pytest.approx(plain.value)
    assert (same.low, same.high) == pytest.approx((plain.low, plain.high))


def test_a_mean_of_strata_has_the_interval_of_a_bootstrap_within_strata():
    """Two strata of 900 and 100 rows, weights 1/2 each: the small one carries most of the error."""
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.random(900) < 0.9, rng.random(100) < 0.5]).astype(float)
    strata = texts(["big"] * 900 + ["small"] * 100)
    found = weighted(values, strata, {"big": 0.5, "small": 0.5}, np.arange(1000), resamples=4000)
    assert found.value == pytest.approx((values[:900].mean() + values[900:].mean()) / 2)
    draws = [(rng.choice(values[:900], 900).mean() + rng.choice(values[900:], 100).mean()) / 2 for _ in range(4000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)
    assert high - low > 1.5 * (mean(values, np.arange(1000)).high - mean(values, np.arange(1000)).low)


def test_prompts_that_strata_share_are_resampled_together():
    """The same prompts in both strata with equal outcomes: no narrower than one stratum alone."""
    values = np.tile((np.arange(100) < 60).astype(float), 2)
    groups = np.tile(np.arange(100), 2)
    found = weighted(values, texts(["a"] * 100 + ["b"] * 100), {"a": 0.5, "b": 0.5}, groups)
    alone = mean(values[:100], groups[:100])
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.011)


def test_an_absent_stratum_makes_no_number():
    values, strata = np.ones(3), texts(["a", "a", "c"])
    assert math.isnan(weighted(values, strata, {"a": 0.5, "b": 0.5}, np.arange(3)).value)
    assert weighted(values, strata, {"a": 1.0}, np.arange(3)).n == 2
    assert math.isnan(mean(np.zeros(0), np.zeros(0, dtype=np.int64)).value)
