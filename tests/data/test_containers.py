"""The same rows out of every container, in constant memory, and hub sets through a stand-in for `datasets`."""

import csv
import gzip
import io
import json
import random
import sys
import tracemalloc
import types
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from guerdon.data.containers import Row, find_files, stream
from guerdon.data.hub import HubId, is_hub_id, parse_hub_id
from guerdon.types import DataError

ROWS = [
    {"prompt": "Why, then?", "chosen": 'So.\n"Quoted"', "rejected": "Ünïcode 😀"},
    {"prompt": "b", "chosen": "c", "rejected": ""},
]


def as_csv() -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]))
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def as_parquet() -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CONTAINERS = {
    "rows.jsonl": LINES,
    "rows.ndjson": LINES,
    "rows.json": json.dumps(ROWS, indent=2).encode(),
    "data.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "lines.json": LINES,
    "bom.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "rows.csv": as_csv(),
    "bom.csv": b"\xef\xbb\xbf" + as_csv(),
    "rows.parquet": as_parquet(),
    "UPPER.JSONL": LINES,
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_every_container_gives_the_same_rows(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(CONTAINERS[name]) if zipped else CONTAINERS[name])
    assert [row.data for row in stream(path)] == ROWS


def test_csv_lines_are_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(as_csv())
    assert [row.line for row in stream(path)] == [2, 4]  # the first row spans two lines


def test_message_lists_survive_parquet(tmp_path: Path) -> None:
    row = {"chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "y"}]}
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    assert next(stream(tmp_path / "rows.parquet")).data == row


def test_folder_is_read_in_order_and_passes_over_what_is_not_data(tmp_path: Path) -> None:
    for name in (
        "b/2.jsonl",
        "b/1.json",
        "a.jsonl",
        "README.json",
        "MANIFEST.json",
        "b/.x.jsonl",
        ".c/3.jsonl",
        "n.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"name": name}))
    (tmp_path / "b/1.json").write_text('[{"name": "b/1.json"}]')
    assert [row.data["name"] for row in stream(tmp_path)] == ["a.jsonl", "b/1.json", "b/2.jsonl"]
    assert find_files(tmp_path / "b") == [tmp_path / "b/1.json", tmp_path / "b/2.jsonl"]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    """20 MB of rows in one file, and in one row group, within 6 MB of Python objects and 12 MB of Arrow's."""
    path = tmp_path / f"rows.{kind}"
    row = {"prompt": "p", "chosen": "x" * 1000, "rejected": "y" * 1000}
    if kind == "parquet":
        rng = random.Random(0)  # Parquet would shrink the same text to nothing
        rows = [{name: rng.randbytes(500).hex() for name in row} for _ in range(10_000)]
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=10_000, use_dictionary=False)
        del rows
    else:
        line = json.dumps(row) if "json" in kind else ",".join(row.values())
        text = ("" if "json" in kind else "prompt,chosen,rejected\n") + (line + "\n") * 10_000
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
        del text
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    most = max(pa.total_allocated_bytes() - arrow for row in stream(path) if row.data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6
    assert most < 12e6


def test_hub_ids() -> None:
    assert parse_hub_id("owner/name") == HubId("owner/name", None, "train")
    assert parse_hub_id("owner/name/config:test[:10%]") == HubId("owner/name", "config", "test[:10%]")
    assert is_hub_id("Anthropic/hh-rlhf:test")
    assert not any(map(is_hub_id, ("data.jsonl", "owner/rows.jsonl", "owner/rows.csv.gz", "./a/b", "/a/b", "a/b/c/d")))


def test_a_folder_that_exists_is_never_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("data/trian")
    with pytest.raises(DataError, match=r"data/trian: no such file or folder"):
        next(stream("data/trian"))


def hub_with(rows: object) -> types.ModuleType:
    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Iterator[dict[str, str]]:
        assert (name, config, split, streaming) == ("owner/set", None, "test", True)
        if isinstance(rows, Exception):
            raise rows
        return iter(rows)  # type: ignore[call-overload]

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    return module


def test_hub_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", hub_with(ROWS))
    assert list(stream("owner/set:test")) == [Row("owner/set:test", i, row) for i, row in enumerate(ROWS, 1)]


def test_hub_offline_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", hub_with(ConnectionError("no route\nto host")))
    expected = r"^owner/set:test: no such file, and the hub set cannot be read \(no route\); check .* give its folder$"
    with pytest.raises(DataError, match=expected):
        next(stream("owner/set:test"))


def test_hub_split_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", hub_with([]))
    with pytest.raises(DataError, match="no rows in split 'test'; name another split"):
        next(stream("owner/set:test"))


def test_missing_extra_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'guerdon\[hub\]'"):
        next(stream("owner/set"))
