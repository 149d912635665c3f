"""The commands of the pages on judgements and exports run, and every number of a quality report is defined."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from guerdon.collect.quality import Quality
from guerdon.data.judgements import write_judgements
from tests.data.study import simulate

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["judgements", "exports"])
def test_commands_run(tmp_path, page) -> None:
    write_judgements(tmp_path / "study.jsonl.gz", simulate([1.0] * 4, [0.0] * 4, questions=40))
    block = re.search(r"```\n(guerdon .*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)[1]
    block = re.sub("^guerdon ", f"{sys.executable} -m guerdon.cli ", block, flags=re.MULTILINE)
    done = subprocess.run(["bash", "-euc", block], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1000:]


def test_every_number_is_defined() -> None:
    text = (DOCS / "judgements.md").read_text()
    assert all(f"`{field.name}`" in text for field in fields(Quality))
