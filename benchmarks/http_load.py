"""A lean HTTP/1.1 load generator: kept-alive connections, requests written beforehand, replies cut by Content-Length.

It leaves the second core to the server: a request costs some 50 microseconds. Closed loop: so many callers, each with one
request under way. Open loop: so many requests a second, however long the answers take.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


def post(path: str, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request."""
    content = json.dumps(body).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@dataclass
class Result:
    """What came of a load.

    status   HTTP status, or `broken`, -> how many
    latency  seconds of each answer with 200
    in_time  answers with 200 that came while requests were still being sent (open loop)
    """

    seconds: float = 0.0
    status: Counter[int | str] = field(default_factory=Counter)
    latency: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    in_time: int = 0

    @property
    def per_second(self) -> float:
        return self.status[200] / self.seconds

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the good answers came."""
        ordered = sorted(self.latency)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Connection(asyncio.Protocol):
    """One kept-alive connection with one request under way."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.rest = bytearray()
        self.reply: asyncio.Future[tuple[int | str, bytes]] | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        _, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return made

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[tuple[int | str, bytes]]:
        self.reply = asyncio.get_running_loop().create_future()
        if self.transport.is_closing():
            self.reply.set_result(("broken", b""))
        else:
            self.transport.write(request)
        return self.reply

    def data_received(self, data: bytes) -> None:
        self.rest += data
        end = self.rest.find(b"\r\n\r\n")
        if end < 0 or self.reply is None:
            return
        head = bytes(self.rest[:end]).lower()
        size = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self.rest) >= end + 4 + size:
            body = bytes(self.rest[end + 4 : end + 4 + size])
            del self.rest[: end + 4 + size]
            reply, self.reply = self.reply, None
            if not reply.done():
                reply.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        if self.reply is not None and not self.reply.done():
            self.reply.set_result(("broken", b""))


async def closed_loop(port: int, requests: Iterable[bytes], callers: int, keep: bool = False) -> Result:
    """So many callers, each asking for the next request when its last is answered."""
    result, rest = Result(), iter(requests)

    async def call(connection: Connection) -> None:
        for request in rest:
            started = time.perf_counter()
            status, body = await connection.ask(request)
            _note(result, status, time.perf_counter() - started)
            if keep:
                result.bodies.append(body)

    connections = [await Connection.open(port) for _ in range(callers)]
    started = time.perf_counter()
    await asyncio.gather(*map(call, connections))
    result.seconds = time.perf_counter() - started
    for connection in connections:
        connection.transport.close()
    return result


async def open_loop(port: int, requests: Iterator[bytes], rate: float, seconds: float, timeout: float = 60.0) -> Result:
    """`rate` requests a second for so long, on as many connections as that takes; waits for the last answers."""
    result, free, tasks = Result(), list[Connection](), set[asyncio.Task[None]]()

    async def one(request: bytes) -> None:
        try:
            connection = free.pop() if free else await Connection.open(port)
            begun = time.perf_counter()
            status, _ = await asyncio.wait_for(connection.ask(request), timeout)
        except (OSError, TimeoutError) as error:
            result.status["no answer" if isinstance(error, TimeoutError) else "refused connection"] += 1
            return
        _note(result, status, time.perf_counter() - begun)
        result.in_time += status == 200 and time.perf_counter() - started < seconds
        if status != "broken" and not connection.transport.is_closing():
            free.append(connection)

    started = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - started) < seconds:
        while sent < now * rate:
            task = asyncio.ensure_future(one(next(requests)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        await asyncio.sleep(0.002)
    result.seconds = time.perf_counter() - started
    await asyncio.gather(*tasks)
    for connection in free:
        connection.transport.close()
    return result


def _note(result: Result, status: int | str, seconds: float) -> None:
    result.status[status] += 1
    if status == 200:
        result.latency.append(seconds)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and range."""
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2] if len(ordered) % 2 else sum(ordered[len(ordered) // 2 - 1 :][:2]) / 2
    return f"{middle:,.{digits}f} ({ordered[0]:,.{digits}f} to {ordered[-1]:,.{digits}f})"
