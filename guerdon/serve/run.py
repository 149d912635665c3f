"""The process: a listening socket, signals, and an end that leaves nobody without an answer."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from guerdon.serve.call import Refused
from guerdon.serve.config import ServeConfig
from guerdon.serve.service import Service
from guerdon.types import ConfigError

if sys.platform != "win32":
    import resource

logger = logging.getLogger("guerdon.serve")
_OTHER_FILES = 128  # that are open beside the connections
_LAST_WORDS = 0.5  # seconds for the answers of those that are refused at the end


class Server(uvicorn.Server):
    """uvicorn, with an end of our own: after SIGTERM or SIGINT new requests are refused with 503 while those under way are
    finished, for at most `drain_seconds`; those that are not get 503 as well, and the process ends with status 0.
    """

    def __init__(self, config: uvicorn.Config, service: Service, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self.service, self.say = service, say
        self._drain: asyncio.Task[None] | None = None
        self._is_urgent = False

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            scheme = "https" if self.config.is_ssl else "http"
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            self.say(f"serving {', '.join(self.service.names)} at {scheme}://{host}:{port}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals begin the end; a second one makes it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self.stop)
        try:
            yield
        finally:
            for sign in (signal.SIGTERM, signal.SIGINT):
                with suppress(RuntimeError):
                    loop.remove_signal_handler(sign)

    def stop(self) -> None:
        """Refuse what comes, finish what is here, end. A second call refuses what is here, too."""
        if self._drain is not None:
            self._is_urgent = True
            return
        self.service.is_draining = True
        self._drain = asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.service.config.drain_seconds
        while self.server_state.tasks and loop.time() < until and not self._is_urgent:
            await asyncio.sleep(0.05)
        self.service.engine.refuse(Refused(503, "the server has stopped; ask another one", 5.0, "draining"))
        until = loop.time() + _LAST_WORDS
        while self.server_state.tasks and loop.time() < until:
            await asyncio.sleep(0.01)
        self.should_exit = self.force_exit = True  # who has not read his answer by now will not


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request head does not come whole in time, or is too large; uvicorn alone would wait for ever
    and keep all of it.
    """

    head_seconds = 30.0
    head_bytes = 65536
    most = 4096  # open connections; requests of those after them are marked, for the door to refuse

    def connection_made(self, transport: Any) -> None:
        self._head: asyncio.TimerHandle | None = None
        self._size = 0
        super().connection_made(transport)
        self._is_beyond = len(self.connections) > self.most
        self._begin()

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._size += len(data)
        super().data_received(data)
        if self._head is not None and self._size > self.head_bytes and not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["guerdon.beyond"] = self._is_beyond  # type: ignore[typeddict-unknown-key]
        self._begin()

    def on_headers_complete(self) -> None:
        self._end()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._end()
        self._head = self.loop.call_later(self.head_seconds, self.transport.close)

    def _end(self) -> None:
        if self._head is not None:
            self._head.cancel()
        self._head, self._size = None, 0


def configured(app: ASGIApp, config: ServeConfig, **more: Any) -> uvicorn.Config:
    """uvicorn as we use it: nothing of its own in the log, and no address taken from a header that anybody may send."""
    part = {"head_seconds": config.body_seconds, "most": admitted(config.connections)}
    protocol: Any = type("Protocol", (Protocol,), part)
    options: dict[str, Any] = {
        "host": config.host,
        "http": protocol,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": int(config.idle_seconds),
        "h11_max_incomplete_event_size": 65536,
        "timeout_graceful_shutdown": 5,
        "ssl_certfile": config.tls_cert,
        "ssl_keyfile": config.tls_key,
    }
    return uvicorn.Config(app, **options | more)


def admitted(connections: int) -> int:
    """So many connections as were asked for, or fewer, with a warning, where the system lets a process open no more files. Its
    soft limit is raised as far as it may be.
    """
    if sys.platform == "win32":
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            most = max(1, soft - _OTHER_FILES)
            logger.warning(
                "--connections %d: this process may open %d files (ulimit -Hn); %d connections are taken",
                connections, soft, most,
            )  # fmt: skip
            return most
    return connections


def require_certificate(cert: str, key: str) -> None:
    """Raise ConfigError for a certificate and a private key that https cannot be spoken with."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        why = getattr(error, "reason", None) or error.strerror or error
        raise ConfigError(
            f"--tls-cert {cert} --tls-key {key}: are no certificate and its private key, both in PEM and the key without a "
            f"password ({why})"
        ) from error


def serve(app: ASGIApp, service: Service, say: Callable[[str], None], at: socket.socket) -> None:
    """Answer requests at a socket until SIGTERM or SIGINT, then finish those under way."""
    set_up_log()
    sys.setswitchinterval(0.001)  # the scoring thread asks for the interpreter after every operation of the model
    server = Server(configured(app, service.config), service, say)
    try:
        server.run([at])
    finally:
        service.close()
    if not server.started:
        raise SystemExit(1)


def set_up_log() -> None:
    """A JSON object a line on stderr, from us and from uvicorn."""
    import json
    import time

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.name == "guerdon.serve.requests":
                return record.getMessage()
            line = {"time": round(time.time(), 3), "level": record.levelname.lower(), "message": record.getMessage()}
            if record.exc_info:
                line["traceback"] = self.formatException(record.exc_info)
            return json.dumps(line)

    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    for name, level in (("guerdon.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
