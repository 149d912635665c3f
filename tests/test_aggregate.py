"""Rules that make one reward of an ensemble's, against numpy and against the order of the members."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.aggregate import parse_rule
from guerdon.types import ConfigError, Score

MEMBERS = np.random.default_rng(0).normal(size=(50, 5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean", MEMBERS.mean(1)),
        ("min", MEMBERS.min(1)),
        ("mean-std:1.5", MEMBERS.mean(1) - 1.5 * MEMBERS.std(1)),
        ("mean-var:0.5", MEMBERS.mean(1) - 0.5 * MEMBERS.var(1)),
        ("quantile:0.25", np.quantile(MEMBERS, 0.25, axis=1)),
        ("quantile:0", MEMBERS.min(1)),
    ],
)
def test_rules_equal_their_formula_in_any_order_of_members(text, expected):
    rule = parse_rule(text)
    assert str(rule) == text
    np.testing.assert_allclose(rule(MEMBERS), expected, atol=1e-14)
    np.testing.assert_array_equal(rule(MEMBERS), rule(MEMBERS[:, [3, 0, 4, 1, 2]]))


@pytest.mark.parametrize(
    "text", ["", "max", "mean:1", "mean-std", "mean-std:", "mean-std:x", "quantile:2", "mean-std:-1"]
)
def test_other_spellings_are_refused_with_the_right_ones(text):
    with pytest.raises(ConfigError, match=r"mean|quantile"):
        parse_rule(text)


def test_a_score_knows_mean_and_spread_of_its_members():
    score = Score(1.0, members=(1.0, 2.0, 6.0))
    assert (float(score), score.mean) == (1.0, 3.0)
    assert score.std == pytest.approx(np.std([1, 2, 6]))
    assert "±" in repr(score)
    assert Score(2.5).mean == 2.5
    assert np.isnan(Score(2.5).std)
