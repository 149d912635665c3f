"""Items, score files and the aligned arrays that every rule stands on."""

import json
import math

import numpy as np
import pytest

from guerdon.evaluate.benchmarks.item import make_item, matrix, number, rows_with, score_rows, sheet
from guerdon.types import DataError


def items(*correct):
    return [
        make_item(f"i{n}", "c", f"question {n}", ["x" * (k + 1) for k in range(len(marks))], marks)
        for n, marks in enumerate(correct)
    ]


def test_an_item_knows_lengths_conversations_and_its_prompt():
    a = make_item("1", "c", "What is it?", ["one", "three"], [True, False])
    b = make_item("2", "c", "what is  IT", [[{"role": "assistant", "content": "ab"}]], [True])
    assert a.chars == (3, 5)
    assert b.chars == (2,)
    assert a.group == b.group != make_item("3", "c", "What was it?", ["x"], [True]).group
    assert a.conversations()[1] == (
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "three"},
    )
    with pytest.raises(DataError, match="answer"):
        make_item("1", "c", "q", [3], [True])


def test_wins_are_strict_and_need_every_right_above_every_wrong():
    three = items([True, False], [True, False], [True, False, True], [False, True, True])
    s = sheet(three, matrix(three, [[2, 1], [1, 1], [3, 2, 1], [0, 1, 2]]))
    assert s.wins.tolist() == [1, 0, 0, 1]
    assert s.ties == 1
    assert s.worst_right.tolist() == [2, 1, 1, 1]
    assert s.best_right.tolist() == [2, 1, 3, 2]
    assert s.best_wrong.tolist() == [1, 1, 2, 0]


def test_items_without_a_score_are_left_out_and_counted():
    two = items([True, False, False], [True, False])
    s = sheet(two, matrix(two, [[1, math.nan, 0], [1, 0]]))
    assert ([item.id for item in s.items], s.unscored, s.prompts) == (["i1"], 1, 1)
    with pytest.raises(ValueError, match="i0: 3 candidates but 2 scores"):
        matrix(two, [[1, 0], [1, 0]])


def test_files_of_a_folder_without_the_columns_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "chosen": "c"}\n')
    (tmp_path / "b.jsonl").write_text('{"score": 1}\n')
    assert [row.data["prompt"] for row in rows_with(tmp_path, ("prompt", "chosen"))] == ["p"]
    with pytest.raises(DataError, match="no file here has rows with question"):
        rows_with(tmp_path, ("question",))
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "chosen": "c"}\n{"prompt": "p"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: no column 'chosen'"):
        rows_with(tmp_path / "a.jsonl", ("prompt", "chosen"))


def test_an_object_of_columns_is_rows(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"id": [1, 2], "scores": [[1.0], [2.0]], "model": "m"}))
    assert [row.data for row in score_rows(path)] == [
        {"id": 1, "scores": [1.0], "model": "m"},
        {"id": 2, "scores": [2.0], "model": "m"},
    ]


def test_a_score_is_a_number_or_absent():
    assert number([[0.5]], "f:1") == 0.5
    assert np.isnan(number(None, "f:1"))
    for bad in ("1.0", True, [1, 2]):
        with pytest.raises(DataError, match="f:1: a score is"):
            number(bad, "f:1")
