"""Rows to score: every accepted shape by hand, and problems that leave the other rows alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from guerdon.data.rows import load_prompts, stream_conversations
from guerdon.types import DataError

DATA = Path(__file__).parents[2].parent / "shared" / "data"
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}
OTHER = {"role": "assistant", "content": "y"}


def rows_of(tmp_path: Path, *rows: dict[str, Any]) -> list[Any]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(stream_conversations(path))


SHAPES = [
    ({"prompt": "q", "completion": "x"}, [[USER, ANSWER]]),
    ({"prompt": "q", "response": "x"}, [[USER, ANSWER]]),
    ({"prompt": "q", "completion": ""}, [[USER, ANSWER | {"content": ""}]]),
    ({"prompt": [USER], "completion": [ANSWER]}, [[USER, ANSWER]]),
    ({"prompt": [USER], "completion": [USER, ANSWER]}, [[USER, ANSWER]]),
    ({"prompt": "q", "completions": ["x", [OTHER]]}, [[USER, ANSWER], [USER, OTHER]]),
    ({"prompt": "q", "responses": ["x"], "score": 1}, [[USER, ANSWER]]),
    ({"prompt": "q", "completions": ["x", "x"], "ranks": [0, 1]}, [[USER, ANSWER], [USER, ANSWER]]),
    ({"prompt": "\n\nHuman: q\n\nAssistant:", "completion": "x"}, [[USER, ANSWER]]),
    ({"completion": "x"}, [[ANSWER]]),
    ({"messages": [USER, ANSWER]}, [[USER, ANSWER]]),
    ({"conversation": "\n\nHuman: q\n\nAssistant: x"}, [[USER, ANSWER]]),
    ({"prompt": "q", "chosen": "x", "rejected": "y"}, [[USER, ANSWER], [USER, OTHER]]),
    ({"prompt": "q", "chosen": "x", "rejected": "x", "margin": "bad"}, [[USER, ANSWER], [USER, ANSWER]]),
    (
        {"chosen": "\n\nHuman: q\n\nAssistant: x", "rejected": "\n\nHuman: q\n\nAssistant: y"},
        [[USER, ANSWER], [USER, OTHER]],
    ),
    (
        {"context": "q", "completions": [{"rank": 1, "completion": "x"}, {"rank": 0, "completion": "y"}]},
        [[USER, ANSWER], [USER, OTHER]],
    ),
]


@pytest.mark.parametrize(("row", "expected"), SHAPES)
def test_shapes(tmp_path: Path, row: dict[str, Any], expected: list[Any]) -> None:
    (found,) = rows_of(tmp_path, row)
    assert (found.index, found.raw, found.problem) == (0, row, None)
    assert [list(conversation) for conversation in found.conversations] == expected


PROBLEMS = [
    ({"question": "q"}, "nothing to score in the columns 'question'; give prompt with completion"),
    ({"prompt": "q"}, "nothing to score"),
    ({"prompt": "q", "completion": None}, "nothing to score"),
    ({"prompt": "q", "completion": 3}, "'completion' is a number; write a list of messages"),
    ({"prompt": "q", "completions": []}, "'completions' is an empty list; write a list of completions"),
    ({"prompt": "q", "completions": "x"}, "'completions' is text; write a list of completions"),
    ({"prompt": "q", "completions": ["x", None]}, "'completions' is null"),
    ({"prompt": 5, "completion": "x"}, "'prompt' is a number"),
    ({"messages": []}, "'messages' holds an empty message list"),
    ({"messages": [{"role": "bot", "content": "x"}]}, "'messages[0]' has the role 'bot'"),
    ({"prompt": json.dumps([USER]), "completion": "x"}, "stored as a string"),
    ({"chosen": "x"}, "nothing to score in the columns 'chosen'"),
]


@pytest.mark.parametrize(("row", "problem"), PROBLEMS)
def test_a_problem_stays_in_its_row(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    good = {"prompt": "q", "completion": "x"}
    found = rows_of(tmp_path, good, row, good)
    assert [(r.index, len(r.conversations), r.problem is None) for r in found] == [
        (0, 1, True),
        (1, 0, False),
        (2, 1, True),
    ]
    assert found[1].problem.startswith(problem) or problem in found[1].problem


def test_unreadable_file_raises(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "completion": "x"}\n{"prompt"\n')
    rows = stream_conversations(path)
    assert next(rows).problem is None
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not valid JSON"):
        next(rows)


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared preference data beside the checkout")
def test_real_preference_rows_score_both_sides() -> None:
    rows = list(stream_conversations(DATA / "hh-rlhf" / "harmless-base" / "test.jsonl.gz"))
    assert [row.index for row in rows] == list(range(265))
    assert {len(row.conversations) for row in rows} == {2}
    assert all(
        row.conversations[0][-1]["content"] == row.raw["chosen"].rpartition("Assistant:")[2].strip() for row in rows
    )


def test_rows_without_a_prompt_are_told_what_a_prompt_is(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"question": "b"}\n')
    with pytest.raises(
        DataError, match=r"p.jsonl.*2: no prompt in the columns 'question'; give prompt, messages, or a row"
    ):
        load_prompts([tmp_path / "p.jsonl"])
