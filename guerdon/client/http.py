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
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, get_args
from urllib.parse import quote, urlencode

import httpx2

from guerdon.client.connection import Connection
from guerdon.client.reply import Best, best_of, scores_of, unusable
from guerdon.client.request import group, line, plain
from guerdon.client.retry import PATIENCE, Attempts, Failure, OnFailure, Patience
from guerdon.client.stream import PATH, parts_of
from guerdon.client.trust import trusted
from guerdon.types import ConfigError, Conversation, Message, Score, ScoringError

T = TypeVar("T")


@dataclass(eq=False)
class Client:
    """A reward server. Safe to use from several threads and event loops; connections are kept and reused.

    url          address of the server, with or without a path in front of /v1/score
    timeout      seconds for one attempt, connecting included; the server is told, and drops what nobody waits for
    patience     seconds for which a request is tried again, from its first failure, where another try may help: no connection,
                 a time-out, a connection that broke off, 429, 502, 503 and 504. Pauses double from 0.5 s to 30 s, drawn at
                 random below that, on top of Retry-After. All attempts at a request carry one Idempotency-Key, so that none of
                 them is scored twice. Default: 300, with `wait` 1,800; 0: one attempt. Once a server has been away for that
                 long, further requests are tried once each, until it answers.
    on_failure   what becomes of a request that failed for good. `mask`: its rows have status `error`. `wait`: ScoringError,
                 after a longer patience. `raise`: ScoringError, also for a single row with an unusable value.
    token        sent as `Authorization: Bearer`; default: the environment's GUERDON_TOKEN
    ca           file of certificates (PEM) that the server's must be signed by; default: the file that SSL_CERT_FILE names, or
                 the authorities that this machine trusts
    batch        conversations per request
    connections  requests under way at once from `ascore`
    say          receives a sentence for each wait of more than 2 s, for its end, and for each request that is masked; default:
                 the log, as a warning
    model        name of the model on the server; default: the first that is served
    reward       what leaves an ensemble: mean, min, mean-std:K, mean-var:K or quantile:Q; default: the server's
    run, step    name of a policy run and its step, so that the server watches it; see `at`
    contract     contract hash that the model must have: ContractError when the server has another

    `with` and `async with` close its connections at the end. Whatever `on_failure` says, ScoringError is raised for what no row
    is to blame for and no other try mends: a key that is missing or wrong (401, 403), no such model or address (404), a
    certificate that cannot be verified.

    Raises ConfigError for an address that is not http(s), numbers out of range and a `ca` that cannot be read.
    """

    url: str
    timeout: float = 60.0
    patience: float | None = None
    on_failure: OnFailure = "mask"
    token: str | None = field(default=None, repr=False)
    ca: str | None = None
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
        patience = PATIENCE[self.on_failure] if self.patience is None else self.patience
        if not (self.timeout > 0 and patience >= 0 and self.batch > 0 and self.connections > 0):
            raise ConfigError(f"{self.url}: timeout, batch and connections must be above 0, and patience not below")
        self._base = self.url.rstrip("/").removesuffix("/v1/score")
        token = self.token or os.environ.get("GUERDON_TOKEN")
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"If-Match": f'"{self.contract}"'} if self.contract else {}
        options: dict[str, Any] = {
            "timeout": httpx2.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            "limits": httpx2.Limits(max_connections=self.connections, max_keepalive_connections=self.connections),
            "headers": headers,
            "verify": trusted(self.ca),
            "trust_env": address.host
            not in ("localhost", "127.0.0.1", "::1"),  # no proxy in front of one's own machine
        }
        self._server = Connection(self._base, self.timeout, Patience(patience, self.on_failure, self.say), options)

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
        return [score for part in parts for score in _or_errors(self._server.ask(*self._scoring(part)), len(part))]

    async def ascore(self, conversations: Sequence[Conversation]) -> list[Score]:
        """The same without blocking the event loop, several requests at once."""
        gate = asyncio.Semaphore(self.connections)

        async def one(part: Sequence[Conversation]) -> list[Score]:
            async with gate:
                return _or_errors(await self._server.aask(*self._scoring(part)), len(part))

        parts = await asyncio.gather(*map(one, self._parts(conversations)))
        return [score for part in parts for score in part]

    def score_group(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> list[Score]:
        """One score per completion of one prompt, in one request; the prompt is sent, and computed, once."""
        return _or_errors(self._server.ask(*self._grouped(prompt, completions)), len(completions))

    async def ascore_group(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> list[Score]:
        """The same without blocking the event loop."""
        return _or_errors(await self._server.aask(*self._grouped(prompt, completions)), len(completions))

    def stream(self, conversations: Iterable[Conversation]) -> Iterator[tuple[int, Score]]:
        """(place, score) of every conversation, in the order in which the server finishes them; at most 4,096 are under way, so
        any number may be given. `timeout` is then the longest pause between two scores. Raises as `score` does.
        """
        for part in parts_of(conversations, line, self.on_failure == "raise"):
            attempts = Attempts(self._server.patience)
            while part.left:
                failure: Failure | None
                try:
                    with self._server.here.stream("POST", self._stream_address, content=part.body()) as reply:
                        if reply.status_code == 200:
                            self._server.patience.answered()
                            for chunk in reply.iter_bytes():
                                yield from part.take(chunk, self.timeout)
                            failure = part.failure(self._base + PATH)
                        else:
                            failure = self._server.refused(PATH, reply, reply.read())
                except httpx2.HTTPError as error:
                    failure = self._server.broken(PATH, error)
                if part.has_gained:  # patience begins anew
                    attempts = Attempts(self._server.patience)
                pause = attempts.pause(failure) if failure else 0.0
                if failure and pause is None:
                    yield from part.errors(failure.reason)
                time.sleep(pause or 0.0)

    async def astream(self, conversations: Iterable[Conversation]) -> AsyncIterator[tuple[int, Score]]:
        """The same without blocking the event loop."""
        for part in parts_of(conversations, line, self.on_failure == "raise"):
            attempts = Attempts(self._server.patience)
            while part.left:
                failure: Failure | None
                body = part.body()
                try:
                    async with self._server.ahere().stream("POST", self._stream_address, content=body) as reply:
                        if reply.status_code == 200:
                            self._server.patience.answered()
                            async for chunk in reply.aiter_bytes():
                                for found in part.take(chunk, self.timeout):
                                    yield found
                            failure = part.failure(self._base + PATH)
                        else:
                            failure = self._server.refused(PATH, reply, await reply.aread())
                except httpx2.HTTPError as error:
                    failure = self._server.broken(PATH, error)
                if part.has_gained:  # patience begins anew
                    attempts = Attempts(self._server.patience)
                pause = attempts.pause(failure) if failure else 0.0
                if failure and pause is None:
                    for found in part.errors(failure.reason):
                        yield found
                await asyncio.sleep(pause or 0.0)

    def best_of_n(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> Best:
        """The completion with the highest reward. Where there is no answer, `index` is None and all scores are errors."""
        found = self._server.ask(*self._choosing(prompt, completions))
        return Best(None, _or_errors(found, len(completions))) if isinstance(found, Failure) else found

    async def abest_of_n(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> Best:
        """The same without blocking the event loop."""
        found = await self._server.aask(*self._choosing(prompt, completions))
        return Best(None, _or_errors(found, len(completions))) if isinstance(found, Failure) else found

    def info(self) -> dict[str, Any]:
        """What the server says of the model: `id`, `contract`, `fingerprint`, `max_length`, `members`, `rules`, ... Raises
        ScoringError when it cannot be had.
        """

        def read(reply: Any) -> dict[str, Any] | Failure:
            rows = reply.get("data") if isinstance(reply, dict) else None
            known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
            found = next((row for row in known if self.model in (None, row.get("id"))), None)
            names = ", ".join(str(row.get("id")) for row in known) or "none"
            return found or Failure(
                f"{self._base} serves no model '{self.model or ''}'; choose among those it has: {names}"
            )

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
        """Close the kept connections of `score`."""
        self._server.close()

    async def aclose(self) -> None:
        """Close those, and the kept connections of this event loop."""
        await self._server.aclose()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _parts(self, conversations: Sequence[Conversation]) -> Iterator[Sequence[Conversation]]:
        return (conversations[start : start + self.batch] for start in range(0, len(conversations), self.batch))

    def _scoring(self, conversations: Sequence[Conversation]) -> Asking[list[Score]]:
        body = {"conversations": [plain(one) for one in conversations]}
        return "/v1/score", self._body(body), self._reading("/v1/score", len(conversations))

    def _grouped(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> Asking[list[Score]]:
        body = self._body(group(prompt, completions))
        return "/v1/score", body, self._reading("/v1/score", len(completions))

    def _choosing(self, prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> Asking[Best]:
        path = "/v1/best_of_n"
        return (
            path,
            self._body(group(prompt, completions)),
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
        return cast(T, self._server.ask(path, body, read, must=True))


Asking = tuple[str, bytes | None, Callable[[Any], T | Failure]]  # path, body (None: GET), what to make of the JSON


def _verdict(reply: Any) -> dict[str, Any] | Failure:
    is_one = isinstance(reply, dict) and reply.get("status") in ("ok", "warn", "stop")
    return reply if is_one else Failure("the server's verdict is none of ok, warn and stop")


def _or_errors(found: list[Score] | Failure, n: int) -> list[Score]:
    return [Score(0, "error", reason=found.reason) for _ in range(n)] if isinstance(found, Failure) else found
