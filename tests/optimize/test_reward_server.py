"""A reward server that is slow, busy or wrong in the middle of a run: masked or waited for, never trained on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from policy_runs import Letters, assert_same_policy, config_of, letters, quiet, rows_of, untimed
from tiny_policy import make_world

from guerdon.client import Client
from guerdon.optimize.loop import optimize
from guerdon.types import ScoringError, TrainingError


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_tokenizer) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), make_tokenizer)


class Server:
    """Scores by `letters`; `mishap(request number)` names what goes wrong with a request: 503, hang, nan, garbage, short."""

    def __init__(self) -> None:
        self.mishap: Callable[[int], str] = lambda number: ""
        self.requests = 0
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.requests += 1
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, reply = outer.answer(body["conversations"], outer.mishap(outer.requests))
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(reply)))
                    self.end_headers()
                    self.wfile.write(reply)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up, as it should

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, talks: list[Any], mishap: str) -> tuple[int, bytes]:
        if mishap == "503":
            return 503, b"warming up"
        if mishap == "garbage":
            return 200, b"<html>"
        if mishap == "hang":
            self.release.wait(5)
        scores = [{"value": letters(talk[-1]["content"]), "status": "ok"} for talk in talks]
        if mishap == "nan":  # every second one
            scores = [{"value": None, "status": "ok"} if i % 2 else score for i, score in enumerate(scores)]
        if mishap == "short":
            scores = scores[1:]
        return 200, json.dumps({"scores": scores}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.release.set()
    running.http.shutdown()
    running.http.server_close()


class Script(Letters):
    """The same failures without a server: what the run must equal."""

    def __init__(self, mishaps: dict[int, str]) -> None:
        super().__init__()
        self.mishaps = mishaps

    def score(self, conversations: Any) -> Any:
        found, broken = super().score(conversations), Letters(lambda call, text: True).score(conversations)
        mishap = self.mishaps.get(self.calls, "")
        if mishap == "nan":
            return [bad if i % 2 else good for i, (good, bad) in enumerate(zip(found, broken, strict=True))]
        return broken if mishap else found


MISHAPS = {2: "503", 3: "nan", 5: "hang", 6: "garbage", 7: "short"}


@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_what_the_server_did_not_score_is_masked(world, tmp_path, server, algorithm):
    """Requests 2, 3, 5, 6 and 7 go wrong in five ways; the policy is that of a run in which just those had no reward."""
    server.mishap = lambda number: MISHAPS.get(number, "")
    config = config_of(world, algorithm=algorithm, output=str(tmp_path / "served"), steps=8)
    with pytest.raises(TrainingError, match="no completion could be scored in 3 steps"):  # 5, 6, 7
        optimize(config, Client(server.url, timeout=0.3, patience=0, say=quiet), say=quiet)
    rows, samples = rows_of(config.output), rows_of(config.output, "samples.jsonl")
    assert [row["masked"] for row in rows] == [0, 12, 6, 0, 12, 12, 12]
    assert [row["proxy"] is None for row in rows] == [False, True, False, False, True, True, True]
    assert all((row["loss"] is None) == (row["masked"] == 12) for row in rows)
    for row in samples:
        assert (row["reward"] is None) == (row["status"] != "ok")
        assert row["reward"] is None or row["reward"] == pytest.approx(letters(row["completion"]))
    reasons = {row["step"]: row["reason"] for row in samples if row["status"] != "ok"}
    assert "answered 503 (warming up)" in reasons[2]
    assert "did not answer within 0.3 s" in reasons[5]
    assert "not JSON" in reasons[6]
    assert "11 scores for 12 conversations" in reasons[7]
    script = config_of(world, algorithm=algorithm, output=str(tmp_path / "scripted"), steps=8)
    with pytest.raises(TrainingError):
        optimize(script, Script(MISHAPS), say=quiet)
    assert untimed(config.output) == untimed(script.output)


def test_a_server_that_is_back_takes_the_run_on(world, tmp_path, server):
    """Down from step 3 on, the run ends after step 5; resumed after step 4, it equals one without rewards in steps 3 and 4."""
    config = config_of(world, algorithm="grpo", output=str(tmp_path / "down"), steps=6, save_every=2)
    server.mishap = lambda number: "503" if number >= 3 else ""
    with pytest.raises(TrainingError, match=r"step 5: no completion .* answered 503 .* --resume"):
        optimize(config, Client(server.url, patience=0, say=quiet), say=quiet)
    server.mishap = lambda number: ""
    optimize(replace(config, resume=True), Client(server.url, patience=0, say=quiet), say=quiet)
    script = replace(config, output=str(tmp_path / "scripted"))
    optimize(script, Script({3: "503", 4: "503"}), say=quiet)
    assert untimed(config.output) == untimed(script.output)
    assert_same_policy(config.output, script.output)


def test_waiting_gives_the_run_of_a_healthy_server(world, tmp_path, server, monkeypatch):
    monkeypatch.setattr("guerdon.client.retry.FIRST_BACKOFF", 0.01)
    monkeypatch.setattr("guerdon.client.retry.TOLD_AFTER", 0.0)
    server.mishap = lambda number: {2: "503", 3: "503", 5: "hang"}.get(number, "")
    said: list[str] = []
    waits = config_of(world, algorithm="grpo", output=str(tmp_path / "waits"), steps=3)
    optimize(waits, Client(server.url, timeout=0.3, on_failure="wait", say=said.append), say=quiet)
    healthy = config_of(world, algorithm="grpo", output=str(tmp_path / "healthy"), steps=3)
    optimize(healthy, Letters(), say=quiet)
    assert server.requests == 6
    assert any("answered 503" in line for line in said)
    assert any("did not answer within 0.3 s" in line for line in said)
    assert_same_policy(waits.output, healthy.output)
    assert untimed(waits.output) == untimed(healthy.output)


def test_waiting_in_vain_ends_the_run_with_a_sentence(world, tmp_path, server, monkeypatch):
    monkeypatch.setattr("guerdon.client.retry.FIRST_BACKOFF", 0.01)
    server.mishap = lambda number: "503" if number > 1 else ""
    config = config_of(world, algorithm="grpo", output=str(tmp_path), steps=3)
    with pytest.raises(ScoringError, match="answered 503"):
        optimize(config, Client(server.url, on_failure="wait", patience=0.1, say=quiet), say=quiet)
    assert [row["step"] for row in rows_of(tmp_path)] == [1]


def test_a_held_out_server_that_fails_leaves_the_run_alone(world, tmp_path, server):
    """What is only watched may be missing: null in the metrics, and the same policy."""
    server.mishap = lambda number: "503" if number == 2 else ""
    watched = config_of(world, algorithm="grpo", output=str(tmp_path / "watched"), steps=3)
    optimize(watched, Letters(), Client(server.url, patience=0, say=quiet), say=quiet)
    alone = config_of(world, algorithm="grpo", output=str(tmp_path / "alone"), steps=3)
    optimize(alone, Letters(), say=quiet)
    assert [row["held_out_n"] for row in rows_of(watched.output)] == [6, 0, 6]
    assert [row["held_out"] is None for row in rows_of(watched.output)] == [False, True, False]
    assert_same_policy(watched.output, alone.output)
