"""The sure part of the pairs, by hand and against a loop; and a promise about errors that simulation puts to the test."""

import math

import numpy as np
import pytest
from test_metrics import make_table, random_table

from guerdon.evaluate.abstain import aurc, one_per_prompt, risk_by_coverage, selective_accuracy, threshold
from guerdon.types import ConfigError


def pairs_of(margin, prompts=None):
    return make_table([[m, 0] for m in margin], [[1, 2]] * len(margin), prompts).pairs()


def test_risk_by_hand():
    assert risk_by_coverage(np.array([4.0, -3.0, 2.0, 0.0])) == pytest.approx([0, 1 / 2, 1 / 3, 3 / 8])
    assert aurc(np.array([4.0, -3.0, 2.0, 0.0])) == pytest.approx((0 + 1 / 2 + 1 / 3 + 3 / 8) / 4)
    assert math.isnan(aurc(np.zeros(0)))


def test_equally_sure_pairs_share_their_errors_whatever_their_order():
    rng = np.random.default_rng(0)
    margin = rng.integers(-3, 6, size=200).astype(float)
    one, two = risk_by_coverage(margin), risk_by_coverage(rng.permutation(margin))
    assert one == pytest.approx(two)
    shuffled = np.mean([
        np.cumsum((m <= 0) - 0.5 * (m == 0)) / np.arange(1, 201)
        for m in (p[np.argsort(-np.abs(p), kind="stable")] for p in (rng.permutation(margin) for _ in range(3000)))
    ], axis=0)  # fmt: skip
    assert one == pytest.approx(shuffled, abs=0.03)


def test_a_margin_that_says_nothing_keeps_its_plain_error():
    rng = np.random.default_rng(1)
    margin = rng.exponential(size=20_000) * np.where(rng.random(20_000) < 0.7, 1, -1)
    assert aurc(margin) == pytest.approx(0.3, abs=0.015)
    assert aurc(np.abs(margin)) == 0


def test_selective_accuracy():
    margin = np.array([9.0, 8, 7, -6, 5, -4, 3, -2])
    assert selective_accuracy(margin) == pytest.approx({"100": 5 / 8, "75": 4 / 6, "50": 3 / 4, "25": 1.0})
    assert math.isnan(selective_accuracy(np.array([1.0]))["25"])


def logistic(rng, n, slope):
    """|margin| exponential, right with chance sigmoid(slope |margin|): signed margins."""
    sure = rng.exponential(size=n)
    return np.where(rng.random(n) < 1 / (1 + np.exp(-slope * sure)), sure, -sure)


@pytest.mark.parametrize(("slope", "allowed"), [(0.0, 0.4), (0.4, 0.35), (1.0, 0.2), (1.0, 0.29), (3.0, 0.05)])
def test_the_promise_holds(slope, allowed):
    """Over 400 calibration sets the true error above the threshold may pass the allowed one in at most 5 % of them."""
    rng = np.random.default_rng(2)
    later = logistic(np.random.default_rng(3), 400_000, slope)
    order = np.argsort(np.abs(later))
    sure, tail_error = np.abs(later)[order], np.cumsum((later[order] < 0)[::-1])[::-1] / np.arange(400_000, 0, -1)
    broken = 0
    for _ in range(400):
        found = threshold(pairs_of(logistic(rng, 300, slope)), allowed)
        if found.margin is not None:
            broken += tail_error[min(np.searchsorted(sure, found.margin, side="right"), 399_999)] > allowed
    assert broken / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_the_promise_is_worth_something():
    """A model that is right with chance sigmoid(3 |m|) can be trusted with most of 1,000 pairs at 20 % errors."""
    found = threshold(pairs_of(logistic(np.random.default_rng(4), 1000, 3.0)), 0.2)
    assert found.coverage >= 0.8
    assert found.error < 0.2
    kept = np.abs(logistic(np.random.default_rng(4), 1000, 3.0)) > found.margin
    assert kept.mean() == pytest.approx(found.coverage)


def test_a_naive_threshold_would_break_the_promise():
    """The rule "largest part whose observed error is small enough" breaks it about half of the time: the test can fail."""
    rng = np.random.default_rng(5)
    broken = 0
    for _ in range(200):
        margin = logistic(rng, 300, 0.0)  # the true error is one half whatever the threshold
        risk = risk_by_coverage(margin)[29::30]
        broken += bool((risk <= 0.45).any())
    assert broken / 200 > 0.3


def test_no_promise_for_a_coin_or_too_few_pairs():
    coin = threshold(pairs_of(logistic(np.random.default_rng(6), 500, 0.0)), 0.2)
    assert coin.margin is None
    assert coin.coverage == 0
    few = threshold(pairs_of([1.0] * 10), 0.2)
    assert (few.margin, few.n) == (None, 10)
    assert threshold(pairs_of([1.0] * 200), 0.2).margin == 0
    assert threshold(random_table(0).pairs(), 0.2).margin is None


def test_copies_of_a_prompt_do_not_count_as_evidence():
    margin = np.repeat(np.abs(logistic(np.random.default_rng(7), 10, 0)), 50)
    found = threshold(pairs_of(margin, [str(i // 50) for i in range(500)]), 0.2)
    assert (found.n, found.margin) == (10, None)
    drawn = one_per_prompt(random_table().pairs(), 0)
    assert len(np.unique(drawn.group)) == len(drawn) == len(np.unique(random_table().pairs().group))


def test_shares_not_percentages():
    with pytest.raises(ConfigError, match="between 0 and 1"):
        threshold(pairs_of([1.0]), 20)
