"""Replies by idempotency key: a retry is answered without scoring again, and one that comes too early waits for the first."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from guerdon.serve.call import Refused


@dataclass(eq=False)
class _Kept:
    digest: bytes
    task: asyncio.Task[bytes]
    until: float
    waiting: int = 0
    size: int = 0


class ReplyCache:
    """The replies of the last `seconds`, at most `most` bytes of them. Requests that failed are not kept."""

    def __init__(self, seconds: float, most: float) -> None:
        self.seconds, self.most = seconds, most
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._size = 0

    async def once(self, key: Hashable, digest: bytes, make: Callable[[], Awaitable[bytes]]) -> tuple[bytes, bool]:
        """The reply for a key, and whether it was there. `make` is called once, however many ask at a time; it goes on while
        any of them waits. Raises Refused (422) for a key that came with another request, and what `make` raises.
        """
        self._expire()
        kept = self._kept.get(key)
        known = kept is not None
        if kept is None:

            async def run() -> bytes:
                return await make()

            kept = self._kept[key] = _Kept(digest, asyncio.create_task(run()), time.monotonic() + self.seconds)
        elif kept.digest != digest:
            raise Refused(422, "the Idempotency-Key was used for another request; take a new one", kind="idempotency")
        kept.waiting += 1
        try:
            found = await asyncio.shield(kept.task)
        except BaseException:
            if kept.waiting == 1 and self._kept.get(key) is kept:  # nobody else: nothing to keep, nothing to go on for
                del self._kept[key]
                self._size -= kept.size
                kept.task.cancel()
            raise
        finally:
            kept.waiting -= 1
        if not kept.size and self._kept.get(key) is kept:
            kept.size = len(found) + 200
            kept.until = time.monotonic() + self.seconds
            self._size += kept.size
            self._expire()
        return found, known

    def _expire(self) -> None:
        now = time.monotonic()
        for key, kept in list(self._kept.items()):
            if not kept.task.done():
                continue
            if kept.until > now and self._size <= self.most:
                break
            del self._kept[key]
            self._size -= kept.size
