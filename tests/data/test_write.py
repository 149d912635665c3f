"""What is written is read back exactly; a file that cannot be finished does not appear."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guerdon.data.read import read
from guerdon.data.write import write_jsonl
from guerdon.types import Comparison, ConfigError, DataError, Message

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
answers = texts.filter(str.strip)


def messages(last: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Message, ...]]:
    role = st.sampled_from(["system", "user", "assistant", "tool"])
    before = st.lists(st.builds(Message, role=role, content=texts), max_size=2)
    return st.builds(lambda head, tail: (*head, tail), before, st.builds(Message, role=role, content=last))


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    completions = draw(st.lists(messages(answers), min_size=2, max_size=4, unique_by=json.dumps))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    return Comparison(
        prompt=draw(st.one_of(st.just(()), messages(texts))),
        completions=tuple(completions),
        ranks=tuple(draw(st.lists(finite, min_size=len(completions), max_size=len(completions)))),
        strength=draw(st.none() | finite),
        annotator=draw(st.none() | texts),
        weight=draw(st.floats(0, 1e9)),
        source=draw(texts),
        id=draw(texts),
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(comparisons(), min_size=1, max_size=4))
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_round_trip(tmp_path: Path, name: str, given: list[Comparison]) -> None:
    assert write_jsonl(tmp_path / name, given) == len(given)
    assert list(read(tmp_path / name)) == given


PAIR = Comparison(
    (Message(role="user", content="q"),),
    ((Message(role="assistant", content="x"),), (Message(role="assistant", content="y"),)),
    (0, 1),
    source="s",
    id="i",
)


def test_plain_rows_look_plain(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [PAIR])
    expected = {"prompt": "q", "completions": ["x", "y"], "ranks": [0, 1], "source": "s", "id": "i"}
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == expected


def test_text_that_looks_like_a_message_list_survives(tmp_path: Path) -> None:
    odd = replace(PAIR, prompt=(Message(role="user", content='[{"role": "user", "content": "a"}]'),))
    write_jsonl(tmp_path / "rows.jsonl", [odd])
    assert list(read(tmp_path / "rows.jsonl")) == [odd]


def test_same_comparisons_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_jsonl(tmp_path / name, [PAIR])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert (tmp_path / "a.jsonl.gz").read_bytes()[3:8] == bytes(5)  # no flags (so no name) and no time
    assert json.loads(gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()))["id"] == "i"


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (replace(PAIR, strength=math.nan, id="row 2"), "a number that is not finite"),
        (replace(PAIR, prompt=(Message(role="user", content="\ud800"),), id="row 2"), "half a surrogate pair"),
    ],
)
def test_nothing_half_written(tmp_path: Path, bad: Comparison, cause: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("before")
    with pytest.raises(DataError, match=rf"^row 2: holds {cause}, which cannot be written; remove it$"):
        write_jsonl(path, [PAIR, bad])
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_text() == "before"


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written \((File exists|Not a directory)\); check folder"):
        write_jsonl(tmp_path / "file" / "rows.jsonl", [PAIR])
