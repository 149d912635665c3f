"""A reward server as a `Scorer`: one HTTP call for many conversations, and no invented reward when it goes wrong.

The call is POST {url}/v1/score with {"conversations": [[{"role", "content"}, ...], ...]}; the reply is {"scores": [{"value":
number or null, "status": "ok|masked|error", "reason", "tokens", "truncated", "members"}, ...]}, one for each, in order.
What is not a finite number, and every row of a request that failed, becomes a score of status `error` with its reason.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args
from urllib.parse import quote, urlencode
from weakref import WeakKeyDictionary

import httpx2

from guerdon.client.reply import Best, best_of, document_of, refused, scores_of, unusable
from guerdon.client.retry import Attempts, Failure, OnFailure, Patience
from guerdon.client.stream import PATH, parts_of
from guerdon.types import ConfigError, Conversation, Message, Score, ScoringError

T = TypeVar("T")


@dataclass(eq=False)
class Client:
    """A reward server. Safe to use from several threads and event loops; connections are kept and reused.

    url          address of the server, with or without a path in front of /v1/score
    timeout      seconds for one attempt, connecting included; the server is told, and drops what nobody waits for
    retries      further attempts after the first, where one may help: no connection, a time-out, a connection that broke off,
                 429, 502, 503 and 504. Pauses double from 0.5 s to 30 s, drawn at random below that, on top of Retry-After.
                 All attempts at a request carry one Idempotency-Key, so that none of them is scored twice.
    on_failure   what becomes of a request that failed for good. `mask`: its rows have status `error`. `raise`: ScoringError,
                 also for a single row with an unusable value. `wait`: keep trying, however many retries it takes, until
                 `deadline`, and say so; then ScoringError.
    deadline     seconds that `wait` keeps trying for, from the first failure of a request
    token        sent as `Authorization: Bearer`; default: the environment's GUERDON_TOKEN
    batch        conversations per request
    connections  requests under way at once from `ascore`
    say          receives a sentence for each failure that is waited or masked; default: the log, as a warning
    model        name of the model on the server; default: the first that is served
    reward       what leaves an ensemble: mean, min, mean-std:K, mean-var:K or quantile:Q; default: the server's
    run, step    name of a policy run and its step, so that the server watches it; see `at`
    contract     contract hash that the model must have: ContractError when the server has another

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
    model: str | None = None
    reward: str | None = None
    run: str | None = None
    step: int | None = None
    contract: str | None = None

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
        self._base = self.url.rstrip("/").removesuffix("/v1/score")
        self._patience = Patience(self.retries, self.on_failure, self.deadline, self.say)
        token = self.token or os.environ.get("GUERDON_TOKEN")
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"If-Match": f'"{self.contract}"'} if self.contract else {}
        self._options: dict[str, Any] = {
            "timeout": httpx2.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            "limits": httpx2.Limits(max_connections=self.connections, max_keepalive_connections=self.connections),
            "headers": headers,
            "trust_env": address.host
            not in ("localhost", "127.0.0.1", "::1"),  # no proxy in front of one's own machine
        }
        self._sync = httpx2.Client(**self._options)
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = WeakKeyDictionary()

    def at(self, step: int | None, run: str | None = None) -> Client:
        """The same server and the same connections, for another step (and run)."""
        other = copy.copy(self)
        other.step, other.run = step, self.run if run is None else run
        return other

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        """One score per conversation. Raises ScoringError as `on_failure` says and ContractError when the model is not the one
        that was pinned; never anything of the network's.
        """
        parts = self._parts(conversations)
        return [score for part in parts for score in _or_errors(self._ask(*self._scoring(part)), len(part))]

    async def ascore(self, conversations: Sequence[Conversation]) -> list[Score]:
        """The same without blocking the event loop, several requests at once."""
        gate = asyncio.Semaphore(self.connections)

        async def one(part: Sequence[Conversation]) -> list[Score]:
            async with gate:
                return _or_errors(await self._aask(*self._scoring(part)), len(part))

        parts = await asyncio.gather(*map(one, self._parts(conversations)))
        return [score for part in parts for score in part]

    def score_group(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> list[Score]:
        """One score per completion of one prompt, in one request; the prompt is sent, and computed, once."""
        return _or_errors(self._ask(*self._grouped(prompt, completions)), len(completions))

    async def ascore_group(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> list[Score]:
        """The same without blocking the event loop."""
        return _or_errors(await self._aask(*self._grouped(prompt, completions)), len(completions))

    def stream(self, conversations: Iterable[Conversation]) -> Iterator[tuple[int, Score]]:
        """(place, score) of every conversation, in the order in which the server finishes them; at most 4,096 are under way, so
        any number may be given. `timeout` is then the longest pause between two scores. Raises as `score` does.
        """
        for part in parts_of(conversations, _line, self.on_failure == "raise"):
            attempts = Attempts(self._patience)
            while part.left:
                failure: Failure | None
                try:
                    with self._sync.stream("POST", self._stream_address, content=part.body()) as reply:
                        if reply.status_code == 200:
                            for chunk in reply.iter_bytes():
                                yield from part.take(chunk, self.timeout)
                            failure = part.failure(self._base + PATH)
                        else:
                            failure = refused(self._base + PATH, reply.status_code, reply.headers, reply.read())
                except httpx2.HTTPError as error:
                    failure = self._broken(PATH, error)
                pause = attempts.pause(failure) if failure else 0.0
                if failure and pause is None:
                    yield from part.errors(failure.reason)
                time.sleep(pause or 0.0)

    async def astream(self, conversations: Iterable[Conversation]) -> AsyncIterator[tuple[int, Score]]:
        """The same without blocking the event loop."""
        for part in parts_of(conversations, _line, self.on_failure == "raise"):
            attempts = Attempts(self._patience)
            while part.left:
                failure: Failure | None
                body = part.body()
                try:
                    async with self._here().stream("POST", self._stream_address, content=body) as reply:
                        if reply.status_code == 200:
                            async for chunk in reply.aiter_bytes():
                                for found in part.take(chunk, self.timeout):
                                    yield found
                            failure = part.failure(self._base + PATH)
                        else:
                            failure = refused(self._base + PATH, reply.status_code, reply.headers, await reply.aread())
                except httpx2.HTTPError as error:
                    failure = self._broken(PATH, error)
                pause = attempts.pause(failure) if failure else 0.0
                if failure and pause is None:
                    for found in part.errors(failure.reason):
                        yield found
                await asyncio.sleep(pause or 0.0)

    def best_of_n(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> Best:
        """The completion with the highest reward. Where there is no answer, `index` is None and all scores are errors."""
        found = self._ask(*self._choosing(prompt, completions))
        return Best(None, _or_errors(found, len(completions))) if isinstance(found, Failure) else found

    async def abest_of_n(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> Best:
        """The same without blocking the event loop."""
        found = await self._aask(*self._choosing(prompt, completions))
        return Best(None, _or_errors(found, len(completions))) if isinstance(found, Failure) else found

    def info(self) -> dict[str, Any]:
        """What the server says of the model: `id`, `contract`, `fingerprint`, `max_length`, `members`, `rules`, ... Raises
        ScoringError when it cannot be had.
        """

        def read(reply: Any) -> dict[str, Any] | Failure:
            rows = reply.get("data") if isinstance(reply, dict) else None
            known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
            found = next((row for row in known if self.model in (None, row.get("id"))), None)
            return found or Failure(f"{self._base}/v1/models lists no model {self.model or ''}".rstrip())

        return self._must("/v1/models", None, read)

    @property
    def fingerprint(self) -> str:
        """Names the reward as the server computes it, like `RewardModel.fingerprint`. Raises ScoringError when it cannot be had."""
        return str(self.info().get("fingerprint", ""))

    def end_step(self, kl: float | None = None) -> dict[str, Any]:
        """Tell the server that the step of this client is over, and its mean KL in nats per sequence where that is known.
        Returns what its watch says: `status` (ok, warn or stop), `reason`, `best_step`, ... Raises ScoringError when it
        cannot be had and ConfigError without a run and a step.
        """
        if self.run is None or self.step is None:
            raise ConfigError("the client has no run or no step; make it with run=... and use client.at(step)")
        body = json.dumps({} if kl is None else {"kl": kl}).encode()
        return self._must(f"/runs/{quote(self.run, safe='')}/steps/{self.step}", body, _verdict)

    def close(self) -> None:
        """Close the kept connections of `score`; those of an event loop close with it."""
        self._sync.close()

    def _parts(self, conversations: Sequence[Conversation]) -> Iterator[Sequence[Conversation]]:
        return (conversations[start : start + self.batch] for start in range(0, len(conversations), self.batch))

    def _scoring(self, conversations: Sequence[Conversation]) -> Asking[list[Score]]:
        body = {"conversations": [_plain(one) for one in conversations]}
        return "/v1/score", self._body(body), self._reading("/v1/score", len(conversations))

    def _grouped(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> Asking[list[Score]]:
        body = self._body(_group(prompt, completions))
        return "/v1/score", body, self._reading("/v1/score", len(completions))

    def _choosing(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> Asking[Best]:
        path = "/v1/best_of_n"
        return (
            path,
            self._body(_group(prompt, completions)),
            lambda reply: best_of(self._base + path, reply, len(completions)),
        )

    def _reading(self, path: str, n: int) -> Callable[[Any], list[Score] | Failure]:
        def read(reply: Any) -> list[Score] | Failure:
            scores = scores_of(self._base + path, reply, n)
            if not isinstance(scores, Failure) and self.on_failure == "raise" and (bad := unusable(reply, scores)):
                raise ScoringError(f"{self._base}{path}: {bad.reason}")
            return scores

        return read

    def _body(self, body: Mapping[str, Any]) -> bytes:
        tags = {"model": self.model, "reward": self.reward, "run": self.run, "step": self.step}
        known = {name: value for name, value in tags.items() if value is not None}
        return json.dumps({**body, **known}).encode()  # ASCII, so that no text can break the encoding

    @property
    def _stream_address(self) -> str:
        """The stream has no room for tags in its body: they are in the address."""
        tags = {"model": self.model, "reward": self.reward, "run": self.run, "step": self.step}
        query = urlencode({name: value for name, value in tags.items() if value is not None})
        return f"{self._base}{PATH}{'?' if query else ''}{query}"

    def _must(self, path: str, body: bytes | None, read: Callable[[Any], T | Failure]) -> T:
        found = self._ask(path, body, read)
        if isinstance(found, Failure):
            raise ScoringError(found.reason)
        return found

    # One request, with its retries: the same twice, blocking and not.

    def _ask(self, path: str, body: bytes | None, read: Callable[[Any], T | Failure]) -> T | Failure:
        attempts, headers = Attempts(self._patience), _headers(self.timeout)
        while isinstance(outcome := self._attempt(path, body, headers, read), Failure):
            pause = attempts.pause(outcome)
            if pause is None:
                return outcome
            time.sleep(pause)
        return outcome

    async def _aask(self, path: str, body: bytes | None, read: Callable[[Any], T | Failure]) -> T | Failure:
        attempts, headers = Attempts(self._patience), _headers(self.timeout)
        while isinstance(outcome := await self._aattempt(path, body, headers, read), Failure):
            pause = attempts.pause(outcome)
            if pause is None:
                return outcome
            await asyncio.sleep(pause)
        return outcome

    def _attempt(
        self, path: str, body: bytes | None, headers: Mapping[str, str], read: Callable[[Any], T | Failure]
    ) -> T | Failure:
        until = time.monotonic() + self.timeout
        try:
            with self._sync.stream(
                "GET" if body is None else "POST", self._base + path, content=body, headers=headers
            ) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    _require_time(until)
                return self._read(path, response, bytes(content), read)
        except httpx2.HTTPError as error:
            return self._broken(path, error)

    async def _aattempt(
        self, path: str, body: bytes | None, headers: Mapping[str, str], read: Callable[[Any], T | Failure]
    ) -> T | Failure:
        until = time.monotonic() + self.timeout
        try:
            async with self._here().stream(
                "GET" if body is None else "POST", self._base + path, content=body, headers=headers
            ) as response:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    _require_time(until)
                return self._read(path, response, bytes(content), read)
        except httpx2.HTTPError as error:
            return self._broken(path, error)

    def _here(self) -> httpx2.AsyncClient:
        """The connections of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._async:
            self._async[loop] = httpx2.AsyncClient(**self._options)
        return self._async[loop]

    def _read(
        self, path: str, response: httpx2.Response, content: bytes, read: Callable[[Any], T | Failure]
    ) -> T | Failure:
        if response.status_code != 200:
            return refused(self._base + path, response.status_code, response.headers, content)
        reply = document_of(self._base + path, content)
        return reply if isinstance(reply, Failure) else read(reply)

    def _broken(self, path: str, error: httpx2.HTTPError) -> Failure:
        if isinstance(error, httpx2.TimeoutException):
            return Failure(f"{self._base}{path} did not answer within {self.timeout:g} s", again=True)
        lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
        return Failure(f"{self._base}{path} cannot be reached or broke off ({error})", again=lost)


Asking = tuple[str, bytes | None, Callable[[Any], T | Failure]]  # path, body (None: GET), what to make of the JSON


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages with nothing but what is scored."""
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _line(conversation: Conversation) -> dict[str, Any]:
    return {"messages": _plain(conversation)}


def _group(prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> dict[str, Any]:
    return {
        "prompt": _plain(prompt),
        "completions": [one if isinstance(one, str) else _plain(one) for one in completions],
    }


def _verdict(reply: Any) -> dict[str, Any] | Failure:
    is_one = isinstance(reply, dict) and reply.get("status") in ("ok", "warn", "stop")
    return reply if is_one else Failure("the server's verdict is none of ok, warn and stop")


def _or_errors(found: list[Score] | Failure, n: int) -> list[Score]:
    return [Score(0, "error", reason=found.reason) for _ in range(n)] if isinstance(found, Failure) else found


def _headers(timeout: float) -> dict[str, str]:
    """Of one request: the same at each attempt, so that it is known for the same."""
    return {"Idempotency-Key": uuid.uuid4().hex, "X-Guerdon-Timeout": f"{timeout:g}"}


def _require_time(until: float) -> None:
    """The library limits each read; a server that sends a byte now and then would never end."""
    if time.monotonic() > until:
        raise httpx2.ReadTimeout("the reply took too long")
