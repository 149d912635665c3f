"""The commands on the pages about AI raters and about the choice of pairs run as they stand there."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from chat_server import ChatServer, completion

from guerdon.cli import main
from guerdon.collect.settings import Settings
from guerdon.collect.store import Store

DOCS = Path(__file__).parents[2] / "docs"


def commands(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("guerdon ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open("study.db") as store:
        store.create_study("colours", Settings(k=2, random=0.5, arms=("uncertain", "d-optimal")))
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Name colour {i}."}) + "\n" for i in range(4))
    )
    return tmp_path


def test_the_commands_on_both_pages_run(folder, make_backbone, capsys):
    from guerdon.model.reward import RewardModel

    RewardModel.load(make_backbone(folder / "base"), seed=1).save(folder / "runs" / "rm" / "model")
    counter = itertools.count()
    server = ChatServer(
        lambda body: completion(
            '{"reason": "it is", "verdict": "B", "strength": 2}'
            if body["model"] == "judge"
            else f"Blue {next(counter)}."
        )
    )
    for line in commands("ai-raters.md") + commands("which-pair-next.md"):
        main(re.sub(r"http://127\.0\.0\.1:\d+/v1", server.url, line).split()[1:])
    server.stop()
    said = capsys.readouterr().out
    for words in (
        "4 questions added",
        "4 questions left, 8 calls",
        "8 judgements stored",
        "won 0.0%",
        "4 open questions ranked",
    ):
        assert words in said
