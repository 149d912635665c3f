"""The docs hold: links lead somewhere, commands run, options and metrics are named."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from guerdon.cli import COMMANDS
from guerdon.options import flag
from guerdon.train.config import TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_merge_is_left_half_done():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    marker = re.compile(rb"^(<<<<<<< |>>>>>>> )", re.MULTILINE)
    files = [ROOT / os.fsdecode(name) for name in tracked.stdout.split(b"\0") if name]
    assert len(files) > 100
    assert [str(file) for file in files if file.is_file() and marker.search(file.read_bytes())] == []


def test_every_page_is_listed():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert all(page.name in index for page in (ROOT / "docs").glob("*.md") if page.name != "README.md")


def test_every_command_has_a_page_or_a_line():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(f"guerdon {command}" in text or f"make {command}" in text for command in COMMANDS)


def test_option_list_is_fresh():
    """docs/train-options.txt is `guerdon train --help`; write it anew with `make docs`."""
    done = subprocess.run(
        [sys.executable, "-m", "guerdon.cli", "train", "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert (ROOT / "docs" / "train-options.txt").read_text(encoding="utf-8") == done.stdout
    assert all(flag(field.name) in done.stdout for field in fields(TrainConfig))


def test_every_logged_metric_is_defined():
    from guerdon.train.loop import _EVAL_KEYS

    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    logged = "loss accuracy margin mean_reward min_reward max_reward grad_norm lr pairs_per_s tokens_per_s".split()
    assert all(f"`{name}`" in page for name in [*logged, *(f"eval_{key}" for key in _EVAL_KEYS)])


def test_commands_of_the_readme_run(real_data, make_backbone, tmp_path):
    """The block on one's own data, on the first rows of the same files and with a tiny model in place of MiniLM."""
    for name in ("train", "test"):
        with gzip.open(real_data / "hh-rlhf" / "harmless-base" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [next(file) for _ in range(24)]
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(rows)
    base = make_backbone(tmp_path / "base")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "guerdon evaluate" in b)
    block = re.sub(r"^D=.*$", f"D={tmp_path}", block, flags=re.MULTILINE).replace("minilm", str(base))
    block = block.replace("guerdon ", f"{sys.executable} -m guerdon.cli ")
    done = subprocess.run(["bash", "-euc", block], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    scored = [json.loads(line) for line in (tmp_path / "runs" / "hh" / "scores.jsonl").read_text().splitlines()]
    assert len(scored) == 24
    code = next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
