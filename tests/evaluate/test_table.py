"""Score tables: alignment, pairs of rankings, and the way through a file and back."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from guerdon.evaluate.table import ScoreTable
from guerdon.types import Comparison, DataError, Score


def comparison(ranks, lengths=None, **fields):
    lengths = lengths or [1] * len(ranks)
    prompt = ({"role": "user", "content": "?"},)
    completions = tuple(({"role": "assistant", "content": "x" * n},) for n in lengths)
    return Comparison(prompt, completions, tuple(ranks), **fields)


@pytest.fixture
def table():
    rows = [
        comparison([2, 1, 1], [5, 7, 9], strength=3.0, weight=2.0, source="a", id="a:1"),
        comparison([1, 2], [4, 1], source="b", id="b:1"),
    ]
    scores = [[0.5, 2.0, -1.0], [Score(1.5), Score(math.nan, "error", reason="too long")]]
    return ScoreTable.build(rows, scores, prompt_keys=["p", "q"], gold=[[0.0, 1.0, 0.5], [1.0, 0.0]])


def test_pairs_put_the_better_rank_first(table):
    pairs = table.pairs()
    assert list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)) == [(1, 0), (2, 0), (1, 2), (3, 4)]
    assert pairs.target.tolist() == [1.0, 1.0, 0.5, 1.0]
    assert pairs.margin[:3].tolist() == [1.5, -1.5, 3.0]
    assert pairs.chars.tolist() == [2, 4, -2, 3]
    assert pairs.weight == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1.0])
    assert pairs.gold.tolist() == [1.0, 0.5, 0.5, 1.0]
    assert pairs.source.tolist() == ["a", "a", "a", "b"]
    assert pairs.comparison.tolist() == [0, 0, 0, 1]


def test_pairs_agree_with_the_noun():
    rng = np.random.default_rng(0)
    rows = [comparison(rng.integers(0, 3, size=rng.integers(2, 6)).tolist(), id=str(i)) for i in range(40)]
    scores = [rng.normal(size=len(row.ranks)).tolist() for row in rows]
    pairs = ScoreTable.build(rows, scores, prompt_keys=[row.id for row in rows]).pairs()
    expected = [
        (i, scores[i][pair.chosen] - scores[i][pair.rejected], pair.target, pair.weight)
        for i, row in enumerate(rows)
        for pair in row.pairs()
    ]
    found = zip(
        pairs.comparison.tolist(), pairs.margin.tolist(), pairs.target.tolist(), pairs.weight.tolist(), strict=True
    )
    assert list(found) == [pytest.approx(pair) for pair in expected]


def test_strength_belongs_to_first_against_last(table):
    strength = comparison([1, 2, 3], strength=4.0, id="r")
    pairs = ScoreTable.build([strength], [[3, 2, 1]], prompt_keys=["p"]).pairs()
    assert np.isnan(pairs.strength).tolist() == [True, False, True]
    assert pairs.strength[1] == 4.0


def test_a_missing_score_is_not_a_score(table):
    pairs = table.pairs()
    assert table.status.tolist() == ["ok", "ok", "ok", "ok", "error"]
    assert pairs.is_scored.tolist() == [True, True, True, False]


def test_equal_ids_do_not_melt_comparisons_together():
    rows = [comparison([1, 2], id="same"), comparison([2, 1], id="same")]
    pairs = ScoreTable.build(rows, [[1, 0], [1, 0]], prompt_keys=["p", "p"]).pairs()
    assert pairs.margin.tolist() == [1.0, -1.0]
    assert pairs.group.tolist() == [0, 0]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_files_hold_the_whole_table(table, tmp_path: Path, name):
    table.write(tmp_path / "deep" / name)
    again = ScoreTable.read(tmp_path / "deep" / name)
    for column in ScoreTable.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, column), getattr(table, column), err_msg=column)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [name]


def test_a_bare_table_of_another_model_is_enough(tmp_path: Path):
    path = tmp_path / "scores.jsonl"
    rows = [
        {"comparison": "x", "completion": 0, "rank": 1, "score": 0.25},
        {"comparison": "x", "completion": 1, "rank": 2, "score": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = ScoreTable.read(path)
    assert table.prompt.tolist() == ["x", "x"]
    assert table.status.tolist() == ["ok", "error"]
    assert table.weight.tolist() == [1.0, 1.0]
    assert np.isnan(table.chars).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object"),
        ('{"comparison": "x", "completion": 1, "score": 1}', "row 2: no 'rank'"),
        ('{"comparison": "x", "completion": 1, "rank": 1, "score": "1"}', "row 2: 'score' is '1'"),
        ('{"comparison": "x", "completion": 1, "rank": NaN, "score": 1}', "row 2: 'rank' must be finite"),
        ('{"comparison": "x", "completion": null, "rank": 1, "score": 1}', "row 2: 'completion' is None"),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, line, message):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"comparison": "x", "completion": 0, "rank": 1, "score": 1}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        ScoreTable.read(path)


def test_scattered_rows_are_refused(table):
    half = ScoreTable(**{name: getattr(table, name)[[0, 3, 1, 4]] for name in ScoreTable.__dataclass_fields__})
    with pytest.raises(DataError, match="row 1: comparison 'a:1' has one completion"):
        half.pairs()


def test_infinite_scores_become_errors(tmp_path: Path):
    path = tmp_path / "scores.jsonl"
    path.write_text(
        '{"comparison": "x", "completion": 0, "rank": 1, "score": Infinity, "status": "ok"}\n'
        '{"comparison": "x", "completion": 1, "rank": 2, "score": 3, "status": "masked"}\n'
    )
    table = ScoreTable.read(path)
    assert table.status.tolist() == ["error", "masked"]
    assert np.isnan(table.score).all()


def test_a_failed_write_leaves_the_old_file(table, tmp_path: Path, monkeypatch):
    path = tmp_path / "t.jsonl"
    path.write_text("old")
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        table.write(path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
