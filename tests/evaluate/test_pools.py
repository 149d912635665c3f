"""Pools are read from every layout that exists, and what is missing is counted or refused with file and row."""

from __future__ import annotations

import json

import numpy as np
import pytest

from guerdon.data.rows import stream_conversations
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.pools import read_pool
from guerdon.evaluate.score_file import score_file
from guerdon.types import DataError, Score

FLAT = [
    {"prompt_id": "a", "completion_id": 0, "score": 1.0, "gold": 0.5, "prompt": "Why?", "text": "So."},
    {"prompt_id": "b", "completion_id": 0, "score": 3, "gold": 0.1, "text": "Because."},
    {"prompt_id": "a", "completion_id": 1, "score": None, "gold": 0.5, "text": "Yes."},
    {"prompt_id": "a", "completion_id": 2, "score": 2.0, "gold": None, "text": "No."},
    {"prompt_id": "a", "completion_id": 3, "score": 2.5, "gold": 0.7, "text": "Well."},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_one_row_per_answer(tmp_path):
    pool = read_pool(write(tmp_path / "p.jsonl", FLAT))
    assert pool.table.prompt.tolist() == ["a", "a", "b"]
    assert pool.table.score.tolist() == [1, 2.5, 3]
    assert pool.table.gold.tolist() == [0.5, 0.7, 0.1]
    assert pool.table.chars.tolist() == [3, 5, 8]
    assert pool.prompts == {"a": "Why?"}
    assert pool.has_gold
    assert pool.dropped == {"answers without a score": 1, "answers without gold": 1}


def test_one_row_per_prompt_is_the_same_pool(tmp_path):
    rows = [
        {
            "prompt": [{"role": "user", "content": "Why?"}],
            "completions": ["So.", [{"role": "assistant", "content": "Well."}]],
            "reward": [1, 2.5],
            "truth": [0.5, 0.7],
            "members": [[1, 2], [3, 4]],
            "sources": ["x", "y"],
        },
        {
            "prompt": "How?",
            "completions": ["Thus."],
            "reward": [7],
            "truth": [0],
            "members": [[5, 6]],
            "source": "z",
        },
    ]
    pool = read_pool(write(tmp_path / "p.jsonl", rows), score="reward", gold="truth")
    assert pool.table.score.tolist() == [1, 2.5, 7]
    assert pool.table.gold.tolist() == [0.5, 0.7, 0]
    assert pool.table.members.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert pool.table.source.tolist() == ["x", "y", "z"]
    assert pool.table.text.tolist() == ["So.", "Well.", "Thus."]
    assert pool.prompts == {"Why?": "Why?", "How?": "How?"}


def test_what_a_candidate_table_writes_comes_back(tmp_path):
    table = CandidateTable.build(
        ["a", "a", "b"],
        [1, 2, 3],
        gold=[0, 1, 0.5],
        members=[[1, 2], [2, 3], [3, 4]],
        text=["x", "yy", ""],
        source="pqr",
    )
    for name in ("t.jsonl.gz", "t.parquet"):
        table.write(tmp_path / name)
        pool = read_pool(tmp_path / name)
        for column in ("prompt", "completion", "score", "gold", "chars", "source", "members", "text"):
            assert np.array_equal(getattr(pool.table, column), getattr(table, column)), column


SCORED = [
    {"index": 0, "scores": [1.0, 2.0], "status": "ok", "tokens": [3, 4], "truncated": [False, False]},
    {"index": 1, "scores": [], "status": "error", "reason": "no prompt", "tokens": [], "truncated": []},
    {"index": 2, "scores": [0.5, None], "status": "error", "tokens": [3, 0], "truncated": [False, False]},
]


def test_output_of_score_alone_has_no_gold(tmp_path):
    pool = read_pool(write(tmp_path / "s.jsonl", SCORED))
    assert not pool.has_gold
    assert pool.table.score.tolist() == [1, 2, 0.5]
    assert pool.table.prompt.tolist() == ["0", "0", "2"]
    assert pool.dropped == {"prompts without scores (error)": 1, "answers without a score": 1}


def test_output_of_score_with_its_input(tmp_path):
    given = [
        {"prompt": "Why?", "completions": ["So.", "Well."], "judge": [0.2, 0.9]},
        {"completions": ["x"]},
        {"prompt": "How?", "completions": ["Thus.", ""], "judge": [0.4, 0.3]},
    ]
    data = write(tmp_path / "in.jsonl", given)
    pool = read_pool(write(tmp_path / "s.jsonl", SCORED), data=data, gold="judge")
    assert pool.table.text.tolist() == ["So.", "Well.", "Thus."]
    assert pool.table.gold.tolist() == [0.2, 0.9, 0.4]
    assert pool.prompts == {"Why?": "Why?", "How?": "How?"}
    short = write(tmp_path / "short.jsonl", given[:2])
    with pytest.raises(DataError, match=r"row 3: 'index' is 2, but .* has 2 rows"):
        read_pool(tmp_path / "s.jsonl", data=short)


class Length:
    """A scorer: the number of characters of the answer."""

    def score(self, conversations):
        return [Score(len(conversation[-1]["content"])) for conversation in conversations]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_what_score_really_writes_is_read(tmp_path, ending):
    given = [{"prompt": "Why?", "completions": ["So.", "Well."], "gold": [1, 2]}, {"prompt": "How?", "completions": []}]
    data, output = write(tmp_path / "in.jsonl", given), tmp_path / f"s.{ending}"
    score_file(Length(), stream_conversations(data), output, progress=False)
    pool = read_pool(output, data=data)
    assert pool.table.score.tolist() == pool.table.chars.tolist() == [3, 5]
    assert pool.table.gold.tolist() == [1, 2]
    assert pool.dropped == {"prompts without scores (error)": 1}
    assert not read_pool(output).has_gold


def test_answers_scored_in_rows_of_their_own_are_pooled_by_prompt(tmp_path):
    given = [{"prompt": p, "completion": c, "judge": g} for p, c, g in (("a", "x", 1), ("b", "yy", 2), ("a", "zzz", 3))]
    scored = [{"index": i, "scores": [float(i)], "status": "ok"} for i in range(3)]
    data = write(tmp_path / "in.jsonl", given)
    pool = read_pool(write(tmp_path / "s.jsonl", scored), data=data, gold="judge")
    assert pool.table.prompt.tolist() == ["a", "a", "b"]
    assert pool.table.score.tolist() == [0, 2, 1]
    assert pool.table.gold.tolist() == [1, 3, 2]
    assert pool.table.chars.tolist() == [1, 3, 2]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "holds no rows"),
        ([{"prompt_id": 1, "value": 3}], {}, "row 1: no 'score'; name the field of the score with --score"),
        (FLAT, {"gold": "truth"}, "no row has the gold field 'truth'"),
        ([{"score": 3}], {}, "row 1: no 'prompt_id'"),
        ([FLAT[0], {"prompt_id": 1, "score": "high"}], {}, "row 2: 'score' is 'high'; write a number"),
        ([{"prompt_id": 1, "score": True}], {}, "'score' is True"),
        ([{"scores": [1, 2], "gold": [1]}], {}, "row 1: 2 scores but 1 values of gold"),
        ([{"scores": [1, 2], "gold": 1}], {}, "'gold' is 1; write a list"),
        ([{"scores": [1, 2], "completions": ["a"]}], {}, "2 scores but 1 values of text"),
        ([{"scores": [1, 2], "members": [3, [4]]}], {}, "'members' is 3; write a list"),
        ([{"scores": [1, 1], "members": [[3], [3, 4]]}], {}, "'members' differs in length"),
        ([{"scores": []}], {}, "no row has a score"),
        ([{"prompt_id": 1, "score": None}], {}, "nothing is left to measure"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, rows, options, message):
    with pytest.raises(DataError, match=message):
        read_pool(write(tmp_path / "p.jsonl", rows), **options)
