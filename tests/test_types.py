"""The nouns: pairs of a ranking, scores that are floats but never invented."""

from __future__ import annotations

import math
import pickle

import pytest

from guerdon.types import Comparison, DataError, Score


def ranking(*ranks: float, **more) -> Comparison:
    answers = tuple(({"role": "assistant", "content": str(i)},) for i in range(len(ranks)))
    return Comparison(({"role": "user", "content": "q"},), answers, ranks, **more)


def test_pairs_of_a_ranking_with_ties_by_hand():
    pairs = list(ranking(2, 1, 2, weight=3.0).pairs())
    assert [(p.chosen, p.rejected, p.target, p.weight) for p in pairs] == [
        (1, 0, 1.0, 1.0),
        (0, 2, 0.5, 1.0),
        (1, 2, 1.0, 1.0),
    ]


@pytest.mark.parametrize("k", [2, 3, 7])
def test_pair_weights_of_one_comparison_sum_to_its_weight(k):
    assert sum(pair.weight for pair in ranking(*range(k), weight=2.5).pairs()) == pytest.approx(2.5)


def test_a_comparison_that_holds_no_preference_is_refused():
    with pytest.raises(DataError, match="at least 2 completions"):
        ranking(1)
    with pytest.raises(DataError, match="2 completions but 3 ranks"):
        Comparison((), ranking(1, 2).completions, (1, 2, 3))
    with pytest.raises(DataError, match="finite"):
        ranking(1, math.nan)


def test_a_score_is_a_float_that_knows_how_it_came_about():
    score = Score(1.5, tokens=7, truncated=True)
    assert (score + 1, score.status, score.tokens, score.truncated) == (2.5, "ok", 7, True)


@pytest.mark.parametrize("status", ["masked", "error"])
def test_what_was_not_scored_is_nan_whatever_the_value(status):
    score = Score(0.0, status, reason="because")
    assert math.isnan(score)
    assert (score.status, score.reason) == (status, "because")


def test_a_model_that_returns_nan_is_an_error_and_not_ok():
    assert Score(math.inf).status == "error"
    assert "returned inf" in Score(math.inf).reason


def test_scores_survive_the_trip_between_processes():
    for score in (Score(1.5, tokens=3), Score(0.0, "masked", reason="r")):
        copy = pickle.loads(pickle.dumps(score))
        assert (copy.status, copy.tokens, copy.reason) == (score.status, score.tokens, score.reason)
        assert float(copy) == float(score) or math.isnan(copy)
