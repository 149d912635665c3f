"""Rules for ensembles: hand-computed values, names, and no trace of the members' order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from guerdon.aggregate import combine, parse_rule, standardise
from guerdon.evaluate.best_of_n import best_of_n
from guerdon.types import ConfigError, Score

NAMES = ("mean", "min", "mean-std:1", "mean-var:0.5", "quantile:0.25")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", 3),
        ("min", 1),
        ("mean-std:2", 3 - 2 * np.sqrt(4.5)),
        ("lcb", 3 - np.sqrt(4.5)),
        ("lcb:2", 3 - 2 * np.sqrt(4.5)),
        ("mean-var:0.5", 3 - 0.5 * 4.5),
        ("quantile:0", 1),
        ("quantile:0.5", 2.5),
    ],
)
def test_values_by_hand(name, expected):
    members = np.array([[4.0, 1.0, 6.0, 1.0]])  # mean 3, population variance (1 + 4 + 9 + 4) / 4
    assert combine(members, parse_rule(name)) == pytest.approx([expected])
    assert np.isnan(combine(np.array([[1.0, np.nan]]), parse_rule(name))).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_members_changes_no_bit_and_no_gold_curve(name):
    rng = np.random.default_rng(0)
    gold = rng.normal(size=600)
    members = np.round(gold[:, None] + rng.normal(size=(600, 7)), 1) / 3  # ties, and sums that round
    starts = np.arange(0, 601, 30)
    n = np.array([1, 4, 16, 30])
    reward = combine(members, parse_rule(name))
    expected = best_of_n(reward, gold, starts, n)
    for _ in range(20):
        shuffled = combine(members[:, rng.permutation(7)], parse_rule(name))
        assert np.array_equal(shuffled, reward)
        assert np.array_equal(best_of_n(shuffled, gold, starts, n), expected)


@pytest.mark.parametrize("name", NAMES)
def test_names_come_back(name):
    assert str(parse_rule(f" {name} ")) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max", "not known; choose one of mean, min"),
        ("min:2", "takes no number"),
        ("mean-std", "needs a number, as in mean-std:0.5"),
        ("mean-var:x", "needs a number"),
        ("mean-std:-1", "must be 0 or more"),
        ("mean-std:nan", "must be 0 or more"),
        ("mean-var:inf", "must be 0 or more"),
        ("quantile:25", "between 0 and 1"),
    ],
)
def test_bad_rules_are_refused_in_one_sentence(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_rule(text)


def test_standardised_members_have_one_scale_in_every_pool():
    rng = np.random.default_rng(1)
    members = rng.normal(size=(20, 3)) * [1, 50, 1e-3] + [0, 3, 900]
    members[15:, 1] = 0.1  # a member that cannot tell the candidates of the last pool apart
    starts = np.array([0, 8, 15, 20])
    z = standardise(members, starts)
    for begin, end in pairwise(starts):
        assert z[begin:end].mean(0) == pytest.approx(np.zeros(3), abs=1e-9)
    assert z[:8].std(0) == pytest.approx(np.ones(3))
    assert z[15:, 1] == pytest.approx(np.zeros(5))
    assert np.allclose(standardise(members * 7 + 2, starts), z, atol=1e-6)


def test_a_score_knows_mean_and_spread_of_its_members():
    score = Score(1.0, members=(1.0, 2.0, 6.0))
    assert (float(score), score.mean) == (1.0, 3.0)
    assert score.std == pytest.approx(np.std([1, 2, 6]))
    assert "±" in repr(score)
    assert Score(2.5).mean == 2.5
    assert np.isnan(Score(2.5).std)
