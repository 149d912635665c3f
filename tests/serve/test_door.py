"""What every request passes: keys on every route, limits on size and time, ids, and callers that hang up."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from contextlib import suppress

import httpx2
import pytest
from serving import Letters, client_of, listening, service_of, settled
from starlette.routing import Mount

from guerdon.serve.app import create_app
from guerdon.serve.keys import KeyRing, add_key, read_keys, remove_key
from guerdon.types import ConfigError


@pytest.fixture
def ring(tmp_path):
    return add_key(tmp_path / "keys.json", "trainer"), KeyRing(tmp_path / "keys.json")


def paths_of(routes, prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for route in routes:
        if isinstance(route, Mount):
            found += paths_of(route.routes, prefix + route.path)
        else:
            methods = getattr(route, "methods", None) or {"GET"}
            method = min(methods - {"HEAD"} or methods)
            found.append((method, prefix + route.path.replace("{name}", "rm").replace("{model}", "rm")))
    return found


def test_every_route_asks_for_a_key(ring):
    token, keys = ring
    service = service_of(guesses=100_000)
    app = create_app(service, "vllm", keys)
    routes = paths_of(app.routes)
    assert {"/v1/score", "/metrics", "/openapi.json", "/docs", "/health"} <= {path for _, path in routes}

    async def go() -> None:
        async with client_of(service, dialect="vllm", keys=keys) as client:
            for method, path in [*routes, ("GET", "/nothing"), ("PUT", "/v1/score"), ("OPTIONS", "/v1/score")]:
                for headers in ({}, {"Authorization": "Bearer grd_00000000_x"}, {"X-API-Key": token + "x"}):
                    reply = await client.request(method, path, headers=headers)
                    assert reply.status_code == 401, (method, path)
            assert (await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})).status_code == 200
            browser = await client.get("/docs", headers={"Accept": "text/html,*/*"})
            assert browser.headers["WWW-Authenticate"] == 'Basic realm="guerdon"'  # it asks its user then

    asyncio.run(go())


def test_a_key_may_come_in_any_of_the_usual_places(ring):
    token, keys = ring
    basic = base64.b64encode(f"user:{token}".encode()).decode()

    async def go() -> None:
        async with client_of(service_of(), keys=keys) as client:
            for headers in (
                {"Authorization": f"Bearer {token}"},
                {"authorization": f"bearer  {token}"},
                {"X-API-Key": token},
                {"api-key": token},
                {"Authorization": f"Basic {basic}"},
            ):
                assert (await client.get("/v1/models", headers=headers)).status_code == 200
            for headers in ({"Authorization": token}, {"Authorization": "Basic !"}, {"X-API-Key": b"\xff"}):
                reply = await client.get("/v1/models", headers=headers)
                assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer")

    asyncio.run(go())


def test_keys_are_kept_as_hashes_and_can_be_taken_away(tmp_path):
    path = tmp_path / "keys.json"
    token = add_key(path, "a")
    assert token.rpartition("_")[2] not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    ring = KeyRing(path)
    assert ring.find(token).name == "a"
    for wrong in ("", token[:-1], token + "a", "grd_", "grd__", token.replace("grd", "sk"), token.swapcase()):
        assert ring.find(wrong) is None
    with pytest.raises(ConfigError, match="already"):
        add_key(path, "a")
    other = add_key(path, "b", admin=True)
    ring._looked -= 2
    assert ring.find(other).admin
    remove_key(path, "a")
    ring._looked -= 2
    assert (ring.find(token), ring.known(token)) == (None, False)
    assert [key.name for key in read_keys(path)] == ["b"]
    path.write_text("{")
    with pytest.raises(ConfigError, match="not a file of keys"):
        read_keys(path)


def test_guessing_is_slowed_down_and_stops_nobody_who_was_right(ring):
    token, keys = ring

    async def go() -> None:
        async with client_of(service_of(guesses=20), keys=keys) as client:
            right = {"Authorization": f"Bearer {token}"}
            assert (await client.get("/ready", headers=right)).status_code == 200
            found = [
                await client.get("/ready", headers={"Authorization": f"Bearer grd_{i:08x}_guess"}) for i in range(100)
            ]
            assert [reply.status_code for reply in found] == [401] * 20 + [429] * 80
            assert 0 < int(found[-1].headers["Retry-After"]) <= 60
            assert (await client.get("/ready", headers=right)).status_code == 200

    asyncio.run(go())


def test_health_may_be_open(ring):
    async def go() -> None:
        async with client_of(service_of(open_health=True), keys=ring[1]) as client:
            codes = [(await client.get(path)).status_code for path in ("/health", "/ready", "/metrics", "/health/")]
            assert codes == [200, 200, 401, 401]

    asyncio.run(go())


def test_requests_have_ids():
    async def go() -> None:
        async with client_of(service_of()) as client:
            mine = await client.post("/v1/score", content="{", headers={"X-Request-Id": "my-id"})
            assert mine.headers["X-Request-Id"] == mine.json()["error"]["request"] == "my-id"
            odd = await client.get("/health", headers={"X-Request-Id": "a b\t"})
            assert odd.headers["X-Request-Id"] not in ("", "a b\t")

    asyncio.run(go())


@pytest.mark.parametrize("path", ["/v1/score", "/v1/best_of_n", "/vllm/classify", "/nemo-gym/verify"])
def test_our_own_mistakes_are_500_with_an_id(monkeypatch, caplog, path):
    async def go() -> None:
        service = service_of()
        monkeypatch.setattr(service, "measure", lambda *_, **__: 1 / 0)
        async with client_of(service) as client:
            bodies = {
                "/vllm/classify": {"input": "a"},
                "/nemo-gym/verify": {
                    "responses_create_params": {"input": "q"},
                    "response": {"output": [{"role": "assistant", "content": "a"}]},
                },
            }
            body = bodies.get(path, {"prompt": "p", "completions": ["a"]})
            reply = await client.post(path, json=body, headers={"X-Request-Id": "q"})
            assert (reply.status_code, reply.headers["X-Request-Id"]) == (500, "q")
            assert "the server made a mistake" in reply.text
            if path.startswith("/v1"):
                assert reply.json()["error"]["request"] == "q"
            elif path == "/nemo-gym/verify":
                assert set(reply.json()) == {"detail"}  # its own envelope
        assert 'status="500"} 1.0' in service.metrics.page().decode()

    asyncio.run(go())
    assert "request q failed" in caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://test"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_a_page_of_another_site_cannot_send_anything(headers, status):
    async def go() -> None:
        async with client_of(service_of()) as client:
            reply = await client.post("/v1/score", json={"texts": ["a"]}, headers=headers)
            assert reply.status_code == status
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
            assert (await client.head("/health")).status_code == 200

    asyncio.run(go())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8300", 200),
        ("LOCALHOST", 200),
        ("model.localhost:1", 200),
        ("127.0.0.1:8300", 200),
        ("127.8.9.1", 200),
        ("[::1]:8300", 200),
        ("evil.example:8300", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("evil.example@localhost", 421),
        ("", 421),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_foreign_name_that_leads_to_this_machine_gets_nothing(host, status, method, ring):
    """Requests over the loopback, by the name in Host; with keys, or where --no-keys was said, any name will do."""
    token, keys = ring
    sent = {"json": {"texts": ["a"]}} if method == "POST" else {}
    headers = {"Host": host, "Authorization": f"Bearer {token}"}

    async def call(keys=None, **options) -> int:
        async with client_of(service_of(**options), keys=keys) as client:
            url = "http://127.0.0.1:8300" + ("/v1/score" if method == "POST" else "/v1/models")
            return (await client.request(method, url, headers=headers, **sent)).status_code

    assert asyncio.run(call()) == status
    assert asyncio.run(call(no_keys=True)) == 200
    assert asyncio.run(call(keys=keys)) == 200


def exchange(port: int, sent: bytes, seconds: float = 10.0) -> bytes:
    """Send bytes and read until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        found = b""
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(sent)
            while part := connection.recv(65536):
                found += part
    return found


def test_bodies_that_are_too_large_or_too_slow():
    with listening(service_of(max_body=0.1, body_seconds=0.5), head_seconds=0.5) as (port, _):
        head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\n"
        started = time.perf_counter()
        large = exchange(port, head + b"Content-Length: 100000000\r\n\r\n" + b"x" * 5_000_000)
        assert large.startswith(b"HTTP/1.1 413")
        chunked = b"".join(b"%x\r\n%s\r\n" % (50_000, b"x" * 50_000) for _ in range(4)) + b"0\r\n\r\n"
        assert exchange(port, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked).startswith(b"HTTP/1.1 413")
        half = exchange(port, head + b"Content-Length: 100\r\n\r\n" + b'{"texts"')
        assert half.startswith(b"HTTP/1.1 408")
        assert b'"kind":"slow"' in half
        assert exchange(port, b"POST /v1/sc") == b""  # no whole request: nobody to answer
        assert exchange(port, b"\x00\x01nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
        head = exchange(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        assert head == b"" or head.startswith(b"HTTP/1.1 431")  # a client that goes on sending may not see the answer
        assert time.perf_counter() - started < 15


@pytest.mark.parametrize(
    "path", ["/v1/../metrics", "//metrics", "/%2e%2e/metrics", "/v1/score%00", "/metrics/", "/..;/metrics"]
)
def test_paths_lead_nowhere_by_tricks(ring, path):
    with listening(service_of(), keys=ring[1]) as (port, _):
        found = exchange(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert found.startswith(b"HTTP/1.1 401")


def test_what_a_client_that_hung_up_had_waiting_is_not_scored():
    model = Letters()
    service = service_of(model)
    with listening(service) as (port, _):

        def ask(text: str) -> socket.socket:
            body = json.dumps({"texts": [text]}).encode()
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            connection.sendall(
                b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            return connection

        model.gate.clear()
        first = ask("first")
        asyncio.run(settled(lambda: len(model.batches) == 1))
        gone = ask("gone")
        asyncio.run(settled(lambda: service.loaded(None).queue.tokens > 0))
        gone.close()
        asyncio.run(settled(lambda: service.loaded(None).queue.tokens == 0))
        model.gate.set()
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        first.close()
        assert model.scored == ["first"]


@pytest.mark.parametrize("calls", [1, 2])
def test_a_stopping_server_refuses_what_it_cannot_finish_in_time(calls):
    """By the limit, or at once when it is told to stop a second time; the batch under way never ends here."""
    import httpx2

    model = Letters()
    service = service_of(model, drain_seconds=0.3 if calls == 1 else 60.0)
    with listening(service) as (port, server):
        model.gate.clear()

        async def go() -> None:
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                asked = [asyncio.create_task(client.post("/v1/score", json={"texts": [text]})) for text in "ab"]
                await settled(lambda: len(service.engine._jobs) == 2)
                for _ in range(calls):
                    service.engine._loop.call_soon_threadsafe(server.stop)
                for reply in await asyncio.wait_for(asyncio.gather(*asked), 5):
                    assert reply.status_code == 503
                    assert reply.headers["Retry-After"] == "5"
                    assert "stopped" in reply.json()["error"]["message"]
                await settled(lambda: server.should_exit)
            assert service.engine.is_busy

        asyncio.run(go())
        model.gate.set()


def test_a_request_that_is_over_is_forgotten():
    async def go() -> None:
        service = service_of()
        async with client_of(service) as client:
            await client.post("/v1/score", json={"texts": ["a"]})
            await client.post("/v1/score", json={"texts": ["a" * 10**6]})
        assert not service.engine._jobs

    asyncio.run(go())


def test_a_stopping_server_finishes_and_refuses():
    model = Letters()
    service = service_of(model)
    with listening(service) as (port, server):
        import httpx2

        base = f"http://127.0.0.1:{port}"
        model.gate.clear()

        async def go() -> None:
            async with httpx2.AsyncClient(base_url=base, trust_env=False) as client:
                under_way = asyncio.create_task(client.post("/v1/score", json={"texts": ["a"]}))
                await settled(lambda: len(model.batches) == 1)
                service.engine._loop.call_soon_threadsafe(server.stop)
                await settled(lambda: service.is_draining)
                refused = await client.post("/v1/score", json={"texts": ["b"]})
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
                assert (await client.get("/ready")).status_code == 503
                assert (await client.get("/health")).status_code == 200
                model.gate.set()
                assert (await under_way).status_code == 200
                await settled(lambda: server.should_exit)

        asyncio.run(go())
    assert model.scored == ["a"]


def test_connections_beyond_the_limit_are_told_so_and_the_others_go_on():
    head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n"
    with (
        listening(service_of(connections=1)) as (port, _),
        socket.create_connection(("127.0.0.1", port), timeout=10) as first,
    ):
        first.sendall(head + b"\r\n" + b'{"texts":["a"]')
        assert first.recv(65536).startswith(b"HTTP/1.1 400")  # one connection is open
        found = exchange(port, head + b"X-Request-Id: mine\r\n\r\n" + b'{"texts":["a"]').lower()
        assert found.startswith(b"http/1.1 503")
        assert b"retry-after: 1\r\n" in found
        assert b"x-request-id: mine\r\n" in found
        assert b"connection: close\r\n" in found
        assert b'"kind":"connections"' in found
        first.sendall(head.replace(b"14", b"15") + b"\r\n" + b'{"texts":["a"]}')
        assert first.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_forwarded_address_is_not_believed(ring):
    with listening(service_of(guesses=2), keys=ring[1]) as (port, _):
        headers = [{"X-API-Key": f"grd_0_{n}", "X-Forwarded-For": f"10.0.0.{n}"} for n in range(3)]
        found = [httpx2.get(f"http://127.0.0.1:{port}/ready", headers=one, trust_env=False) for one in headers]
    assert [reply.status_code for reply in found] == [401, 401, 429]


def test_a_route_that_a_dialect_does_not_have_is_answered_in_its_envelope():
    async def go() -> None:
        async with client_of(service_of()) as client:
            for path, name in (("/tei/nope", "error_type"), ("/nemo-gym/nope", "detail"), ("/nope", "error")):
                reply = await client.post(path, json={})
                assert (reply.status_code, name in reply.json()) == (404, True), reply.text

    asyncio.run(go())


@pytest.mark.parametrize("name", ["z/page", "..", "a/../b", "./a", "a/steps/3"])
def test_no_run_has_the_address_of_another_page(name):
    async def go() -> None:
        async with client_of(service_of()) as client:
            for more in (
                {"json": {"texts": ["a"], "run": name}},
                {"json": {"texts": ["a"]}, "headers": {"X-Guerdon-Run": name}},
            ):
                reply = await client.post("/v1/score", **more)
                assert (reply.status_code, "cannot name a run" in reply.text) == (400, True)
            long = await client.post("/v1/score", json={"texts": ["a"]}, headers={"X-Guerdon-Run": "x" * 257})
            assert long.status_code == 400
            assert (await client.post("/v1/score", json={"texts": ["a"], "run": "a/b ../c.page"})).status_code == 200

    asyncio.run(go())


def test_a_file_of_keys_whose_ids_are_no_texts_is_none(tmp_path):
    add_key(tmp_path / "keys.json", "a")
    found = json.loads((tmp_path / "keys.json").read_text())
    found["keys"][0]["id"] = []
    (tmp_path / "keys.json").write_text(json.dumps(found))
    with pytest.raises(ConfigError, match="not a file of keys"):
        KeyRing(tmp_path / "keys.json")
