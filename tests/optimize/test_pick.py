"""Choosing among candidates: hand-computed picks, margins and votes."""

from __future__ import annotations

import math

import pytest

from guerdon.optimize.final_answer import canonical
from guerdon.optimize.pick import Picking, Vote
from guerdon.types import ConfigError

NAN = math.nan
TEXTS = ["The answer is 4.", "So 2 + 2 gives #### 4.0", "The answer is 5", "I do not know"]


def test_best_takes_the_highest_score_and_never_one_without():
    pick = Picking().pick(["a", "b", "c"], [1.0, NAN, 3.0])
    assert (pick.index, pick.value, pick.margin) == (2, 3.0, 2.0)
    assert Picking().pick(["a", "b"], [-5.0, NAN]).index == 0  # a failure is not worth 0, which would have won
    nothing = Picking().pick(["a", "b"], [NAN, NAN])
    assert (nothing.index, nothing.votes) == (None, ())


def test_margin_is_to_the_best_different_text_and_the_first_of_equals_wins():
    pick = Picking().pick(["a", "a", "b"], [2.0, 2.0, 0.5])
    assert (pick.index, pick.margin) == (0, 1.5)
    assert math.isnan(Picking().pick(["a", "a"], [1.0, 1.0]).margin)
    assert Picking().pick(["a", "b"], [1.0, 1.0]).margin == 0


def test_penalties_change_the_value_by_words_and_nats():
    picking = Picking(length_penalty=0.5, logprob_weight=0.1)
    values = picking.values(["one two three", "one"], [3.0, 2.5], [-10.0, -20.0])
    assert values == pytest.approx([3.0 - 1.5 - 1.0, 2.5 - 0.5 - 2.0])
    assert Picking(length_penalty=0.5).pick(["one two three", "one"], [1.5, 2.0]).index == 1
    assert math.isnan(picking.values(["x"], [NAN], [-1.0])[0])


def test_majority_counts_final_answers_also_of_candidates_without_a_score():
    pick = Picking("majority").pick(TEXTS, [NAN, 0.1, 9.0, 1.0])
    assert pick.votes == (Vote("4", 2, pytest.approx(2 / 3)), Vote("5", 1, pytest.approx(1 / 3)))
    assert pick.index == 1  # of the two that say 4, the one with a score
    assert pick.margin == pytest.approx(1 / 3)
    assert Picking("majority").pick(["a b", ""], [NAN, NAN]).index is None


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ("exp", {"4": math.exp(1) + math.exp(0.5), "5": math.exp(2)}),
        ("sigmoid", {"4": 1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(-0.5)), "5": 1 / (1 + math.exp(-2))}),
        ("raw", {"4": 1.5, "5": 2.0}),
    ],
)
def test_weighted_votes_are_sums_over_candidates(weights, shares):
    pick = Picking("weighted", weights=weights).pick(TEXTS, [1.0, 0.5, 2.0, 9.0])
    total = sum(shares.values())
    assert {vote.answer: vote.share for vote in pick.votes} == pytest.approx({k: v / total for k, v in shares.items()})
    assert pick.votes[0].answer == max(shares, key=shares.__getitem__)
    assert TEXTS[pick.index] in TEXTS[:2] if pick.votes[0].answer == "4" else pick.index == 2


def test_a_shift_of_all_rewards_changes_exp_votes_not_at_all_and_raw_ones_it_does():
    scores = [1.0, 0.5, 2.0, 9.0]
    moved = [score + 100 for score in scores]
    before, after = (Picking("weighted").pick(TEXTS, values) for values in (scores, moved))
    assert [v.share for v in before.votes] == pytest.approx([v.share for v in after.votes])
    raw = Picking("weighted", weights="raw")
    assert [v.answer for v in raw.pick(TEXTS, scores).votes] == ["5", "4"]
    assert [v.answer for v in raw.pick(TEXTS, moved).votes] == ["4", "5"]


def test_weighted_voting_leaves_out_what_has_no_score():
    pick = Picking("weighted").pick(TEXTS, [NAN, NAN, 0.0, 0.0])
    assert pick.votes == (Vote("5", 1, 1.0),)


def test_canonical_answers():
    same = ["The answer is 1,000.", "#### 1000.0", "we get \\boxed{1e3}", "It is $1000 in all"]
    assert {canonical(text, True) for text in same} == {"1000"}
    assert canonical("The answer is Paris. It is big", False) == canonical("answer: **paris**", False) == "paris"
    assert canonical("no number here", True) is None
    assert canonical("", False) is None
    assert canonical("1/2", True) == canonical("0.5", True) == "1/2"


def test_bad_options():
    with pytest.raises(ConfigError, match="--scale"):
        Picking(scale=0)
    with pytest.raises(ConfigError, match="finite"):
        Picking(length_penalty=math.inf)
