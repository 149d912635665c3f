"""Batches of any size in constant memory: a line of JSON in, a line of JSON out, in the order of completion.

Lines are scored while others still arrive. Too much waiting slows the reading down instead of refusing. The last line says
how many there were, so that a reply that broke off is not taken for a whole one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from guerdon.serve import replies
from guerdon.serve.bodies import json_object, line_of
from guerdon.serve.call import Call, Item, Refused
from guerdon.serve.service import Measured, Service
from guerdon.types import Score

CHUNK = 64  # lines that are scored together
_AT_ONCE = 16  # chunks under way
_PAUSE = 0.01  # seconds, at least, before lines for which there was no room are sent again
_MOST_UNSENT = 100_000  # lines that wait for a client that sends and does not read
_Line = tuple[int, Item, Any]


class LineScores(Response):
    """Reads lines and answers them at the same time."""

    def __init__(self, service: Service, call: Call) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self.service, self.call = service, call
        self.out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.counts = {"ok": 0, "masked": 0, "error": 0}
        self.problem: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        reading = asyncio.create_task(self._read(receive))
        try:
            while (part := await self.out.get()) is not None:
                while not self.out.empty() and len(part) < 65536:
                    more = self.out.get_nowait()
                    if more is None:
                        self.out.put_nowait(None)
                        break
                    part += more
                await send({"type": "http.response.body", "body": part, "more_body": True})
            last: dict[str, Any] = {"done": self.problem is None, "lines": sum(self.counts.values())} | self.counts
            last |= {"error": self.problem} if self.problem else {}
            await send({"type": "http.response.body", "body": replies.dumps(last) + b"\n"})
        finally:
            reading.cancel()

    async def _read(self, receive: Receive) -> None:
        """Cut what arrives into lines and have them scored, a chunk at a time."""
        gate, tasks = asyncio.Semaphore(_AT_ONCE), set[asyncio.Task[None]]()
        try:
            async for lines in self._lines(receive):
                for start in range(0, len(lines), CHUNK):
                    chunk: list[_Line] = []
                    for number, raw in lines[start : start + CHUNK]:
                        id = None
                        try:
                            body = json_object(raw)
                            id = body.get("id")
                            chunk.append((number, line_of(body), id))
                        except Refused as refused:
                            self._put(number, id, self._failed(refused, 1)[0])
                    await gate.acquire()
                    task = asyncio.create_task(self._score(chunk))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    task.add_done_callback(lambda _: gate.release())
                while self.out.qsize() > _MOST_UNSENT:
                    await asyncio.sleep(0.1)
            await asyncio.gather(*tasks)
        except Refused as refused:
            self.problem = refused.message
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        except Exception as error:
            self.problem = f"the stream failed ({type(error).__name__})"
            raise
        finally:
            self.out.put_nowait(None)

    async def _lines(self, receive: Receive) -> Any:
        """Whole lines with their numbers, as many as have arrived; blank ones are counted and left out. Raises Refused for a
        line that is too long, a pause that is, and a broken end."""
        config, rest, number = self.service.config, b"", 0
        most = int(config.max_body * 1e6)
        while True:
            try:
                async with asyncio.timeout(config.body_seconds):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"nothing came for {config.body_seconds:g} s", kind="slow") from None
            if message["type"] == "http.disconnect":
                raise Refused(400, "the request broke off", kind="gone")
            *whole, rest = (rest + message.get("body", b"")).split(b"\n")
            ended = not message.get("more_body", False)
            whole += [rest] if ended else []
            found = [(n, line) for n, line in enumerate(whole, number) if line.strip()]
            number += len(whole)
            if len(rest) > most or any(len(line) > most for _, line in found):
                raise Refused(413, f"a line is longer than {config.max_body:g} MB", kind="size")
            if found:
                yield found
            if ended:
                return

    async def _score(self, chunk: Sequence[_Line]) -> None:
        """Score some lines, however long they have to wait; what is too much at once is divided."""
        rows = None
        while rows is None:
            try:
                measured = await self.service.measure([item for _, item, _ in chunk], self.call)
                rows = replies.rows(measured, measured.served.reference)
            except Refused as refused:
                if refused.status == 429:
                    await asyncio.sleep(max(_PAUSE, min(1.0, refused.retry_after or 0.1)))
                elif refused.status == 413 and len(chunk) > 1:
                    for half in (chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :]):
                        await self._score(half)
                    return
                else:
                    rows = self._failed(refused, len(chunk))
        for (number, _, id), row in zip(chunk, rows, strict=True):
            self._put(number, id, row)

    def _failed(self, refused: Refused, count: int) -> list[dict[str, Any]]:
        failed = [Score(0, "error", reason=refused.message)] * count
        return replies.rows(Measured(failed, self.service.model(self.call.model)), None)

    def _put(self, number: int, id: Any, row: dict[str, Any]) -> None:
        self.counts[row["status"]] += 1
        name = {} if id is None else {"id": id}
        try:
            line = replies.dumps({"index": number} | name | row)
        except RecursionError:  # an id that is nested too deeply to be written back
            line = replies.dumps({"index": number} | row)
        self.out.put_nowait(line + b"\n")
