"""Names, ids and sources of what is read, and what `load` sums up."""

import json
from pathlib import Path

import pytest

from guerdon.data.read import load, read, source_name


def pair(i: int, **more: object) -> dict[str, object]:
    return {"prompt": f"p{i}", "chosen": "x", "rejected": "y"} | more


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("webgpt.jsonl", "webgpt"),
        ("set/webgpt.v2.jsonl.gz", "webgpt.v2"),
        ("hh/train.jsonl.gz", "hh"),
        ("hh/Test.parquet", "hh"),
        ("owner/set:test", "owner/set:test"),
    ],
)
def test_source_names(path: str, source: str) -> None:
    assert source_name(path) == source


def test_folder_gives_its_name_and_ids_inside_it(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a" / "train.jsonl", pair(1))
    write(tmp_path / "set" / "b" / "train.jsonl", pair(2), pair(3, id=7, source="other"))
    found = [(c.id, c.source) for c in read(tmp_path / "set")]
    assert found == [("a/train.jsonl:1", "set"), ("b/train.jsonl:1", "set"), ("7", "other")]


def test_files_of_one_folder_may_differ_in_format(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", pair(1))
    write(tmp_path / "b.jsonl", {"text": ["x", "y"], "score": [0, 1]})
    reader = read(tmp_path)
    assert [c.ranks for c in reader] == [(0, 1), (1, 0)]
    assert [reader.formats[str(tmp_path / name)] for name in ("a.jsonl", "b.jsonl")] == ["trl", "scored"]


def test_given_source_and_restarting_counts(tmp_path: Path) -> None:
    reader = read(write(tmp_path / "a.jsonl", pair(1), pair(2, chosen="")), source="mine")
    assert [[c.source for c in reader] for _ in range(2)] == [["mine"]] * 2
    assert (reader.rows, reader.dropped) == (2, {"empty answer": 1})


def test_only_the_first_places_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[pair(i, chosen="") for i in range(9)], pair(10))
    reader = read(path)
    assert len(list(reader)) == 1
    assert reader.dropped == {"empty answer": 9}
    assert reader.examples == {"empty answer": [f"{path}:{i}" for i in range(1, 6)]}


def test_load_sums_over_paths(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", pair(1), pair(2, chosen=""))
    two = write(tmp_path / "two.jsonl", pair(3), pair(4, chosen=""), pair(5, chosen="y"))
    data = load([str(one), str(two)])
    assert [c.id for c in data.comparisons] == ["one.jsonl:1", "two.jsonl:1"]
    assert (data.rows, data.dropped) == (5, {"empty answer": 2, "identical answers": 1})
    assert data.examples["empty answer"] == [f"{one}:2", f"{two}:2"]
    assert data.sources == {"one": 1, "two": 1}
    assert load(one).comparisons == data.comparisons[:1]
