"""The README's blocks on serving and collecting, as they stand there, with a tiny model and a port that is free."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tiny_models import chat

from guerdon.model.reward import RewardModel

pytest.importorskip("fastapi", reason="guerdon serve is an extra")
pytest.importorskip("sqlalchemy", reason="guerdon collect is an extra")

from guerdon.collect.store import Store
from guerdon.types import Judgement

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(word: str) -> str:
    text = next(b for b in re.findall(r"^```\w*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE) if word in b)
    lines = [line.partition(" #")[0].strip() for line in text.splitlines() if not line.startswith("pip ")]
    return "\n".join(lines).replace("guerdon ", f"{sys.executable} -m guerdon.cli ")


def shell(command: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-euc", command], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_study_is_made_judged_and_trained_on(make_backbone, tmp_path):
    base = make_backbone(tmp_path / "base")
    rows = [{"prompt": f"Question {i}?", "completions": [f"yes {i}", f"no, not at all {i}"]} for i in range(12)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    commands = block("guerdon collect create").replace("--role admin", "--role admin --generate").split("\n")
    start, train = (next(i for i, line in enumerate(commands) if word in line) for word in ("collect start", " train "))
    assert "ada" in shell("\n".join(commands[:start]), tmp_path)
    store = Store.open(str(tmp_path / "study.db"))
    for _ in rows:
        given = store.next("tone", "bert")
        ranks = (1.0, 2.0)
        store.submit(
            Judgement(str(uuid.uuid4()), "bert", "human", given.question, given.order, "ranked", ranks),
            "tone",
            assignment=given.id,
        )
    more = " --batch-size 4 --eval-fraction 0"
    shell(commands[train].replace("minilm", str(base)) + more, tmp_path)
    assert (
        RewardModel.load(tmp_path / "runs" / "tone" / "model").score([chat("Question 1?", "yes 1")])[0].status == "ok"
    )


def test_a_reward_is_served_and_scored_with(make_backbone, tmp_path):
    model = RewardModel.load(make_backbone(tmp_path / "base"))
    model.save(tmp_path / "runs" / "hh" / "model")
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "hello?", "completions": ["yes", "no"]}) + "\n")
    serve, score = block("guerdon serve").split("\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [*serve.split(), "--port", str(port)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, server.stdout.read()
            signal.sigtimedwait([], 0.3)
        shell(score.replace("8300", str(port)), tmp_path)
    finally:
        server.terminate()
        server.wait(30)
    found = json.loads((tmp_path / "scores.jsonl").read_text())["scores"]
    expected = model.score([chat("hello?", "yes"), chat("hello?", "no")])
    assert found == pytest.approx([float(s) for s in expected], abs=1e-6)
