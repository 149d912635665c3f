"""What the tests of the server share: a model whose speed and mishaps are ours to set, and an application in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx2
import torch

from guerdon.aggregate import parse_rule
from guerdon.model.ready import Ready
from guerdon.serve.app import create_app
from guerdon.serve.config import ServeConfig
from guerdon.serve.run import Server, configured
from guerdon.serve.service import Service
from guerdon.types import Score


@dataclass(eq=False)
class Letters:
    """Scores a text by its letters, one token each, and notes what it was asked for. `gate` holds it up, `mishap` spoils it."""

    gate: threading.Event = field(default_factory=threading.Event)
    mishap: Callable[[str], None] = lambda text: None
    batches: list[list[str]] = field(default_factory=list)
    contract: Any = field(default_factory=lambda: SimpleNamespace(hash="letters", golden=(), temperature=None))
    fingerprint: str = "letters"
    members: int = 1
    shares_prefix: bool = False
    device: Any = field(default_factory=lambda: torch.device("cpu"))
    encoder: Any = field(default_factory=lambda: SimpleNamespace(max_length=1000, tokenizer=None))
    rule: Any = field(default_factory=lambda: parse_rule("mean"))

    def __post_init__(self) -> None:
        self.gate.set()

    def encode(self, talks: Sequence[Any]) -> list[str]:
        return ["\n".join(message["content"] for message in talk) for talk in talks]

    def encode_texts(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def encode_ids(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return ["i" * sum(row) for row in rows]

    def score(self, talks: Sequence[Any]) -> list[Score]:
        return [Score(value_of(text), tokens=max(1, len(text))) for text in self.encode(talks)]

    def stream(self, texts: Sequence[str], **_: Any) -> Iterator[Ready]:
        self.batches.append(list(texts))
        assert self.gate.wait(20)
        for text in texts:
            self.mishap(text)
        scores = [Score(value_of(text), tokens=max(1, len(text))) for text in texts]
        yield Ready(list(range(len(texts))), scores, None, sum(map(len, texts)))

    @property
    def scored(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


def value_of(text: str) -> float:
    return float(sum(map(ord, text)) % 997)


def talk(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def service_of(model: Any = None, **options: Any) -> Service:
    return Service({"rm": model if model is not None else Letters()}, ServeConfig(**options))


@asynccontextmanager
async def client_of(service: Service, **more: Any) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(service, **more))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def settled(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds; fail when it never does."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.002)


@contextmanager
def listening(
    service: Service, head_seconds: float = 30.0, tls: tuple[str, str] | None = None, port: int = 0, **more: Any
) -> Iterator[tuple[int, Server]]:
    """The service behind a real socket, in a thread; yields port and server. `tls` has the files of certificate and key."""
    lines: list[str] = []
    config = configured(
        create_app(service, **more), service.config, port=port, ssl_certfile=tls and tls[0], ssl_keyfile=tls and tls[1]
    )
    config.http.head_seconds = head_seconds  # type: ignore[union-attr]
    server = Server(config, service, lines.append)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = threading.Event()
    for _ in range(1000):
        if lines:
            break
        until.wait(0.01)
    try:
        yield int(lines[0].rpartition(":")[2]), server
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
        service.close()
