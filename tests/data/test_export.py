"""Every format: read back the same, or refused with the reason."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guerdon.data.containers import Row, stream
from guerdon.data.export import JUDGED, LABELLED, _normal, export
from guerdon.data.foreign import argilla, label_studio, lmarena
from guerdon.data.formats import recognise
from guerdon.data.labels import current, labels_of
from guerdon.data.read import load, read, read_judgements
from guerdon.types import ConfigError, DataError, Judgement
from tests.data.study import judgements, said
from tests.data.test_judgements import THREE, judged

loose = settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)


@loose
@given(st.lists(judgements(2), min_size=1, max_size=3, unique_by=lambda j: j.id))
@pytest.mark.parametrize("format", JUDGED)
def test_judgements_come_back(tmp_path: Path, format: str, given: list[Judgement]) -> None:
    done = export(given, tmp_path / "out.jsonl", format, skip_unsupported=True)
    if not done.rows:  # nothing here that the format can hold
        return
    rows = list(stream(tmp_path / "out.jsonl"))
    assert recognise(rows[:1]) == format
    from guerdon.data.formats import FORMATS

    back = {repr(judgement) for row in rows for judgement in FORMATS[format].judge(row.data)}
    assert back <= set(map(repr, given))
    expected = given if format == "judgements" else current(given)
    if not done.skipped:
        assert back == set(map(repr, expected))


@pytest.mark.parametrize("format", JUDGED)
def test_the_judgements_of_a_file_are_read_in_any_format(tmp_path: Path, format: str) -> None:
    given = [judged("a"), judged("b", "s", (1.0, 0.0))]
    export(given, tmp_path / "out.jsonl", format)
    assert list(map(repr, read_judgements(tmp_path / "out.jsonl"))) == list(map(repr, given))


@loose
@given(st.lists(judgements(3), min_size=1, max_size=3, unique_by=lambda j: j.id))
@pytest.mark.parametrize("format", LABELLED)
def test_labels_come_back(tmp_path: Path, format: str, given: list[Judgement]) -> None:
    made = labels_of(given, raters="both").comparisons
    done = export(
        given, tmp_path / "out.jsonl", format, raters="both", skip_unsupported=True, drop=("strength", "annotator")
    )
    assert done.rows + sum(done.skipped.values()) == len(made)
    if not done.rows:  # nothing here that the format can hold
        return
    ours = [_normal(c if format != "openai" else replace(c, strength=None)) for c in made]
    reader = read(tmp_path / "out.jsonl", format=format)
    for back in reader:
        assert _normal(back) in ours
        if format != "openai":
            assert (back.id, back.annotator) in {(c.id, c.annotator) for c in made}


REFUSED = {
    "hh": (judged("t", ranks=(0.0, 0.0)), "t is a tie, and HH can only say chosen and rejected"),
    "trl": (judged("k", ranks=(0.0, 1.0, 2.0), question=THREE), "k ranks 3 answers, and TRL holds pairs"),
    "helpsteer3": (judged("s"), "s has no strength, and HelpSteer3 says how much better by 1, 2 or 3"),
    "openai": (
        judged("o", strength=2.0),
        "o has a strength, and openai has no place for one; leave it behind with --drop",
    ),
    "lmarena": (judged("l", ranks=(), answer="skip"), "judgement l is a skip, and LMArena holds votes only"),
    "label-studio": (judged("q", ranks=(0.0, 1.0, 2.0), question=THREE), "question q3 asks about 3 answers"),
    "argilla": (judged("a", ranks=(0.0, 1.0, 1.0), question=THREE), "question q3 ties some of its answers but not all"),
}


@pytest.mark.parametrize("format", REFUSED)
def test_refusals_name_the_reason_and_leave_no_file(tmp_path: Path, format: str) -> None:
    given, reason = REFUSED[format]
    with pytest.raises(DataError, match=reason):
        export([given], tmp_path / "out.jsonl", format)
    assert not list(tmp_path.iterdir())
    done = export(
        [given, judged("x", strength=1.0, rater="x1")],
        tmp_path / "o.jsonl",
        format,
        skip_unsupported=True,
        drop=["strength", "annotator"] if format == "openai" else [],
    )
    assert done.rows + sum(done.skipped.values()) == 2


def test_helpsteer3_is_negative_where_the_first_is_better(tmp_path: Path) -> None:
    export([judged("a", strength=2.0, rationale="clear")], tmp_path / "o.jsonl", "helpsteer3")
    row = json.loads((tmp_path / "o.jsonl").read_text())
    assert row["overall_preference"] == -2
    assert row["individual_preference"] == [{"score": -2, "reasoning": "clear"}]
    assert row["judgements"] == ["a"]
    mean = [judged("a", "r", strength=2.0), judged("b", "s", strength=1.0)]
    with pytest.raises(DataError, match=r"q1 has strength 1\.5"):
        export(mean, tmp_path / "o.jsonl", "helpsteer3", labels="majority")
    export(mean, tmp_path / "o.jsonl", "helpsteer3", labels="majority", round_strength=True)
    assert json.loads((tmp_path / "o.jsonl").read_text())["overall_preference"] == -2


def test_lmarena_shows_sides_as_they_were_shown() -> None:
    row = lmarena.to_row(replace(judged("v"), order=(1, 0)))
    assert (row["model_a"], row["winner"], row["conversation_a"][-1]["content"]) == ("m2", "model_b", "y")
    row["winner"] = "model_a"
    with pytest.raises(DataError, match="'winner' is 'model_a' but the 'guerdon' part says 'model_b'"):
        lmarena.judge(row)


def test_foreign_lmarena_row() -> None:
    chat = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "x"}]
    row = {"question_id": "7", "model_a": "a", "model_b": "b", "winner": "tie (bothbad)", "judge": "u",
           "conversation_a": json.dumps(chat), "conversation_b": json.dumps([chat[0], {"role": "assistant", "content": "y"}])}  # fmt: skip
    (found,) = lmarena.judge(row)
    assert (found.answer, found.rater, found.question.prompt) == ("all_bad", "u", said("p", "user"))
    assert lmarena.judge(row | {"winner": "model_b"})[0].ranks == (1.0, 0.0)


def test_foreign_label_studio_rows() -> None:
    def pick(side: str, names: str) -> dict:
        return {"type": "pairwise", "from_name": "pw", "to_name": names, "value": {"selected": side}}

    task = {
        "id": 4, "data": {"prompt": "p", "answer1": "x", "answer2": "y"},
        "annotations": [
            {"id": 1, "completed_by": 9, "created_at": "2024-03-29T05:39:54Z", "lead_time": 37.5, "result": [pick("left", "answer1,answer2")]},
            {"id": 2, "completed_by": {"email": "a@b.c"}, "result": [pick("left", "answer2,answer1")]},
            {"id": 3, "completed_by": 9, "was_cancelled": True, "result": []},
        ],
    }  # fmt: skip
    found = label_studio.judge(task)
    assert [(j.rater, j.answer, j.ranks) for j in found] == [
        ("9", "ranked", (0.0, 1.0)), ("a@b.c", "ranked", (1.0, 0.0)), ("9", "skip", ()),
    ]  # fmt: skip
    assert found[0].submitted_at - found[0].shown_at == pytest.approx(37.5)
    flat = {
        "id": 4,
        "prompt": "p",
        "answer1": "x",
        "answer2": "y",
        "comparison": "right",
        "annotator": 2,
        "annotation_id": 5,
        "lead_time": 3.0,
    }
    assert recognise([Row("f", 1, flat)]) == "label-studio"
    assert label_studio.judge(flat)[0].ranks == (1.0, 0.0)


def test_foreign_argilla_records() -> None:
    fields = {"instruction": "p", "response_1": "x", "response_2": "y"}
    nested = {
        "id": "r",
        "fields": fields,
        "responses": {"rank": [{"value": ["response_2", "response_1"], "user_id": "u"}]},
    }
    assert argilla.judge(nested)[0].ranks == (2.0, 1.0)
    flat = {"id": "r", **fields, "rank.responses": [[{"value": "response_1", "rank": 1}, {"value": "response_2", "rank": 1}]],
            "rank.responses.users": ["u"], "rank.responses.status": ["submitted"]}  # fmt: skip
    (tie,) = argilla.judge(flat)
    assert (tie.ranks, tie.rater, tie.question.prompt) == ((1.0, 1.0), "u", said("p", "user"))


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown format 'csv'"):
        export([], tmp_path / "o", "csv")
    with pytest.raises(ConfigError, match="holds judgements, not labels"):
        export([], tmp_path / "o", "argilla", labels="majority")


def test_rankings_as_pairs(tmp_path: Path) -> None:
    export([judged("k", ranks=(2.0, 0.0, 1.0), question=THREE)], tmp_path / "o.jsonl", "trl", pairs=True)
    assert [(c.id, c.completions[0][0]["content"]) for c in load(tmp_path / "o.jsonl").comparisons] == [
        ("k 0:1", "y"), ("k 0:2", "z"), ("k 1:2", "y"),
    ]  # fmt: skip
