"""The chat client against a server that misbehaves: what is asked again, what is not, and what it cost."""

from __future__ import annotations

import socket
import time

import pytest
from chat_server import ChatServer, completion

from guerdon.collect import chat_api as module
from guerdon.collect.chat_api import ChatApi, ChatError, Prices, Usage, in_parallel
from guerdon.types import ConfigError

ASK = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_BACKOFF", 0.02)
    for name in (*module.KEYS, *module.URLS):
        monkeypatch.delenv(name, raising=False)
    made = []

    def start(*replies):
        """A server that plays the replies, the last of them for ever."""
        left = list(replies)
        made.append(ChatServer(lambda body: left.pop(0) if len(left) > 1 else left[0]))
        return made[-1]

    yield start
    for server in made:
        server.stop()


def test_an_answer_its_model_and_its_tokens(serve):
    server = serve(completion("because", tokens=(12, 3), model="real-name"))
    api = ChatApi(server.url, key="secret", options={"temperature": 0.5})
    reply = api.ask("m", ASK, seed=7)
    assert (reply.text, reply.finish, reply.model, reply.tokens) == ("because", "stop", "real-name", (12, 3))
    path, headers, body, _ = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {"model": "m", "messages": ASK, "temperature": 0.5, "seed": 7}
    assert "secret" not in repr(api)
    assert api.usage.cost(Prices(2.0, 10.0)) == pytest.approx((12 * 2 + 3 * 10) / 1e6)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_did_not_answer_is_asked_again(serve, status):
    server = serve((status, {}, b"busy"), (status, {}, b"busy"), "yes")
    api = ChatApi(server.url)
    assert api.ask("m", ASK).text == "yes"
    assert (len(server.requests), api.usage.calls, api.usage.unsure) == (3, 1, 0)


@pytest.mark.parametrize(("status", "fatal"), [(400, False), (401, True), (403, True), (404, True), (422, False)])
def test_a_refusal_is_final(serve, status, fatal):
    server = serve((status, {}, b'{"error": "no such thing"}'))
    with pytest.raises(ChatError, match=f"answered {status} .*no such thing") as caught:
        ChatApi(server.url, key="secret").ask("m", ASK)
    assert caught.value.fatal is fatal
    assert "secret" not in str(caught.value)
    assert len(server.requests) == 1


def test_an_exhausted_quota_is_not_waited_for(serve):
    server = serve((429, {}, b'{"error": {"code": "insufficient_quota"}}'))
    with pytest.raises(ChatError, match="insufficient_quota") as caught:
        ChatApi(server.url).ask("m", ASK)
    assert caught.value.fatal
    assert len(server.requests) == 1


def test_retry_after_holds_back_every_call(serve):
    server = serve((429, {"Retry-After": "1"}, b""), "yes")
    api = ChatApi(server.url, connections=3)
    assert all(not isinstance(r, ChatError) for _, r in in_parallel(range(3), lambda _: api.ask("m", ASK), 1))
    first, *later = [at for *_, at in server.requests]
    assert min(later) - first >= 1.0
    server = serve((503, {"Retry-After": "9999"}, b""))
    with pytest.raises(ChatError, match="503"):
        ChatApi(server.url).ask("m", ASK)
    assert len(server.requests) == 1


def test_a_reply_that_breaks_off_is_tried_once_more_and_counted(serve):
    api = ChatApi(serve("hang up", "yes").url)
    assert api.ask("m", ASK).text == "yes"
    assert api.usage.unsure == 1
    server = serve("hang up")
    api = ChatApi(server.url)
    with pytest.raises(ChatError, match=r"broke off.*2 attempts"):
        api.ask("m", ASK)
    assert (len(server.requests), api.usage.unsure) == (2, 2)
    assert "may be billed" in api.usage.render(Prices())


def test_a_slow_server_is_given_up(serve):
    api = ChatApi(serve(("wait", 1.0)).url, timeout=0.15)
    started = time.monotonic()
    with pytest.raises(ChatError, match="did not answer within"):
        api.ask("m", ASK)
    assert time.monotonic() - started < 0.8


def test_a_server_that_is_not_there_is_retried_and_never_billed(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_BACKOFF", 0.01)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = ChatApi(f"http://127.0.0.1:{port}/v1", retries=2)
    with pytest.raises(ChatError, match=r"cannot be reached.*3 attempts"):
        api.ask("m", ASK)
    assert api.usage.unsure == 0


@pytest.mark.parametrize(
    "reply",
    [b"<html>", b"[]", {"choices": []}, {"choices": [{"message": {"content": None, "refusal": "I will not"}}]}, {}],
)
def test_what_is_no_answer_is_never_one(serve, reply):
    server = serve(
        reply if isinstance(reply, bytes) else reply | {"usage": {"prompt_tokens": 4, "completion_tokens": 2}}
    )
    api = ChatApi(server.url)
    with pytest.raises(ChatError):
        api.ask("m", ASK)
    assert len(server.requests) == 1
    assert api.usage.prompt_tokens == (0 if isinstance(reply, bytes) else 4)  # it is billed all the same


def test_answers_without_a_count_are_counted_as_such(serve):
    api = ChatApi(serve(completion("yes", tokens=None)).url)
    api.ask("m", ASK)
    assert api.usage.unmetered == 1
    assert "1 without a token count" in api.usage.render(Prices(1, 1))
    assert "cost not known" in Usage().render(Prices(1, None))


def test_jobs_run_side_by_side_and_errors_stay_with_their_job(serve):
    def work(job):
        time.sleep(0.03)
        if job == 3:
            raise ChatError("no")
        return job * job

    taken = []
    results = dict(in_parallel((taken.append(i) or i for i in range(10)), work, 4))
    assert {k: v for k, v in results.items() if k != 3} == {i: i * i for i in range(10) if i != 3}
    assert isinstance(results[3], ChatError)
    server = ChatServer(lambda body: ("wait", 0.05))
    api = ChatApi(server.url, connections=4)
    assert len(list(in_parallel(range(12), lambda _: api.ask("m", ASK), 4))) == 12
    assert server.most <= 4
    server.stop()


def test_a_fatal_error_ends_the_run():
    done = []

    def work(job):
        if job == 2:
            raise ChatError("no such key", fatal=True)
        done.append(job)
        return job

    with pytest.raises(ChatError, match="no such key"):
        list(in_parallel(range(1000), work, 2))
    assert len(done) < 10


@pytest.mark.parametrize(
    ("url", "call"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("https://h/api/v3", "https://h/api/v3/chat/completions"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
    ],
)
def test_addresses(url, call):
    assert ChatApi(url).call == call


def test_addresses_that_cannot_be_used_and_the_environment(monkeypatch):
    monkeypatch.delenv("GUERDON_CHAT_URL", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for url in ("", "ftp://h", "h:1", "http://"):
        with pytest.raises(ConfigError):
            ChatApi(url)
    with pytest.raises(ConfigError, match="timeout"):
        ChatApi("http://h", timeout=0)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://from-environment/v1")
    assert ChatApi().call.startswith("http://from-environment/v1/chat")
