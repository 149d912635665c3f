"""The client against a real server on this machine that misbehaves in every way; it never returns a reward nobody gave."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from tiny_models import chat

from guerdon.client import Client
from guerdon.client import retry as module
from guerdon.types import ConfigError, ScoringError

ROWS = [chat("q", "one"), chat("q", "two words"), chat("q", "and three words")]


def words(conversations):
    """The honest reply: as many points as the answer has words."""
    return {
        "scores": [
            {"value": float(len(c[-1]["content"].split())), "status": "ok", "tokens": 7, "truncated": False, "members": []}
            for c in conversations
        ]
    }  # fmt: skip


class Server(ThreadingHTTPServer):
    """Plays a list of replies, the last of them for ever: a function of the conversations, raw bytes, or (status, headers, bytes)."""

    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.replies, self.requests, self.connections, self.lock = [words], [], set(), threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # a client that has hung up is part of these tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers), body, time.monotonic()))
            self.server.connections.add(self.client_address)
            replies = self.server.replies
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        status, headers = 200, {}
        if isinstance(reply, tuple):
            status, headers, reply = reply
        if callable(reply):
            reply = reply(body["conversations"])
        content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def playing(made):
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.02)
    monkeypatch.delenv("GUERDON_TOKEN", raising=False)
    with playing(Server()) as made:
        yield made


def both(client, rows=ROWS):
    """The same from `score` and from `ascore`."""
    yield client.score(rows)
    yield asyncio.run(client.ascore(rows))


def slow(conversations):
    time.sleep(1.0)
    return words(conversations)


def test_scores_with_all_they_carry(server):
    row = {"value": 1, "status": "ok", "tokens": 12, "truncated": True, "members": [0.5, 1.5], "reason": None}
    row |= {"probability": 0.75, "distance": 4.5, "out_of_distribution": True, "contract": "abc"}
    masked = {"value": None, "status": "masked", "reason": "held back", "tokens": 3}
    failed = {"value": 4.0, "status": "error", "reason": "too long"}
    server.replies = [{"scores": [row, masked, failed]}]
    for scores in both(Client(server.url)):
        assert [s.status for s in scores] == ["ok", "masked", "error"]
        assert (scores[0], scores[0].tokens, scores[0].truncated, scores[0].members) == (1.0, 12, True, (0.5, 1.5))
        assert (scores[0].probability, scores[0].distance) == (0.75, 4.5)
        assert (scores[0].out_of_distribution, scores[0].contract) == (True, "abc")
        assert (scores[1].probability, scores[1].distance, scores[1].contract) == (None, None, "")
        assert [s.reason for s in scores[1:]] == ["held back", "too long"]
        assert all(map(math.isnan, scores[1:]))
    path, headers, body, _ = server.requests[0]
    assert path == "/v1/score"
    assert body == {"conversations": ROWS}
    assert "Authorization" not in headers


def test_address_token_and_batches(server, monkeypatch):
    client = Client(server.url + "/rm/v1/score", token="secret", batch=2)
    assert "secret" not in repr(client)
    for scores in both(client):
        assert scores == [1.0, 2.0, 3.0]
    sizes = [len(body["conversations"]) for _, _, body, _ in server.requests]
    assert sizes[:2] == [2, 1]
    assert sorted(sizes[2:]) == [1, 2]  # `ascore` has both under way at once
    assert all(path == "/rm/v1/score" for path, *_ in server.requests)
    assert all(headers["Authorization"] == "Bearer secret" for _, headers, *_ in server.requests)
    monkeypatch.setenv("GUERDON_TOKEN", "from outside")
    Client(server.url).score(ROWS[:1])
    assert server.requests[-1][1]["Authorization"] == "Bearer from outside"
    assert Client(server.url).score([]) == []


def test_connections_are_kept(server):
    client = Client(server.url)
    for _ in range(4):
        client.score(ROWS)
    assert len(server.connections) == 1


def test_one_client_in_many_threads_and_loops(server):
    client = Client(server.url, batch=1, connections=2)
    found = {}

    def work(number):
        rows = [chat("q", "w " * (number + i + 1)) for i in range(5)]
        found[number] = list(both(client, rows))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [[n + i + 1.0 for i in range(5)]] * 2 for n in range(4)}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, status):
    server.replies = [(status, {}, b"busy"), (status, {}, b"busy"), words]
    assert Client(server.url).score(ROWS) == [1.0, 2.0, 3.0]
    assert len(server.requests) == 3


@pytest.mark.parametrize("which", [0, 1], ids=["score", "ascore"])
def test_retry_after_is_honoured(server, which):
    server.replies = [(503, {"Retry-After": "1"}, b""), words]
    score = [Client(server.url).score, lambda rows: asyncio.run(Client(server.url).ascore(rows))][which]
    assert score(ROWS) == [1.0, 2.0, 3.0]
    assert 1.0 <= server.requests[1][3] - server.requests[0][3] < 2.0


def test_retry_after_as_a_date_and_as_nonsense():
    assert module.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert module.retry_after("Wed, 21 Oct 2115 07:28:00 GMT") > 1e9
    assert module.retry_after("soon") == module.retry_after(None) == module.retry_after("-3") == 0.0


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server):
    server.replies = [(503, {"Retry-After": "3600"}, b"")]
    said = []
    scores = Client(server.url, say=said.append).score(ROWS)
    assert {s.status for s in scores} == {"error"}
    assert len(server.requests) == 1
    assert len(said) == 1


@pytest.mark.parametrize("status", [400, 422, 500, 307, 204])
def test_a_refusal_is_not_asked_again_and_says_why(server, status):
    server.replies = [(status, {}, b'{"error": "no such model"}')] if status != 204 else [(204, {}, b"")]
    for scores in both(Client(server.url, say=lambda _: None)):
        assert {s.status for s in scores} == {"error"}
        assert f"answered {status}" in scores[0].reason
        assert status == 204 or "no such model" in scores[0].reason
    assert len(server.requests) == 2


@pytest.mark.parametrize("on_failure", ["mask", "wait", "raise"])
@pytest.mark.parametrize(
    ("status", "advice"), [(401, "GUERDON_TOKEN"), (403, "ask with another"), (404, "look at the address")]
)
def test_what_no_row_is_to_blame_for_is_raised_at_once(server, status, advice, on_failure):
    server.replies = [(status, {}, b'{"error": {"message": "not you", "kind": "key"}}')]
    client = Client(server.url, on_failure=on_failure, batch=1, connections=1)
    for ask in (client.score, lambda rows: asyncio.run(client.ascore(rows)), lambda rows: list(client.stream(rows))):
        server.requests.clear()
        with pytest.raises(ScoringError, match=rf"answered {status} \(not you\): .*{advice}"):
            ask(ROWS[:1])
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"<html>hello</html>", "not JSON"),
        (b'{"scores": [', "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2, 3]", "no list 'scores'"),
        (b'{"scores": null}', "no list 'scores'"),
        ({"scores": []}, "0 scores for 3 conversations"),
        (lambda c: {"scores": words(c)["scores"][1:]}, "2 scores for 3 conversations"),
        (lambda c: {"scores": words(c)["scores"] * 2}, "6 scores for 3 conversations"),
    ],
)
def test_a_reply_that_is_none_takes_the_whole_request(server, reply, reason):
    server.replies = [reply]
    for scores in both(Client(server.url, say=lambda _: None)):
        assert [s.status for s in scores] == ["error"] * 3
        assert reason in scores[0].reason
    with pytest.raises(ScoringError, match=reason):
        Client(server.url, on_failure="raise").score(ROWS)
    with pytest.raises(ScoringError, match=reason):  # waiting does not mend it
        Client(server.url, on_failure="wait").score(ROWS)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"value": NaN, "status": "ok"}', "nan"),
        ('{"value": Infinity, "status": "ok"}', "inf"),
        ('{"value": 1e999, "status": "ok"}', "inf"),
        ('{"value": 1' + "0" * 400 + ', "status": "ok"}', "not a number"),
        ('{"value": null, "status": "ok"}', "None, not a number"),
        ('{"value": "3", "status": "ok"}', "'3', not a number"),
        ('{"value": true, "status": "ok"}', "True, not a number"),
        ('{"status": "ok"}', "None, not a number"),
        ('{"value": 1.0}', "without a status"),
        ('{"value": 1.0, "status": "fine"}', "without a status"),
        ("null", "without a status"),
        ("0.5", "without a status"),
        ('{"value": 1.0, "status": "ok", "members": [1.0, NaN]}', "a member that is not a number"),
    ],
)
def test_a_row_without_a_number_is_an_error_and_the_others_stay(server, row, reason):
    server.replies = [f'{{"scores": [{{"value": 0.5, "status": "ok"}}, {row}]}}'.encode()]
    for scores in both(Client(server.url), ROWS[:2]):
        assert scores[0] == 0.5
        assert scores[1].status == "error"
        assert math.isnan(scores[1])
        assert reason in scores[1].reason
    with pytest.raises(ScoringError, match=reason.replace("(", r"\(")):
        Client(server.url, on_failure="raise").score(ROWS[:2])


def test_a_server_that_does_not_answer_in_time(server):
    server.replies = [slow]
    started = time.monotonic()
    for scores in both(Client(server.url, timeout=0.1, patience=0, say=lambda _: None)):
        assert {s.status for s in scores} == {"error"}
        assert scores[0].reason.endswith("did not answer within 0.1 s")
    assert len(server.requests) == 2
    assert time.monotonic() - started < 1.0
    server.replies = [slow, words]
    assert Client(server.url, timeout=0.1).score(ROWS) == [1.0, 2.0, 3.0]


def raw_server(*chunks, pause=0.0):
    """A socket that answers every connection with these bytes, a pause between them, and hangs up. Returns its address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                for chunk in chunks:
                    try:
                        connection.sendall(chunk)
                    except OSError:
                        break
                    time.sleep(pause)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    "chunks", [(), (b"HTTP/1.1 200",), (HEAD + b'{"scores": [{"val',), (b"not http at all\r\n\r\n",)]
)
def test_half_an_answer_is_no_answer(chunks, monkeypatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.01)
    for scores in both(Client(raw_server(*chunks), patience=0.02, say=lambda _: None)):
        assert {s.status for s in scores} == {"error"}
        assert "cannot be reached or broke off" in scores[0].reason


def test_an_answer_that_drips_is_cut_off_in_time():
    url = raw_server(HEAD, *[b" "] * 100, pause=0.05)
    started = time.monotonic()
    for scores in both(Client(url, timeout=0.3, patience=0, say=lambda _: None)):
        assert "did not answer within 0.3 s" in scores[0].reason
    assert time.monotonic() - started < 1.5


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_nobody_there(monkeypatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.02)
    url, said = f"http://127.0.0.1:{free_port()}", []
    started = time.monotonic()
    scores = Client(url, patience=0.3, say=said.append).score(ROWS)
    assert 0.3 <= time.monotonic() - started < 1.5
    assert {s.status for s in scores} == {"error"}
    assert len(said) == 1
    assert re.fullmatch(
        re.escape(scores[0].reason) + r", \d+ attempts in 0 s; the rows of this request go without a reward", said[0]
    )
    with pytest.raises(ScoringError, match=r"cannot be reached.*\d+ attempts"):
        Client(url, patience=0.1, on_failure="raise").score(ROWS)


def test_what_has_no_rows_does_not_speak_of_rows(monkeypatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.02)
    said = []
    with pytest.raises(ScoringError, match=r"/v1/models cannot be reached.*, \d+ attempts in 0 s$"):
        Client(f"http://127.0.0.1:{free_port()}", patience=0.2, say=said.append).info()
    assert said == []


def test_a_server_that_is_away_is_waited_for_once_and_not_by_every_request(monkeypatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.02)
    port = free_port()
    client = Client(f"http://127.0.0.1:{port}", patience=0.5, batch=1, say=lambda _: None)
    started = time.monotonic()
    for scores in both(client, ROWS * 10):
        assert {s.status for s in scores} == {"error"}
    assert time.monotonic() - started < 3.0  # 60 requests, each of which would have had half a second
    with playing(Server(port)) as server:
        server.replies = [(503, {}, b""), words]
        assert client.score(ROWS[:1])[0].status == "error"  # it has not answered yet
        assert client.score(ROWS[:1]) == [1.0]
        server.replies = [(503, {}, b""), words]
        assert client.score(ROWS[:1]) == [1.0]  # it has, and is waited for again


@pytest.mark.parametrize("which", ["score", "ascore"])
def test_a_server_that_comes_back_is_waited_for_and_both_are_told(which, monkeypatch):
    """By default, longer than a few tries in a few seconds, and with a sentence for the whole wait."""
    monkeypatch.setattr(module, "TOLD_AFTER", 0.2)
    port, said, starting = free_port(), [], threading.Event()
    client = Client(f"http://127.0.0.1:{port}", say=said.append)

    def later():
        time.sleep(0.4)
        starting.set()
        with playing(Server(port)):
            done.wait(20)

    done = threading.Event()
    thread = threading.Thread(target=later)
    thread.start()
    try:
        found = client.score(ROWS) if which == "score" else asyncio.run(client.ascore(ROWS))
    finally:
        done.set()
        thread.join()
    assert starting.is_set()
    assert found == [1.0, 2.0, 3.0]
    assert len(said) == 2
    assert re.search(r"cannot be reached .*; waiting for it, (300|299) s at most", said[0])
    assert re.fullmatch(r"the server answers again, after \d s", said[1])


@pytest.mark.parametrize(("on_failure", "seconds"), [("mask", 300), ("raise", 300), ("wait", 1800)])
def test_how_long_it_waits_by_default(on_failure, seconds, monkeypatch):
    now = SimpleNamespace(time=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.time))
    patience = Client("http://h", on_failure=on_failure, say=lambda _: None)._server.patience
    attempts, busy = module.Attempts(patience), module.Failure("busy", again=True)
    assert attempts.pause(busy) <= 0.5
    now.time += seconds - 0.25
    assert attempts.pause(busy) <= 0.25  # never beyond the end
    now.time += 0.25
    if on_failure == "mask":
        assert attempts.pause(busy) is None
    else:
        with pytest.raises(ScoringError, match=f"busy, 3 attempts in {seconds} s"):
            attempts.pause(busy)


def test_waiting_ends_when_patience_does(server):
    server.replies = [(503, {}, b"")]
    started = time.monotonic()
    with pytest.raises(ScoringError, match=r"answered 503, \d+ attempts in 0 s; mend the server and resume"):
        Client(server.url, on_failure="wait", patience=0.4, say=lambda _: None).score(ROWS)
    assert 0.4 <= time.monotonic() - started < 1.5
    with pytest.raises(ScoringError, match=r"answered 500 .*mend the server"):  # no use in waiting
        server.replies = [(500, {}, b"no")]
        Client(server.url, on_failure="wait").score(ROWS)


def test_with_closes_the_connections(server):
    with Client(server.url) as client:
        assert client.score(ROWS) == [1.0, 2.0, 3.0]
    with pytest.raises(RuntimeError, match="closed"):
        client.score(ROWS)

    async def run():
        async with Client(server.url) as client:
            assert await client.ascore(ROWS) == [1.0, 2.0, 3.0]
            kept = client._server.ahere()
        assert kept.is_closed
        with pytest.raises(RuntimeError, match="closed"):
            client.score(ROWS)

    asyncio.run(run())


def test_pauses_grow_and_are_drawn_at_random(monkeypatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.5)
    attempts = module.Attempts(module.Patience(1e9, "mask", say=lambda _: None))
    pauses = [attempts.pause(module.Failure("busy", again=True)) for _ in range(60)]
    for number, pause in enumerate(pauses):
        highest = min(30.0, 0.5 * 2**number)
        assert 0.1 * highest <= pause <= highest
    assert len(set(pauses)) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "127.0.0.1:8000"}, "write http://host:port"),
        ({"url": "ftp://host"}, "write http://host:port"),
        ({"url": "http://"}, "write http://host:port"),
        ({"url": "http://h:port"}, "write http://host:port"),
        ({"url": "http://h", "timeout": 0}, "must be above 0"),
        ({"url": "http://h", "batch": 0}, "must be above 0"),
        ({"url": "http://h", "patience": -1}, "patience not below"),
        ({"url": "http://h", "on_failure": "zero"}, "choose mask, wait or raise"),
    ],
)
def test_clients_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        Client(**options)
