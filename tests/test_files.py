"""Whole or absent: a write that fails leaves the old file and nothing else."""

from __future__ import annotations

import pytest

from guerdon.files import replacing, replacing_folder, rewind, write_json, write_text
from guerdon.types import ConfigError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_folders_are_made_and_refusals_named(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"ü": 1})
    assert (tmp_path / "new" / "a.json").read_text(encoding="utf-8") == '{\n "ü": 1\n}\n'
    with pytest.raises(ConfigError, match=r"b.json: cannot be written"):
        write_json(tmp_path / "new" / "a.json" / "b.json", 1)


def test_rewind_keeps_whole_lines_up_to_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 3}\n{"st\n7\n{"step": 2}')
    rewind(path, 2)
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    path.write_bytes('{"step": 1}\n{"step": 2, "text": "ü'.encode()[:-1])  # cut within a letter
    rewind(path, 2)
    assert path.read_bytes() == b'{"step": 1}\n'
    rewind(tmp_path / "none.jsonl", 2)
    assert names(tmp_path) == ["metrics.jsonl"]


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("one", "two"):
        with replacing_folder(tmp_path / "f") as staging:
            (staging / text).write_text(text)
    assert names(tmp_path / "f") == ["two"]
    assert names(tmp_path) == ["f"]


def test_a_folder_left_unfinished_does_not_touch_the_old_one(tmp_path):
    with replacing_folder(tmp_path / "f") as staging:
        (staging / "good").touch()
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "f") as staging:
        (staging / "half").touch()
        raise ZeroDivisionError
    assert names(tmp_path / "f") == ["good"]
    with replacing_folder(tmp_path / "f") as staging:
        assert names(staging) == []
