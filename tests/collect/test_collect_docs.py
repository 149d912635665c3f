"""The page on collect names every setting and table with what the code says, and its commands run."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import guerdon
from guerdon.cli import main
from guerdon.collect.schema import metadata
from guerdon.collect.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "collect.md").read_text(encoding="utf-8")


def test_every_setting_is_there_with_its_default():
    for field in fields(Settings):
        row = re.search(rf"^\| `{field.name}` \| ([^|]*) \|", PAGE, re.MULTILINE)
        assert row, field.name
        shown, default = row[1].strip(), field.default
        expected = "none" if default == () else str(default).lower() if isinstance(default, bool) else str(default)
        assert shown == (expected or "study's name"), field.name


def test_every_table_is_there():
    assert all(f"`{name}`" in PAGE for name in metadata.tables)


def test_every_key_of_the_screen_is_on_the_page_about_it():
    package, docs = Path(guerdon.__file__).parent, Path(__file__).parents[2] / "docs"
    script = (package / "collect" / "web" / "static" / "rate.js").read_text(encoding="utf-8")
    listed = re.findall(r'\["([^"]+)", "[^"]+"\]', script.partition("const KEYS = ")[2].partition(";\n")[0])
    table = (
        (docs / "collect-screens.md").read_text(encoding="utf-8").partition("| key | does |")[2].partition("\n\n")[0]
    )
    documented = set(re.findall(r"`([^`]+)`", table))
    pressed = {key for keys in listed for key in re.split(r" (?:– |or )?", keys)}
    assert len(pressed) > 20
    assert pressed == documented


def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text("overlap: 2\n")
    (tmp_path / "guidelines.md").write_text("# Which is better?\n")
    (tmp_path / "questions.jsonl").write_text(json.dumps({"prompt": "p", "completions": ["a", "b"]}) + "\n")
    (tmp_path / "training.jsonl").write_text(json.dumps({"prompt": "t", "chosen": "a", "rejected": "b"}) + "\n")
    lines = re.findall(r"^guerdon (collect (?:create|import|user|backup) .*)$", PAGE, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        main(line.split())
    assert (tmp_path / "backup.db").stat().st_size > 0
