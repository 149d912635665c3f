"""A reward server as a `Scorer`: one HTTP call for many conversations, and no invented reward when it goes wrong.

The call is POST {url}/v1/score with {"conversations": [[{"role", "content"}, ...], ...]}; the reply is {"scores": [{"value":
number or null, "status": "ok|masked|error", "reason", "tokens", "truncated", "members"}, ...]}, one for each, in order.
What is not a finite number, and every row of a request that failed, becomes a score of status `error` with its reason.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import httpx2

from guerdon.types import ConfigError, Conversation, Score, ScoringError

OnFailure = Literal["mask", "wait", "raise"]
_BUSY = (429, 502, 503, 504)  # the server may answer later; asking again is safe, because scoring changes nothing
_FIRST_BACKOFF, _LAST_BACKOFF = 0.5, 30.0  # seconds
_LONGEST_RETRY_AFTER = 60.0  # seconds a server may ask to stay away for, unless we are told to wait


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt gave no scores; `again` when another may; `after` seconds the server asks to stay away for."""

    reason: str
    again: bool = False
    after: float = 0.0


_Outcome = list[Score] | _Failure


@dataclass(eq=False)
class Client:
    """A reward server. Safe to use from several threads and event loops; connections are kept and reused.

    url          address of the server, with or without a path in front of /v1/score
    timeout      seconds for one attempt, connecting included
    retries      further attempts after the first, where one may help: no connection, a time-out, a connection that broke off,
                 429, 502, 503 and 504. Pauses double from 0.5 s to 30 s, drawn at random below that, on top of Retry-After.
    on_failure   what becomes of a request that failed for good. `mask`: its rows have status `error`. `raise`: ScoringError,
                 also for a single row with an unusable value. `wait`: keep trying, however many retries it takes, until
                 `deadline`, and say so; then ScoringError.
    deadline     seconds that `wait` keeps trying for, from the first failure of a request
    token        sent as `Authorization: Bearer`; default: the environment's GUERDON_TOKEN
    batch        conversations per request
    connections  requests under way at once from `ascore`
    say          receives a sentence for each failure that is waited or masked; default: the log, as a warning

    Raises ConfigError for an address that is not http(s) and numbers out of range.
    """

    url: str
    timeout: float = 60.0
    retries: int = 4
    on_failure: OnFailure = "mask"
    deadline: float = 1800.0
    token: str | None = field(default=None, repr=False)
    batch: int = 64
    connections: int = 8
    say: Callable[[str], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            address = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise ConfigError(f"{self.url}: is not an address ({error}); write http://host:port") from error
        if address.scheme not in ("http", "https") or not address.host:
            raise ConfigError(f"{self.url}: is not the address of a server; write http://host:port")
        if self.on_failure not in get_args(OnFailure):
            raise ConfigError(f"on_failure '{self.on_failure}' is not known; choose mask, wait or raise")
        if not (
            self.timeout > 0 and self.retries >= 0 and self.deadline > 0 and self.batch > 0 and self.connections > 0
        ):
            raise ConfigError(
                f"{self.url}: timeout, deadline, batch and connections must be above 0, and retries not below"
            )
        self._call = self.url.rstrip("/").removesuffix("/v1/score") + "/v1/score"
        token = self.token or os.environ.get("GUERDON_TOKEN")
        self._options: dict[str, Any] = {
            "timeout": httpx2.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            "limits": httpx2.Limits(max_connections=self.connections, max_keepalive_connections=self.connections),
            "headers": {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {}),
            "trust_env": address.host
            not in ("localhost", "127.0.0.1", "::1"),  # no proxy in front of one's own machine
        }
        self._sync = httpx2.Client(**self._options)
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = WeakKeyDictionary()

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        """One score per conversation. Raises ScoringError as `on_failure` says; never anything else of the network's."""
        return [score for part in self._batches(conversations) for score in self._score(part)]

    async def ascore(self, conversations: Sequence[Conversation]) -> list[Score]:
        """The same without blocking the event loop, several requests at once."""
        gate = asyncio.Semaphore(self.connections)

        async def one(part: Sequence[Conversation]) -> list[Score]:
            async with gate:
                return await self._ascore(part)

        parts = await asyncio.gather(*map(one, self._batches(conversations)))
        return [score for part in parts for score in part]

    def close(self) -> None:
        """Close the kept connections of `score`; those of an event loop close with it."""
        self._sync.close()

    def _batches(self, conversations: Sequence[Conversation]) -> Iterator[Sequence[Conversation]]:
        return (conversations[start : start + self.batch] for start in range(0, len(conversations), self.batch))

    def _score(self, conversations: Sequence[Conversation]) -> list[Score]:
        attempts, body = _Attempts(self), _body(conversations)
        while isinstance(outcome := self._attempt(body, len(conversations)), _Failure):
            pause = attempts.pause(outcome)
            if pause is None:
                return [Score(0, "error", reason=outcome.reason) for _ in conversations]
            time.sleep(pause)
        return outcome

    async def _ascore(self, conversations: Sequence[Conversation]) -> list[Score]:
        attempts, body = _Attempts(self), _body(conversations)
        while isinstance(outcome := await self._aattempt(body, len(conversations)), _Failure):
            pause = attempts.pause(outcome)
            if pause is None:
                return [Score(0, "error", reason=outcome.reason) for _ in conversations]
            await asyncio.sleep(pause)
        return outcome

    def _attempt(self, body: bytes, n: int) -> _Outcome:
        until = time.monotonic() + self.timeout
        try:
            with self._sync.stream("POST", self._call, content=body) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    _require_time(until)
                return self._read(response, bytes(content), n)
        except httpx2.HTTPError as error:
            return self._broken(error)

    async def _aattempt(self, body: bytes, n: int) -> _Outcome:
        loop, until = asyncio.get_running_loop(), time.monotonic() + self.timeout
        if loop not in self._async:
            self._async[loop] = httpx2.AsyncClient(**self._options)
        try:
            async with self._async[loop].stream("POST", self._call, content=body) as response:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    _require_time(until)
                return self._read(response, bytes(content), n)
        except httpx2.HTTPError as error:
            return self._broken(error)

    def _read(self, response: httpx2.Response, content: bytes, n: int) -> _Outcome:
        """The scores of a reply, or why there are none. Raises ScoringError for an unusable row where that is wanted."""
        if response.status_code != 200:
            after = retry_after(response.headers.get("Retry-After"))
            text = " ".join(content[:500].decode("utf-8", "replace").split())[:200]
            answer = f"{self._call} answered {response.status_code}{f' ({text})' if text else ''}"
            return _Failure(answer, response.status_code in _BUSY, after)
        try:
            reply = json.loads(content)
        except (ValueError, RecursionError):
            return _Failure(f"{self._call} answered with something that is not JSON")
        rows = reply.get("scores") if isinstance(reply, dict) else None
        if not isinstance(rows, list) or len(rows) != n:
            what = f"{len(rows)} scores for {n} conversations" if isinstance(rows, list) else "no list 'scores'"
            return _Failure(f"{self._call} answered with {what}")
        scores = [_row(row) for row in rows]
        bad = next(
            (s for row, s in zip(rows, scores, strict=True) if s.status == "error" and not _says_error(row)), None
        )
        if bad is not None and self.on_failure == "raise":
            raise ScoringError(f"{self._call}: {bad.reason}")
        return scores

    def _broken(self, error: httpx2.HTTPError) -> _Failure:
        if isinstance(error, httpx2.TimeoutException):
            return _Failure(f"{self._call} did not answer within {self.timeout:g} s", again=True)
        lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
        return _Failure(f"{self._call} cannot be reached or broke off ({error})", again=lost)


class _Attempts:
    """How long to pause before the next attempt at one request, or that there is none."""

    def __init__(self, client: Client) -> None:
        self.client, self.failures, self.first = client, 0, 0.0

    def pause(self, failure: _Failure) -> float | None:
        """Seconds until the next attempt; None when the rows go without a reward. Raises ScoringError as configured."""
        client, now = self.client, time.monotonic()
        self.first = self.first or now
        self.failures += 1
        highest = min(_LAST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(self.failures - 1, 10))
        pause = failure.after + random.uniform(0.1, 1) * highest
        if client.on_failure == "wait":
            left = self.first + client.deadline - now
            if not failure.again or failure.after > left or left <= 0:
                waited = f", after {now - self.first:.0f} s of waiting" if failure.again else ""
                raise ScoringError(f"{failure.reason}{waited}; mend the server and resume")
            _say(client, f"{failure.reason}; trying again in {min(pause, left):.1f} s, for {left:.0f} s more")
            return min(pause, left)
        if failure.again and self.failures <= client.retries and failure.after <= _LONGEST_RETRY_AFTER:
            return pause
        tries = f", {self.failures} attempts" if self.failures > 1 else ""
        if client.on_failure == "raise":
            raise ScoringError(f"{failure.reason}{tries}")
        _say(client, f"{failure.reason}{tries}; the rows of this request go without a reward")
        return None


def _say(client: Client, sentence: str) -> None:
    (client.say or logging.getLogger("guerdon.client").warning)(sentence)


def _body(conversations: Sequence[Conversation]) -> bytes:
    rows = [[{"role": m["role"], "content": m["content"]} for m in conversation] for conversation in conversations]
    return json.dumps({"conversations": rows}).encode()  # ASCII, so that no text can break the encoding


def _require_time(until: float) -> None:
    """The library limits each read; a server that sends a byte now and then would never end."""
    if time.monotonic() > until:
        raise httpx2.ReadTimeout("the reply took too long")


def retry_after(value: str | None) -> float:
    """Seconds from a Retry-After header, which is a number of seconds or a date; 0 without one that can be read."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _says_error(row: Any) -> bool:
    return isinstance(row, dict) and row.get("status") == "error"


def _number(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _row(row: Any) -> Score:
    """One score of a reply; of status `error` when it does not hold what it must."""
    if not isinstance(row, dict) or row.get("status") not in ("ok", "masked", "error"):
        return Score(0, "error", reason="the server's reply has a row without a status of ok, masked or error")
    tokens = row.get("tokens")
    tokens = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else 0
    truncated, reason = row.get("truncated") is True, str(row.get("reason") or "")
    if row["status"] != "ok":
        return Score(0, row["status"], tokens, truncated, reason or f"the server said {row['status']}")
    value, listed = _number(row.get("value")), row.get("members")
    if value is None:
        return Score(0, "error", tokens, truncated, f"the server's reward is {row.get('value')!r}, not a number")
    members = [_number(member) for member in listed] if isinstance(listed, list) else []
    if any(member is None for member in members):
        return Score(0, "error", tokens, truncated, "the server's reply has a member that is not a number")
    return Score(value, "ok", tokens, truncated, "", tuple(member for member in members if member is not None))
