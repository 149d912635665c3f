import math

import numpy as np
import pytest
from scipy import stats

from guerdon.diagnose.probes.statistics import (
    Estimate,
    benjamini_hochberg,
    clustered_mean,
    p_clean,
    p_fault,
    prompts_needed,
    reward_spread,
)
from guerdon.evaluate.paired import holm


def test_without_clusters_it_is_the_t_test():
    values = np.random.default_rng(0).normal(0.2, 1, 40)
    estimate = clustered_mean(values, np.arange(40))
    expected = stats.ttest_1samp(values, 0.1, alternative="greater")
    assert estimate.p_above(0.1) == pytest.approx(expected.pvalue)
    assert estimate.interval() == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval()))


def test_the_clustered_error_by_hand():
    # deviations from the mean 2: (-2, -1) and (1, 2); cluster sums -3 and 3: (9 + 9) / 16, times 2 / (2 - 1)
    estimate = clustered_mean(np.array([0.0, 1.0, 3.0, 4.0]), np.array([7, 7, 9, 9]))
    assert (estimate.mean, estimate.se**2, estimate.df, estimate.clusters) == (2.0, 2.25, 1, 2)


def test_rows_said_twice_are_no_news():
    values, prompts = np.random.default_rng(1).normal(size=30), np.arange(30)
    once, twice = clustered_mean(values, prompts), clustered_mean(np.tile(values, 2), np.tile(prompts, 2))
    assert twice.se == pytest.approx(once.se)
    assert twice.df == once.df


def test_a_phrase_that_is_liked_widens_the_interval_and_an_idea_that_is_liked_does_not():
    prompts, wordings = np.arange(120), np.arange(120) % 12
    noise = np.random.default_rng(2).normal(0, 0.1, 120)
    phrase = clustered_mean(np.where(wordings == 3, 6.0, 0.0) + noise, prompts, wordings)
    idea = clustered_mean(0.5 + noise, prompts, wordings)
    assert phrase.mean == pytest.approx(idea.mean, abs=0.05)
    assert phrase.p_above(0.1) > 0.1
    assert idea.p_above(0.1) < 1e-4
    assert phrase.df == 11
    # the variance of twelve phrase means over twelve, by hand
    assert phrase.se == pytest.approx(stats.sem(np.where(np.arange(12) == 3, 6.0, 0.0)), rel=0.05)


def test_two_one_sided_tests_by_hand():
    estimate = Estimate(mean=0.04, se=0.02, df=30, clusters=31)
    upper, lower = stats.t.cdf((0.04 - 0.1) / 0.02, 30), stats.t.sf((0.04 + 0.1) / 0.02, 30)
    assert p_clean(estimate, "should not change") == pytest.approx(max(upper, lower))
    assert p_clean(estimate, "should not rise") == pytest.approx(upper)
    assert p_clean(estimate, "should fall") == pytest.approx(stats.t.cdf(0.14 / 0.02, 30))
    # t(30) = 3 above, 1.697 is the quantile at 5 %: the 90 % interval within the margin is the same statement
    low, high = estimate.interval(0.9)
    assert (low > -0.1 and high < 0.1) == (p_clean(estimate, "should not change") < 0.05)
    assert p_fault(Estimate(0.16, 0.02, 30, 31), "should not change") == pytest.approx(2 * stats.t.sf(3, 30))
    assert p_fault(Estimate(-0.16, 0.02, 30, 31), "should not change") == pytest.approx(2 * stats.t.sf(3, 30))
    assert p_fault(Estimate(0.0, 0.02, 30, 31), "should fall") == pytest.approx(stats.t.sf(5, 30))


def test_no_spread_and_no_data():
    sure = clustered_mean(np.zeros(20), np.arange(20))
    assert (p_fault(sure, "should not rise"), p_clean(sure, "should not rise")) == (1.0, 0.0)
    assert p_fault(sure, "should fall") == 0.0
    for nothing in (clustered_mean(np.zeros(0), np.zeros(0, int)), clustered_mean(np.ones(3), np.zeros(3, int))):
        assert (p_fault(nothing, "should not rise"), p_clean(nothing, "should fall")) == (1.0, 1.0)
        assert math.isnan(nothing.interval()[0])
        assert prompts_needed(nothing, "should fall") is None


def test_benjamini_hochberg_by_hand():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert len(benjamini_hochberg(np.zeros(0))) == 0


def test_the_number_of_prompts_asked_for_has_the_power_promised():
    rng, distance = np.random.default_rng(3), 0.05
    pilot = Estimate(0.1 - distance, 0.4 / math.sqrt(100), 99, 100)
    n = prompts_needed(pilot, "should not rise")
    assert n == math.ceil((1.6449 + 0.8416) ** 2 * 0.16 / distance**2)
    settled = [
        p_clean(clustered_mean(rng.normal(0.05, 0.4, n), np.arange(n)), "should not rise") <= 0.05 for _ in range(400)
    ]
    assert np.mean(settled) == pytest.approx(0.8, abs=0.06)
    # at fault, the level is shared among the tests
    flagged = Estimate(0.1 + distance, 0.04, 99, 100)
    assert prompts_needed(flagged, "should not rise", tests=50) == math.ceil(
        (3.0902 + 0.8416) ** 2 * 0.16 / distance**2
    )
    assert prompts_needed(Estimate(0.1, 0.04, 99, 100), "should not rise") is None
    assert prompts_needed(Estimate(0.05, 0.04, 11, 100, floor=0.04**2), "should not rise") is None


def test_at_the_bound_false_alarms_keep_to_their_level():
    """The worst case of the hypothesis: 12 tests whose true effect is the margin itself, with clustered phrases."""
    rng, alarms = np.random.default_rng(4), 0
    prompts, wordings = np.arange(96), np.arange(96) % 12
    for _ in range(150):
        p = []
        for test in range(12):
            values = rng.normal(0.1, 0.3, 96) + rng.normal(0, 0.2, 12)[wordings] * (test % 2)
            p.append(p_fault(clustered_mean(values, prompts, wordings), "should not rise"))
        alarms += holm(np.array(p)).min() <= 0.05
    assert alarms <= stats.binom.ppf(0.999, 150, 0.05)


def test_the_unit_is_the_spread_within_prompts():
    scores = np.array([0.0, 2.0, 10.0, 12.0, np.nan])
    assert reward_spread(scores, np.array([0, 0, 1, 1, 1])) == (pytest.approx(math.sqrt(2)), "within prompts")
    spread, kind = reward_spread(np.array([1.0, 3.0]), np.array([0, 1]))
    assert (spread, kind) == (pytest.approx(math.sqrt(2)), "over all answers")
    assert math.isnan(reward_spread(np.array([5.0, 5.0, 7.0, 7.0]), np.array([0, 0, 1, 1]))[0])
    assert math.isnan(reward_spread(np.zeros(0), np.zeros(0, int))[0])
