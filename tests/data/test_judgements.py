"""Judgement files are read back exactly, and become labels as the page says."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guerdon.data.check import check
from guerdon.data.judgements import write_judgements
from guerdon.data.labels import labels_of
from guerdon.data.read import load, read, read_judgements
from guerdon.data.rows import stream_conversations
from guerdon.types import Comparison, DataError, Judgement, Question
from tests.data.study import judgements, said

loose = settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
ASKED = Question(said("p", "user"), (said("x"), said("y")), ("m1", "m2"), "s", "q1")
THREE = Question(said("p", "user"), (said("x"), said("y"), said("z")), id="q3")


def judged(
    id: str, rater: str = "r", ranks: tuple[float, ...] = (0.0, 1.0), question: Question = ASKED, **more
) -> Judgement:
    return Judgement(id, rater, more.pop("kind", "human"), question, tuple(range(len(ranks or question.completions))),
                     more.pop("answer", "ranked"), ranks, **more)  # fmt: skip


@loose
@given(st.lists(judgements(), min_size=1, max_size=4))
@pytest.mark.parametrize("name", ["j.jsonl", "j.jsonl.gz"])
def test_round_trip(tmp_path: Path, name: str, given: list[Judgement]) -> None:
    assert write_judgements(tmp_path / name, given) == len(given)
    assert list(map(repr, read_judgements(tmp_path / name))) == list(map(repr, given))  # repr: NaN is not NaN


def test_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="judgement b: holds a number that is not finite"):
        write_judgements(tmp_path / "j.jsonl", [judged("a"), judged("b", strength=math.inf)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"judgement": "a", "rater": "r", "answer": "ranked"}, "is no judgement"),
        ({"judgement": "a", "rater": "r", "answer": "won", "question": {"completions": ["x", "y"]}}, "'answer' is 'won'"),
        ({"judgement": "a", "rater": "r", "answer": "skip", "question": {"completions": ["x"]}}, "fewer than two answers"),
        ({"judgement": "a", "rater": "r", "answer": "ranked", "question": {"completions": ["x", "y"]}}, "needs 2 finite ranks"),
    ],
)  # fmt: skip
def test_bad_rows_say_where(tmp_path: Path, row: dict, what: str) -> None:
    (tmp_path / "j.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"j\.jsonl:1: .*{what}"):
        list(read_judgements(tmp_path / "j.jsonl"))


def test_what_is_left_out_is_counted() -> None:
    given = [
        judged("a"), judged("b", "s", replaces="a"), judged("b", "s"), judged("c", kind="model"), judged("d", arm="gold"),
        judged("e", ranks=(), answer="skip"), judged("f", ranks=(), answer="all_bad"),
    ]  # fmt: skip
    found = labels_of(given)
    assert [label.judgements for label in found.labels] == [("b",)]
    assert found.left_out == {
        "replaced": 1, "delivered twice": 1, "judged by a model": 1, "gold item": 1, "skip": 1, "all bad": 1,
    }  # fmt: skip
    assert [c.annotator for c in labels_of(given, raters="model").comparisons] == ["r"]


def test_majority() -> None:
    votes = [
        judged("1", "a"),
        judged("2", "b"),
        judged("3", "c", (1.0, 0.0), strength=1.0),
        judged("4", "c", (1.0, 0.0), arm="repeat"),
    ]
    (label,) = labels_of(votes, "majority").labels
    assert label.comparison.ranks == (0.0, 1.0)  # the repeat of c is no second vote
    assert label.judgements == ("1", "2", "3", "4")
    assert label.comparison.strength == 0.0  # the one strength given was for the other side
    assert labels_of(votes[1:], "majority").comparisons[0].ranks == (0.0, 0.0)
    three = [judged("1", "a", (0, 1, 2), THREE), judged("2", "b", (0, 2, 1), THREE), judged("3", "c", (1, 0, 2), THREE)]
    assert labels_of(three, "majority").comparisons[0].ranks == (0.0, 1.0, 2.0)  # mean ranks 4/3, 2, 8/3


def test_the_edited_winner() -> None:
    edit = judged("1", ranks=(1.0, 0.0), edited="better y")
    (raw,) = labels_of([edit]).comparisons
    assert raw.completions == (said("x"), said("y"), said("better y"))
    assert raw.ranks == (1.0, 0.0, -1.0)
    _, own = labels_of([edit, judged("2", "s")], "majority").comparisons
    assert (own.completions, own.ranks) == ((said("better y"), said("y")), (0.0, 1.0))
    assert len(labels_of([replace(edit, edited="x")]).comparisons[0].completions) == 2  # equals a candidate


def test_soft_labels_agree_with_their_ranks_and_the_loss_sees_them() -> None:
    votes = [judged(f"{q} {r}", r, (0.0, 1.0) if r != "c" else (1.0, 0.0), replace(ASKED, prompt=said(f"p{q}", "user")))
             for q in range(30) for r in "abc"]  # fmt: skip
    for comparison in labels_of(votes, "soft").comparisons:
        (pair,) = comparison.pairs()
        assert 0.5 < pair.target < 1
        assert (pair.chosen, pair.target) == (0, comparison.probabilities[0])
    turned = Comparison((), (said("x"), said("y")), (1.0, 0.0), probabilities=(0.2,))
    assert [(p.chosen, p.target) for p in turned.pairs()] == [(1, 0.8)]
    with pytest.raises(DataError, match="does not fit their ranks"):
        Comparison((), (said("x"), said("y")), (0.0, 1.0), probabilities=(0.2,))


def test_check_and_load_take_judgements(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl.gz"
    write_judgements(path, [judged("a"), judged("b", "s"), judged("c", ranks=(), answer="flag", rationale="why")])
    found = check(path)
    assert (found.format, found.rows, found.comparisons, found.dropped) == ("judgements", 3, 2, {"flag": 1})
    assert [c.id for c in load(path).comparisons] == ["a", "b"]
    assert [c.id for c in read(path, labels="majority")] == ["q1"]
    assert [len(row.conversations) for row in stream_conversations(path)] == [2, 2, 2]  # also what was flagged
