"""The connections to one server, and a request with its retries: the same twice, blocking and not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx2

from guerdon.client.reply import document_of, refused
from guerdon.client.request import headers_of
from guerdon.client.retry import Attempts, Failure, Patience
from guerdon.client.trust import require_trust

T = TypeVar("T")


class Connection:
    """What is kept for a server at `base`. `timeout` is for one attempt, in seconds; `options` make an HTTP client."""

    def __init__(self, base: str, timeout: float, patience: Patience, options: Mapping[str, Any]) -> None:
        self.base, self.timeout, self.patience, self.options = base, timeout, patience, options
        self.here = httpx2.Client(**options)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = WeakKeyDictionary()

    def ahere(self) -> httpx2.AsyncClient:
        """The connections of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            self._loops[loop] = httpx2.AsyncClient(**self.options)
        return self._loops[loop]

    def close(self) -> None:
        self.here.close()

    async def aclose(self) -> None:
        self.here.close()
        if found := self._loops.pop(asyncio.get_running_loop(), None):
            await found.aclose()

    def ask(self, path: str, body: bytes | None, read: Callable[[Any], T | Failure], must: bool = False) -> T | Failure:
        """What `read` makes of the JSON that POST (GET without a body) is answered with, or why there is none; with `must`,
        ScoringError says why.
        """
        attempts, headers = Attempts(self.patience, must), headers_of(self.timeout)
        while isinstance(outcome := self._attempt(path, body, headers, read), Failure):
            pause = attempts.pause(outcome)
            if pause is None:
                return outcome
            time.sleep(pause)
        return outcome

    async def aask(self, path: str, body: bytes | None, read: Callable[[Any], T | Failure]) -> T | Failure:
        """The same without blocking the event loop."""
        attempts, headers = Attempts(self.patience), headers_of(self.timeout)
        while isinstance(outcome := await self._aattempt(path, body, headers, read), Failure):
            pause = attempts.pause(outcome)
            if pause is None:
                return outcome
            await asyncio.sleep(pause)
        return outcome

    def refused(self, path: str, response: httpx2.Response, content: bytes) -> Failure:
        """Why an answer other than 200 has no scores. Raises as `reply.refused` does."""
        failure = refused(self.base + path, response.status_code, response.headers, content)
        if not failure.again:
            self.patience.answered()
        return failure

    def broken(self, path: str, error: httpx2.HTTPError) -> Failure:
        """Why there is no whole answer. Raises ScoringError when there is no trust."""
        require_trust(self.base, error)
        if isinstance(error, httpx2.TimeoutException):
            return Failure(f"{self.base}{path} did not answer within {self.timeout:g} s", again=True)
        is_plain = isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError) and self.base.startswith("http:")
        hint = "; if the server speaks https, write https://" if is_plain else ""
        lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
        return Failure(f"{self.base}{path} cannot be reached or broke off ({error}){hint}", again=lost)

    def _attempt(
        self, path: str, body: bytes | None, headers: Mapping[str, str], read: Callable[[Any], T | Failure]
    ) -> T | Failure:
        until, method = time.monotonic() + self.timeout, "GET" if body is None else "POST"
        try:
            with self.here.stream(method, self.base + path, content=body, headers=headers) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    _require_time(until)
                return self._read(path, response, bytes(content), read)
        except httpx2.HTTPError as error:
            return self.broken(path, error)

    async def _aattempt(
        self, path: str, body: bytes | None, headers: Mapping[str, str], read: Callable[[Any], T | Failure]
    ) -> T | Failure:
        until, method = time.monotonic() + self.timeout, "GET" if body is None else "POST"
        try:
            async with self.ahere().stream(method, self.base + path, content=body, headers=headers) as response:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    _require_time(until)
                return self._read(path, response, bytes(content), read)
        except httpx2.HTTPError as error:
            return self.broken(path, error)

    def _read(
        self, path: str, response: httpx2.Response, content: bytes, read: Callable[[Any], T | Failure]
    ) -> T | Failure:
        if response.status_code != 200:
            return self.refused(path, response, content)
        self.patience.answered()
        reply = document_of(self.base + path, content)
        return reply if isinstance(reply, Failure) else read(reply)


def _require_time(until: float) -> None:
    """The library limits each read; a server that sends a byte now and then would never end."""
    if time.monotonic() > until:
        raise httpx2.ReadTimeout("the reply took too long")
