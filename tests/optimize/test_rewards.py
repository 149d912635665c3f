"""Sums, centring and checked rewards against numbers worked out by hand; a row that cannot be scored never gets one."""

from __future__ import annotations

import json
import math

import pytest
from tiny_models import chat

from guerdon.optimize.final_answer import grade, number
from guerdon.optimize.rewards import Affine, WeightedSum, centred, parts_of
from guerdon.optimize.verifiable import Answer, Format, LabGold, Length, prompt_key
from guerdon.types import ConfigError, DataError, Score, ScoringError


class Fixed:
    """Returns the scores it was given."""

    def __init__(self, *scores: float | Score) -> None:
        self.scores = [score if isinstance(score, Score) else Score(score) for score in scores]

    def score(self, conversations):
        return self.scores


MASKED = Score(0, "masked", reason="left out")
BROKEN = Score(0, "error", reason="too long")
ROWS = [chat("q", "a"), chat("q", "b"), chat("q", "c")]


def test_a_weighted_sum_by_hand_and_its_parts():
    total = WeightedSum({"model": (Fixed(1.0, 2.0, -3.0), 2.0), "length": (Fixed(-4.0, 0.0, -10.0), 0.1)})
    scores = total.score(ROWS)
    assert scores == pytest.approx([1.6, 4.0, -7.0])
    assert [dict(parts_of(score)) for score in scores] == [
        {"model": 1.0, "length": -4.0},
        {"model": 2.0, "length": 0.0},
        {"model": -3.0, "length": -10.0},
    ]
    assert {name: list(map(float, s)) for name, s in total.parts(ROWS).items()} == {
        "model": [1.0, 2.0, -3.0],
        "length": [-4.0, 0.0, -10.0],
    }
    assert total.combine(total.parts(ROWS)) == scores


@pytest.mark.parametrize(("rule", "status"), [("mask", "masked"), ("error", "error")])
def test_a_part_without_a_score_takes_the_whole_row(rule, status):
    total = WeightedSum({"a": (Fixed(1.0, BROKEN, 1.0), 1.0), "b": (Fixed(MASKED, MASKED, 2.0), 1.0)}, rule)
    scores = total.score(ROWS)
    assert [s.status for s in scores] == [status, status, "ok"]
    assert [s.reason for s in scores[:2]] == ["b: left out", "a: too long; b: left out"]
    assert math.isnan(scores[0])
    assert math.isnan(scores[1])
    assert scores[2] == 3.0
    assert parts_of(scores[0])["a"] == 1.0  # what was scored can still be shown


def test_renormalising_by_hand():
    total = WeightedSum({"a": (Fixed(3.0, BROKEN, 3.0), 0.5), "b": (Fixed(5.0, 5.0, MASKED), -1.5)}, "renormalise")
    # Both: 1.5 - 7.5. Only b: -7.5 * 2.0 / 1.5. Only a: 1.5 * 2.0 / 0.5.
    assert total.score(ROWS) == pytest.approx([-6.0, -10.0, 6.0])
    nothing = WeightedSum({"a": (Fixed(BROKEN), 1.0)}, "renormalise").score(ROWS[:1])
    assert nothing[0].status == "masked"


def test_a_part_of_weight_zero_is_only_watched():
    total = WeightedSum({"a": (Fixed(1.0, 2.0, 3.0), 1.0), "b": (Fixed(9.0, BROKEN, MASKED), 0.0)})
    scores = total.score(ROWS)
    assert scores == [1.0, 2.0, 3.0]
    assert parts_of(scores[1])["b"].status == "error"


def test_members_of_one_ensemble_go_through_the_sum():
    ensemble = Fixed(Score(2.0, members=(1.0, 3.0), tokens=7, truncated=True))
    scores = WeightedSum({"model": (ensemble, 0.5), "length": (Fixed(-4.0), 0.25)}).score(ROWS[:1])
    assert scores[0].members == (-0.5, 0.5)
    assert (scores[0].tokens, scores[0].truncated) == (7, True)
    assert scores[0].std == pytest.approx(0.5 * ensemble.scores[0].std)
    assert WeightedSum({"a": (ensemble, 1.0), "b": (ensemble, 1.0)}).score(ROWS[:1])[0].members == ()


def test_sums_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="no part with a weight other than 0"):
        WeightedSum({})
    with pytest.raises(ConfigError, match="'a': the weight is nan"):
        WeightedSum({"a": (Fixed(), math.nan)})
    with pytest.raises(ConfigError, match="choose one of mask, renormalise, error"):
        WeightedSum({"a": (Fixed(), 1.0)}, "zero")
    with pytest.raises(ScoringError, match="'a' returned 1 scores for 3 conversations"):
        WeightedSum({"a": (Fixed(1.0), 1.0)}).score(ROWS)


def test_centring_by_hand_leaves_out_what_has_no_reward():
    scorer = Fixed(1.0, BROKEN, 5.0)
    moved = centred(scorer, ROWS)
    assert (moved.shift, moved.scale) == (3.0, 2.0)
    scores = moved.score(ROWS)
    assert [scores[0], scores[2]] == [-1.0, 1.0]
    assert (scores[1].status, scores[1].reason) == ("error", "too long")
    assert centred(scorer, ROWS, scale=False).score(ROWS)[2] == 2.0


def test_centring_moves_members_and_keeps_parts():
    total = WeightedSum({"model": (Fixed(Score(2.0, members=(1.0, 3.0))), 1.0)})
    score = Affine(total, shift=1.0, scale=2.0).score(ROWS[:1])[0]
    assert (float(score), score.members, dict(parts_of(score))) == (0.5, (0.0, 1.0), {"model": 2.0})


def test_centring_on_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"only 1 of the 3 samples .*\(too long\); at least 2"):
        centred(Fixed(1.0, BROKEN, BROKEN), ROWS)
    with pytest.raises(ConfigError, match=r"all 3 samples .* the reward 1, so it has no scale"):
        centred(Fixed(1.0, 1.0, 1.0), ROWS)
    with pytest.raises(ConfigError, match="divided by 0"):
        Affine(Fixed(), 0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,000", 1000), ("$1000.0", 1000), ("1e3", 1000), ("-3", -3), ("\u22123", -3), ("1/2", 0.5), (r"\frac{1}{2}", 0.5), ("½", 0.5),
     ("50%", 50), (r"50\%", 50), ("7.", 7), (".5", 0.5), ("1,00", None), ("12a", None), ("1/0", None), ("9" * 200, None), ("", None)],
)  # fmt: skip
def test_numbers(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "expected", "right"),
    [
        ("6 * 3 = 18\n#### 18", "18", True),
        ("It costs $1,000.50 in all.", "1000.5", True),
        ("First 18, then 20.", "18", False),  # only the last number counts
        ("18 #### 20", "18", False),  # only what is marked counts
        ("The answer is 18 dollars per day.", "18", True),
        ("Answer: **Paris**", "paris", True),
        ("The answer is Paris. It lies on the Seine.", "Paris", True),
        (r"so \boxed{\frac{1}{2}} and done 7", "0.5", True),
        (r"\boxed{3x+2}", "3", False),
        (r"\boxed{3} no, \boxed{4}", "3", False),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}", True),
        ("I think\n\n(B)", "B", True),
        ("Paris or Rome", "Paris", False),
        ("", "18", False),
        ("version 3.18.2", "18", False),
        ("x18", "18", False),
    ],
)
def test_final_answers(text, expected, right):
    assert grade(text, expected) is right


def test_a_right_answer_a_wrong_one_and_one_that_nobody_knows():
    scorer = Answer({"What is 6 times 3?": "18", "Capital of France?": ["Paris", "paris, france"]})
    rows = [chat("What is 6 times 3? ", "It is 18."), chat("What is 6 times 3?", "17"), chat("Capital of France?", "Paris, France"),
            chat("What is 7 times 3?", "21"), chat("What is 6 times 3?")]  # fmt: skip
    scores = scorer.score([[{"role": "system", "content": "Be brief."}, *row] for row in rows])
    assert [score.status for score in scores] == ["ok", "ok", "ok", "masked", "error"]
    assert scores[:3] == [1.0, 0.0, 1.0]
    assert all(map(math.isnan, scores[3:]))
    assert "no right answer is known" in scores[3].reason


def test_answers_from_a_file(tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [{"prompt": "a", "answer": 18}, {"prompt": chat("a", "b", "c"), "answer": ["x", "y"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = Answer.read(str(path)).score([chat("a", "18.0"), chat("a", "b", "c", "y"), chat("c", "y")])
    assert scores[:2] == [1.0, 1.0]
    assert scores[2].status == "masked"
    assert Answer.read(str(path), whole=True).score([chat("a", "It is 18"), chat("a", "18.0")]) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a"}, r"answers.jsonl:2: has 'prompt'; give 'prompt' and 'answer'"),
        ({"prompt": "a", "answer": None}, r"answers.jsonl:2: 'answer' is null"),
        ({"prompt": "a", "answer": []}, "empty list"),
        ({"prompt": "q", "answer": "2"}, "same prompt stands above with another answer"),
        ({"prompt": "", "answer": "2"}, "no user message"),
    ],
)
def test_files_of_answers_that_cannot_be_used(tmp_path, row, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"prompt": "q", "answer": "1"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=message):
        Answer.read(str(path))


def test_prompts_are_known_by_all_turns_up_to_the_last_user_message():
    assert prompt_key(chat("a", "b", "c", "d")) == (("user", "a"), ("assistant", "b"), ("user", "c"))


def test_the_whole_answer_must_match_the_format():
    scorer = Format(r"<think>.*</think>\S.*")
    rows = [chat("q", "<think>a\nb</think>yes\n"), chat("q", "well <think>a</think>yes"), chat("q")]
    scores = scorer.score(rows)
    assert scores[:2] == [1.0, 0.0]
    assert scores[2].status == "error"
    with pytest.raises(ConfigError, match="is not a regular expression"):
        Format("(")


def test_a_pattern_that_backtracks_for_hours_is_given_up(monkeypatch):
    monkeypatch.setattr("guerdon.optimize.verifiable._MATCH_SECONDS", 0.05)
    score = Format(r"(a|aa|a?b?)+\1+(x+x+)+y").score([chat("q", "a" * 60 + "x" * 60)])[0]
    assert score.status == "error"
    assert "simplify" in score.reason


def test_length_by_hand():
    rows = [chat("q", "one"), chat("q", "one two\nthree"), chat("q", "1 2 3 4 5 6 7"), chat("q", "")]
    assert Length("words", 2, 4).score(rows) == [-1.0, 0.0, -3.0, -2.0]
    in_tokens = Length("tokens", 0, 3, count=len).score(rows)
    assert in_tokens == [0.0, -10.0, -10.0, 0.0]
    assert in_tokens[0].tokens == 3
    assert math.copysign(1, in_tokens[0]) == 1  # not -0.0
    for bad, message in [(("words", 5, 2), "no range"), (("tokens", 0, 2), "needs a tokenizer"), (("lines", 0, 2), "choose words or tokens")]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            Length(*bad)


def test_lab_gold_is_the_gold_of_the_lab():
    from guerdon.lab.gold import gold

    assert LabGold().score([chat("What is a heron?", "A heron is a bird.")]) == [
        gold("What is a heron?", "A heron is a bird.")
    ]
