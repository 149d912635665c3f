"""Agreement counted by hand, found again in simulation, and the ceiling that follows."""

import itertools

import numpy as np
import pytest

from guerdon.evaluate.agreement import rater_agreement
from guerdon.types import Comparison


def judged(prompt, first, second, prefers_first, annotator=None, tie=False):
    def message(role, text):
        return ({"role": role, "content": text},)

    ranks = (1.0, 1.0) if tie else (1.0, 2.0) if prefers_first else (2.0, 1.0)
    answers = (message("assistant", first), message("assistant", second))
    return Comparison(message("user", prompt), answers, ranks, annotator=annotator)


def test_by_hand():
    """20 pairs judged by two who agree, 5 by three of whom one dissents: 20 x 1 and 5 x 1/3, each pair once."""
    rows = [judged(f"q{i}", "a", "b", True, who) for i in range(20) for who in "xy"]
    rows += [judged(f"p{i}", "a", "b", who != "z", who) for i in range(5) for who in "xyz"]
    found = rater_agreement(rows)
    assert found.share == pytest.approx((20 + 5 / 3) / 25)
    assert (found.pairs, found.judgements, found.prompts, found.unnamed) == (25, 55, 25, 0)
    assert found.low < found.share < found.high <= 1


def test_swapped_order_is_the_same_pair_and_ties_are_out():
    rows = [judged(f"q{i}", "a", "b", True, "x") for i in range(30)]
    rows += [judged(f"q{i}", "b", "a", False, "y") for i in range(30)]  # also prefers a
    rows += [judged(f"q{i}", "a", "b", True, "z", tie=True) for i in range(30)]
    found = rater_agreement(rows)
    assert (found.share, found.judgements) == (1, 60)


def test_a_rater_is_not_held_against_himself():
    rows = [judged(f"q{i}", "a", "b", True, "x") for i in range(30) for _ in range(4)]
    assert rater_agreement(rows) is None
    rows += [judged(f"q{i}", "a", "b", False, "y") for i in range(30)]
    assert rater_agreement(rows).share == 0
    assert rater_agreement(rows).ceiling == (0.5, 0.5)


def test_couples_against_a_double_loop():
    rng = np.random.default_rng(0)
    rows, shares = [], []
    for i in range(60):
        votes = [(rng.choice(["x", "y", None]), bool(rng.random() < 0.7)) for _ in range(rng.integers(2, 7))]
        rows += [judged(f"q{i}", "a", "b", first, who) for who, first in votes]
        couples = [
            a[1] == b[1] for a, b in itertools.combinations(votes, 2) if a[0] is None or b[0] is None or a[0] != b[0]
        ]
        shares += [np.mean(couples)] if couples else []
    assert rater_agreement(rows).share == pytest.approx(np.mean(shares))


def test_judged_once_or_too_rarely_is_no_estimate():
    assert rater_agreement([judged(f"q{i}", "a", "b", True) for i in range(100)]) is None
    assert rater_agreement([judged(f"q{i}", "a", "b", True) for i in range(19) for _ in range(2)]) is None
    assert rater_agreement([]) is None


def test_the_ceiling_holds_the_best_model():
    """Raters err with 20 %: agreement .68, and the best model is right on 80 % of labels, the upper end."""
    rng = np.random.default_rng(1)
    rows = [judged(f"q{i}", "a", "b", bool(rng.random() > 0.2)) for i in range(4000) for _ in range(2)]
    found = rater_agreement(rows)
    assert found.share == pytest.approx(0.68, abs=0.02)
    assert found.ceiling[1] == pytest.approx(0.8, abs=0.02)
    assert found.ceiling_limits[0] < found.ceiling[0] < 0.8 < found.ceiling_limits[1]
    assert found.unnamed == 8000


def test_the_interval_covers_the_true_agreement():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        firsts = rng.random((60, 3)) > 0.2
        rows = [judged(f"q{i}", "a", "b", bool(first)) for i, row in enumerate(firsts) for first in row]
        found = rater_agreement(rows, resamples=400)
        covered += found.low <= 0.68 <= found.high
    assert 0.90 <= covered / 200 <= 0.995
