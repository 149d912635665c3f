"""What goes wrong around a server, each with the answer that docs/serve-faults.md gives for it; and nothing hangs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from serving import Letters, listening, service_of, value_of
from tiny_models import chat

from guerdon.client import Client
from guerdon.model.reward import RewardModel
from guerdon.serve.app import create_app
from guerdon.serve.keys import KeyRing, add_key
from guerdon.serve.run_routes import run_routes
from guerdon.serve.watch import watch_of

PAGE = (Path(__file__).parents[2] / "docs" / "serve-faults.md").read_text(encoding="utf-8")
GOOD = json.dumps({"texts": ["good"]}).encode()


@pytest.fixture(scope="module")
def port():
    service = service_of(max_body=0.2, body_seconds=1.0)
    with watch_of(service) as watch, listening(service, head_seconds=1.0, routes=run_routes(watch)) as (found, _):
        yield found


def exchange(port: int, *parts: bytes, pause: float = 0.0, seconds: float = 10.0) -> bytes:
    """All that comes back for these bytes until the connection ends or a whole answer is there."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        found = b""
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:
            pass  # answered and closed before all was sent
        try:
            while more := connection.recv(65536):
                found += more
                head, _, body = found.partition(b"\r\n\r\n")
                size = re.search(rb"(?i)content-length: (\d+)", head)
                if size and len(body) >= int(size[1]):
                    break
        except ConnectionResetError:
            pass
        return found


def post(body: bytes, path: bytes = b"/v1/score", more: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s" % (path, more, len(body), body)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def require_well(port: int) -> None:
    assert status(exchange(port, post(GOOD))) == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"texts"', b"\xff\xfe\x00", b'{"texts": ["a"]', b'{"texts": ["a"]} more',
        b'{"texts": [NaN]}', b'{"texts": ["a"], "reference": Infinity}', b'{"texts": ["a"], "reference": 1e999}',
        b'{"a":' * 60_00 + b"1" + b"}" * 60_00,
    ],
)  # fmt: skip
def test_malformed_json_and_nan(port, body):
    answer = exchange(port, post(body))
    assert status(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    require_well(port)


@pytest.mark.parametrize(
    "body",
    [
        {"texts": "one"}, {"texts": [1]}, {"texts": [None]}, {"texts": [["a"]]}, {"texts": {"0": "a"}},
        {"ids": [1, 2]}, {"ids": [[1.0]]}, {"ids": [["1"]]}, {"ids": [[True]]}, {"conversations": "hello"},
        {"conversations": [{"role": "user", "content": "a"}]}, {"messages": "hello"}, {"messages": 3},
        {"prompt": 4, "completions": ["a"]}, {"prompt": "a", "completions": "b"}, {"prompt": "a"}, {},
        {"texts": ["a"], "ids": [[1]]}, {"texts": ["a"], "model": 3}, {"texts": ["a"], "step": 1.5},
        {"texts": ["a"], "step": "1"}, {"texts": ["a"], "run": ["r"]}, {"texts": ["a"], "run": "r", "kl": "x"},
        {"texts": ["a"], "run": "r", "kl": [1.0, 2.0]}, {"texts": ["a"], "reward": "best"},
        {"texts": ["a"], "reference": "text"}, {"texts": ["a"], "reference": True},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_wrong_types(port, body):
    assert status(exchange(port, post(json.dumps(body).encode()))) == 400
    require_well(port)


@pytest.mark.parametrize("ending", ["\ud800", "\x00", "\u202e", "\U0010ffff"])
def test_odd_characters_are_scored_or_an_error_of_their_own(port, ending):
    answer = exchange(port, post(json.dumps({"texts": ["good", "odd" + ending]}).encode()))
    assert status(answer) == 200
    first, second = json.loads(answer.partition(b"\r\n\r\n")[2])["scores"]
    assert first["value"] == value_of("good")
    assert (second["status"] == "ok") == (second["value"] is not None)


def test_a_body_of_100_mb_is_not_read(port):
    started = time.perf_counter()
    head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n"
    assert status(exchange(port, head, b"x" * 1_000_000)) == 413
    assert time.perf_counter() - started < 5
    require_well(port)


def test_half_a_body_and_a_slow_one(port):
    head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n"
    assert status(exchange(port, head + b'{"tex')) == 408
    assert status(exchange(port, head, *[b" "] * 30, pause=0.06)) == 408
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + b'{"tex')  # and hangs up
    require_well(port)


def test_a_client_that_does_not_read_holds_nobody_up(port):
    many = json.dumps({"texts": ["long enough to fill what lies between"] * 2000}).encode()
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", port))
        lazy.sendall(post(many) * 2)
        started = time.perf_counter()
        for _ in range(5):
            require_well(port)
        assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    "path",
    [
        "/runs/..%2f..%2f..%2fetc%2fpasswd", "/runs/../../etc/passwd", "/runs/%2e%2e/page", "/runs/a%00b", "/runs//page",
        "/v1/models/..%2f..%2fetc/swap", "/../v1/score", "/v1/score/../../etc/passwd", "/static/../../etc/passwd",
    ],
)  # fmt: skip
def test_path_tricks_find_nothing(port, path):
    answer = exchange(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert status(answer) in (404, 405)
    assert b"root:" not in answer


def test_ten_thousand_keys_are_guessed(tmp_path):
    """Straight into the application, so that it is the brake that is timed and not a socket."""
    token = add_key(tmp_path / "keys.json", "me")
    app = create_app(service_of(guesses=20), None, KeyRing(tmp_path / "keys.json"))

    async def ask(key: str) -> int:
        sent: list[int] = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                sent.append(message["status"])

        headers = [(b"host", b"x"), (b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/v1/models", "raw_path": b"/v1/models", "query_string": b"", "root_path": "",
                 "scheme": "http", "http_version": "1.1", "headers": headers, "client": ("10.0.0.1", 1), "server": ("x", 80)}  # fmt: skip
        await app(scope, receive, send)
        return sent[0]

    async def story():
        assert await ask(token) == 200
        found = [await ask(f"{token[:13]}{number:043d}") for number in range(10_000)]
        return found, await ask(token)

    started = time.perf_counter()
    found, right = asyncio.run(story())
    assert (found.count(401), found.count(429)) == (20, 9980)
    assert right == 200  # who was right before is not locked out by others
    assert time.perf_counter() - started < 30


def test_killed_and_restarted(make_backbone, tmp_path):
    """kill -9 in the middle of a run: a client as it comes gets every reward, none of them wrong, and the run goes on."""
    model = RewardModel.load(make_backbone(tmp_path / "base"))
    model.save(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "guerdon.cli",
        "serve",
        f"rm={tmp_path / 'model'}",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    command += ["--watch-folder", str(tmp_path / "runs"), "--log", "problems"]

    def start():
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )
        assert process.stdout.readline().startswith("serving")
        return process

    process = start()
    try:
        rows = [chat("what is it", f"answer number {number}") for number in range(240)]
        wanted = [float(score) for score in model.score(rows)]
        client = Client(f"http://127.0.0.1:{port}", say=lambda _: None, run="r", batch=4)
        found: list[float] = []

        def work():
            for step in range(12):
                found.extend(map(float, client.at(step).score(rows[20 * step : 20 * step + 20])))
                if step < 3:
                    client.at(step).end_step()

        thread = threading.Thread(target=work)
        thread.start()
        while len(found) < 80 and thread.is_alive():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process = start()
        thread.join(600)
        assert found == pytest.approx(wanted, abs=1e-6)
        said = client.at(11).end_step()
        assert (said["step"], said["steps"] >= 4) == (11, True)  # 0 to 2 were closed before the kill, 11 after it
        lines = [json.loads(line) for line in (tmp_path / "runs" / "r.jsonl").read_text().splitlines()]
        assert [line["row"]["step"] for line in lines if "row" in line][:3] == [0, 1, 2]
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize(
    "fault",
    [
        "kill -9",
        "slow client",
        "half a body",
        "100 MB",
        "malformed JSON",
        "wrong type",
        "NaN",
        "10,000 keys",
        "path tricks",
        "not read",
    ],
)
def test_every_fault_is_on_the_page(fault):
    assert fault in PAGE


def test_letters_is_what_is_served():
    assert value_of("good") == float(Letters().score([chat("", "good")[1:]])[0])
