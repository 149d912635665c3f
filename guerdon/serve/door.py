"""What every request passes, whatever its dialect: request id, key, size and time limits, disconnects, metrics, the log.

A plain ASGI layer around the application. It reads the body itself, so that limits hold for every route, and cancels the
handler when its client has gone, so that what nobody waits for is dropped from the queue.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guerdon.serve import replies
from guerdon.serve.call import Refused
from guerdon.serve.keys import Guesses, Key, KeyRing, token_of
from guerdon.serve.service import Service

logger = logging.getLogger("guerdon.serve.requests")
STREAMED = ("/v1/score/stream",)  # read line by line by their handlers
_OPEN = ("/health", "/ready")
_LINGER, _LINGER_BYTES = 2.0, 64 << 20  # for a client that goes on sending what was refused
_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_LOOPBACK = re.compile(r"(?:(?:[^:@/]+\.)?localhost|127(?:\.\d{1,3}){3}|\[?::1\]?)", re.IGNORECASE)

Refuse = Callable[[Refused], Response]
Handler = Callable[[Request], Awaitable[Response]]


class Door:
    """ASGI middleware.

    refuse  gives the function that writes an error in the envelope of a path's dialect
    direct  path -> handler of POST requests that are answered without the layers in between: they cost more than the handler
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        keys: KeyRing | None,
        refuse: Callable[[str], Refuse],
        direct: Mapping[str, Handler],
    ) -> None:
        self.app, self.service, self.keys, self.refuse, self.direct = app, service, keys, refuse, direct
        self.guesses = Guesses(service.config.guesses)
        self.most = int(service.config.max_body * 1e6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await _Visit(self, scope, receive, send).serve()
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})


class _Visit:
    """One request."""

    def __init__(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        self.door, self.scope, self.receive, self.forward = door, scope, receive, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.id = given if _ID.fullmatch(given) else secrets.token_hex(8).encode()
        scope["guerdon.id"] = self.id.decode("ascii")
        self.path: str = scope["path"]
        self.status = 0
        self.reason = ""
        self.is_gone = self.is_over = False
        self.key: Key | None = None

    async def serve(self) -> None:
        metrics, started = self.door.service.metrics, time.perf_counter()
        metrics.open.inc()
        try:
            try:
                if self.scope.get("guerdon.beyond"):
                    raise Refused(503, "the server has all the connections open that it takes", 1.0, "connections")
                self._require_own_name()
                self._require_own_page()
                self._require_key()
                await self._answer()
            except Refused as refused:
                await self._refuse(refused)
            except Exception:  # our own mistake, wherever it was made
                logging.getLogger("guerdon.serve").exception("request %s failed", self.scope["guerdon.id"])
                if self.status:  # half of the answer has gone: an end that cannot be taken for a whole one
                    self.reason = "failure"
                    raise
                mistake = "the server made a mistake; its log has the traceback under this request id"
                await self._refuse(Refused(500, mistake, kind="failure"))
        finally:
            self.is_over = True
            metrics.open.dec()
            seconds = time.perf_counter() - started
            route = self._route()
            metrics.requests.labels(route, str(self.status)).inc()
            metrics.seconds.labels(route).observe(seconds)
            if self.status >= 400 and self.reason:
                metrics.refused.labels(self.reason).inc()
            self._log(seconds)

    def _require_own_name(self) -> None:
        """Raise Refused (421) for another host's name where a server for this machine alone has no keys: a foreign page may have its
        name resolve to this machine and would then pass for a page of ours (DNS rebinding).
        """
        host = re.sub(r":\d+$", "", self.headers.get(b"host", b"localhost").decode("latin-1"))
        listens = (self.scope.get("server") or ("",))[0]
        is_private = self.door.keys is None and not self.door.service.config.no_keys
        if is_private and _LOOPBACK.fullmatch(listens) and not _LOOPBACK.fullmatch(host):
            raise Refused(
                421,
                f"without keys this server answers to localhost alone, not to {host[:100]!r}; start it with --keys, or --no-keys",
                kind="host",
            )

    def _require_own_page(self) -> None:
        """Raise Refused (403) for a request that a page of another site has a browser send: the browser would add the key that
        its user typed, and reach a server that listens on this machine alone.
        """
        if self.scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return
        origin = self.headers.get(b"origin")
        site = self.headers.get(b"sec-fetch-site", b"same-origin")
        is_own = origin is None or origin.partition(b"://")[2] == self.headers.get(b"host")
        if not is_own or site not in (b"same-origin", b"none"):
            raise Refused(403, "a page of another site may not send this; call from a program", kind="origin")

    def _require_key(self) -> None:
        """Raise Refused (401, 429) for a request without a right key."""
        door = self.door
        if door.keys is None or (door.service.config.open_health and self.path in _OPEN):
            self.scope["guerdon.key"], self.scope["guerdon.admin"] = "", door.keys is None
            return
        address = (self.scope.get("client") or ("",))[0]
        token = token_of(self.headers)
        if not (token and door.keys.known(token)):
            door.guesses.require_few(address)
        self.key = door.keys.find(token) if token else None
        if self.key is None:
            if token is not None:
                door.guesses.wrong(address)
            raise Refused(
                401,
                "an API key is needed: Authorization: Bearer KEY" if token is None else "the API key is wrong",
                kind="key",
            )
        self.scope["guerdon.key"], self.scope["guerdon.admin"] = self.key.name, self.key.admin

    async def _answer(self) -> None:
        if self.path in STREAMED or self.scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.door.app(self.scope, self.receive, self._send)
            return
        body = await self._body()
        task = asyncio.current_task()
        assert task is not None
        watcher = asyncio.ensure_future(self.receive())  # the next thing to come, once the body is here, is the end

        def gone(_: Any) -> None:
            if not (self.is_over or watcher.cancelled()):
                self.is_gone = True
                task.cancel()

        watcher.add_done_callback(gone)
        rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            if rest:
                return rest.pop()
            await asyncio.shield(watcher)
            return {"type": "http.disconnect"}

        try:
            handler = self.door.direct.get(self.path) if self.scope["method"] == "POST" else None
            if handler is None:
                await self.door.app(self.scope, replay, self._send)
            else:
                await self._direct(handler, replay)
        except asyncio.CancelledError:
            if not self.is_gone:
                raise
            task.uncancel()
            self.status, self.reason = 499, "gone"
        finally:
            self.is_over = True
            watcher.cancel()

    async def _direct(self, handler: Handler, replay: Receive) -> None:
        self.scope["endpoint"] = handler
        response = await handler(Request(self.scope, replay))
        await response(self.scope, replay, self._send)

    async def _body(self) -> bytes:
        """The whole body. Raises Refused: 413 beyond the limit, by its declared length where there is one; 408 when it takes
        too long, 400 when it breaks off."""
        most = self.door.most
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > most:
            raise self._too_large()
        message = await self._part(self.door.service.config.body_seconds)
        body = message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)
        parts, size, until = [body], len(body), time.monotonic() + self.door.service.config.body_seconds
        while message.get("more_body"):
            message = await self._part(until - time.monotonic())
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise self._too_large()
        return b"".join(parts)

    async def _part(self, seconds: float) -> Message:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                message = await self.receive()
        except TimeoutError:
            limit = self.door.service.config.body_seconds
            raise Refused(408, f"the request did not arrive within {limit:g} s", kind="slow") from None
        if message["type"] == "http.disconnect":
            self.is_gone = True
            raise Refused(400, "the request broke off", kind="gone")
        return message

    def _too_large(self) -> Refused:
        limit = self.door.service.config.max_body
        return Refused(
            413, f"the request is larger than {limit:g} MB; divide it, or stream it to /v1/score/stream", kind="size"
        )

    async def _refuse(self, refused: Refused) -> None:
        """Answer in the envelope of the dialect. After 408 and 413 the connection ends: what still comes is not read as a
        request. The client gets a moment to stop sending first, or it would see a broken connection and no answer."""
        self.reason = refused.kind
        if self.is_gone:
            self.status = 499
            return
        refuse = self.door.refuse(self.path)
        native = refuse is replies.refuse
        response = replies.refuse(refused, self.scope["guerdon.id"]) if native else refuse(refused)
        if refused.status in (408, 413) or refused.kind == "connections":
            response.headers["Connection"] = "close"
        if refused.status == 401:
            is_browser = b"text/html" in self.headers.get(
                b"accept", b""
            )  # which asks its user for a password only for this
            response.headers["WWW-Authenticate"] = 'Basic realm="guerdon"' if is_browser else "Bearer"
        headers = [*response.raw_headers]
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        linger = refused.status == 413
        await self._send({"type": "http.response.body", "body": response.body, "more_body": linger})
        if linger:
            await self._linger()
            await self._send({"type": "http.response.body", "body": b""})

    async def _linger(self) -> None:
        left = _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER):
                while left > 0:
                    message = await self.receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return
        except TimeoutError:
            pass

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id)]
            self.reason = self.reason or self.scope.get("guerdon.reason", "")
            if self.door.service.is_draining:
                message["headers"].append((b"connection", b"close"))
        await self.forward(message)

    def _route(self) -> str:
        """The path with its parameters as names; `unknown` for what no route answers, so that there are few labels."""
        if (self.status in (404, 405) and "endpoint" not in self.scope) or (
            "endpoint" not in self.scope and not self.reason
        ):
            return "unknown"
        if "endpoint" not in self.scope:
            return "refused"
        path = self.path
        for name, value in self.scope.get("path_params", {}).items():
            if name != "path":
                path = path.replace(f"/{value}", "/{" + name + "}")
        return path

    def _log(self, seconds: float) -> None:
        if self.door.service.config.log == "problems" and self.status < 400:
            return
        client = self.scope.get("client")
        record = {
            "time": round(time.time(), 3),
            "id": self.scope["guerdon.id"],
            "method": self.scope["method"],
            "path": self.path,
            "status": self.status,
            "ms": round(1000 * seconds, 2),
            "client": client[0] if client else None,
            "key": self.key.name if self.key else None,
        } | self.scope.get("guerdon.log", {})
        if self.reason:
            record["reason"] = self.reason
        logger.info("%s", json.dumps(record))


def refusal(envelopes: Mapping[str, Refuse], default: Refuse) -> Callable[[str], Refuse]:
    """The function that writes errors for a path: that of the dialect at it or under whose prefix it lies, else the native one."""

    def choose(path: str) -> Refuse:
        prefix = "/" + path.split("/", 2)[1] if path.startswith("/") else ""
        return envelopes.get(path) or envelopes.get(prefix, default)

    return choose
