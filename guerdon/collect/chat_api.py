"""A small client of any OpenAI-compatible chat endpoint: one answer per call, what it cost, and no answer nobody gave.

The call is POST {url}/chat/completions with `model`, `messages` and the sampling options. A chat completion changes nothing at
the server, so asking again is safe for the answer but not for the bill; therefore only these are repeated: no connection,
statuses by which the server says that it did not answer (408, 409, 425, 429, 500, 502, 503, 504), and, once, a reply that
broke off or timed out, which is counted as `unsure` because it may be billed. A 429 that speaks of an exhausted quota is final.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import httpx2

from guerdon.client.retry import retry_after
from guerdon.types import ConfigError, GuerdonError, Message

Job = TypeVar("Job")
Result = TypeVar("Result")
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
_FIRST_BACKOFF, _LAST_BACKOFF = 0.5, 30.0  # seconds
_LONGEST_RETRY_AFTER = 120.0  # seconds a server may ask to stay away for
_FATAL = (401, 402, 403, 404)  # no other call of this run would fare better
KEYS = ("GUERDON_CHAT_KEY", "OPENAI_API_KEY")
URLS = ("GUERDON_CHAT_URL", "OPENAI_BASE_URL")


class ChatError(GuerdonError, RuntimeError):
    """A chat endpoint gave no answer; `fatal` when every further call would fail the same way."""

    def __init__(self, message: str, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt gave no answer.

    again  another attempt may give one
    sent   the request may have been answered and billed, although no answer came
    after  seconds the server asks to stay away for
    fatal  every other call of this run would fail as well
    """

    reason: str
    again: bool = False
    sent: bool = False
    after: float = 0.0
    fatal: bool = False


def money(cost: float) -> str:
    """A sum with two decimals, or as many as show two digits of a small one."""
    decimals = 2 if cost <= 0 else max(2, 1 - math.floor(math.log10(cost)))
    return f"{cost:,.{decimals}f}"


@dataclass(frozen=True, slots=True)
class Prices:
    """What a model costs, per million tokens in any currency; None when the user gave no price."""

    prompt: float | None = None
    completion: float | None = None

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Cost of so many tokens; None without both prices."""
        if self.prompt is None or self.completion is None:
            return None
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    text       what the model said; never None, may be empty
    finish     why it stopped, in the server's word: `stop`, `length` (cut off), `content_filter`, ...
    model      the model that the server says has answered
    tokens     (prompt, completion) tokens as the server counts them; (0, 0) when it does not say
    seconds    from the attempt that succeeded to its answer
    """

    text: str
    finish: str
    model: str
    tokens: tuple[int, int]
    seconds: float


@dataclass
class Usage:
    """Totals of a run, added to by several threads."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: int = 0  # answers without a token count
    unsure: int = 0  # attempts that broke off after they were sent: perhaps billed, tokens not known
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, tokens: tuple[int, int]) -> None:
        """Count one answer."""
        with self._lock:
            self.calls += 1
            self.prompt_tokens += tokens[0]
            self.completion_tokens += tokens[1]
            self.unmetered += tokens == (0, 0)

    def lost(self) -> None:
        """Count one attempt whose fate is not known."""
        with self._lock:
            self.unsure += 1

    def cost(self, prices: Prices) -> float | None:
        """Cost so far, of what was metered."""
        return prices.cost(self.prompt_tokens, self.completion_tokens)

    def render(self, prices: Prices) -> str:
        """One line for people."""
        cost = self.cost(prices)
        parts = [f"{self.calls:,} answers, {self.prompt_tokens:,} prompt and {self.completion_tokens:,} answer tokens"]
        parts += [
            f"cost {money(cost)}" if cost is not None else "cost not known (give --price-prompt and --price-answer)"
        ]
        parts += [f"{self.unmetered} without a token count"] if self.unmetered else []
        parts += [f"{self.unsure} attempts broke off and may be billed as well"] if self.unsure else []
        return "; ".join(parts)


@dataclass(eq=False)
class ChatApi:
    """A chat endpoint. Safe to use from several threads; connections are kept and reused.

    url       address up to and with /v1 (added when the address has no path); default: the environment's GUERDON_CHAT_URL or
              OPENAI_BASE_URL
    key       sent as `Authorization: Bearer`, only to this address, never followed to another; default: the environment's
              GUERDON_CHAT_KEY or OPENAI_API_KEY; local servers need none
    timeout   seconds for one attempt
    retries   further attempts after the first. Pauses double from 0.5 s to 30 s, drawn at random below that, on top of
              Retry-After, which holds back all calls of this client.
    options   sent with every call: temperature, max_tokens, top_p, ...

    Raises ConfigError for an address that is missing or not http(s) and numbers out of range.
    """

    url: str = ""
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    retries: int = 5
    connections: int = 8
    options: dict[str, Any] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    say: Callable[[str], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        given = self.url or next((os.environ[name] for name in URLS if os.environ.get(name)), "")
        if not given:
            raise ConfigError(f"no chat endpoint: give --endpoint http://host:port/v1, or set {URLS[0]}")
        try:
            address = httpx2.URL(given)
        except httpx2.InvalidURL as error:
            raise ConfigError(f"{given}: is not an address ({error}); write http://host:port/v1") from error
        if address.scheme not in ("http", "https") or not address.host:
            raise ConfigError(f"{given}: is not the address of a server; write http://host:port/v1")
        if not (self.timeout > 0 and self.retries >= 0 and self.connections > 0):
            raise ConfigError(f"{given}: timeout and connections must be above 0, and retries not below")
        base = given.rstrip("/").removesuffix("/chat/completions")
        self.call = base + ("" if httpx2.URL(base).path.strip("/") else "/v1") + "/chat/completions"
        key = self.key or next((os.environ[name] for name in KEYS if os.environ.get(name)), None)
        if key and not key.isascii():
            raise ConfigError("the key of the chat endpoint holds characters that cannot be sent; check the variable")
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            limits=httpx2.Limits(max_connections=self.connections, max_keepalive_connections=self.connections),
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            follow_redirects=False,
            trust_env=address.host not in ("localhost", "127.0.0.1", "::1"),
        )
        self._not_before, self._lock = 0.0, threading.Lock()

    def ask(self, model: str, messages: Sequence[Message], **options: Any) -> Reply:
        """The model's answer to the messages. Raises ChatError, whose text names the address and the reason but no key."""
        rows = [{"role": m["role"], "content": m["content"]} for m in messages]
        body = json.dumps({"model": model, "messages": rows} | self.options | options).encode()
        attempts, broken = 0, 0
        while isinstance(outcome := self._attempt(model, body), _Failure):
            attempts, broken = attempts + 1, broken + outcome.sent
            last = not outcome.again or broken > 1 or attempts > self.retries or outcome.after > _LONGEST_RETRY_AFTER
            if last:
                raise ChatError(outcome.reason + (f", {attempts} attempts" if attempts > 1 else ""), outcome.fatal)
            highest = min(_LAST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(attempts - 1, 10))
            self._pause(outcome.after, random.uniform(0.1, 1) * highest, outcome.reason)
        return outcome

    def close(self) -> None:
        """Close the kept connections."""
        self._client.close()

    def _attempt(self, model: str, body: bytes) -> Reply | _Failure:
        """One attempt, read to its end within the time-out: the library alone limits each read, not their sum."""
        self._hold()
        started = time.monotonic()
        try:
            with self._client.stream("POST", self.call, content=body) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if time.monotonic() > started + self.timeout:
                        raise httpx2.ReadTimeout("the reply took too long")
        except httpx2.HTTPError as error:
            failure = _broken(self.call, error, self.timeout)
            if failure.sent:
                self.usage.lost()
            return failure
        if response.status_code != 200:
            return _refusal(self.call, response, bytes(content))
        try:
            data = json.loads(bytes(content))
        except (ValueError, RecursionError):
            return _Failure(f"{self.call} answered with something that is not JSON")
        tokens = _tokens(data)
        self.usage.add(tokens)
        return _reply(self.call, model, data, tokens, time.monotonic() - started)

    def _hold(self) -> None:
        with self._lock:
            left = self._not_before - time.monotonic()
        if left > 0:
            time.sleep(left)

    def _pause(self, after: float, jitter: float, reason: str) -> None:
        """Wait by oneself, and keep all others from calling for as long as the server asked."""
        if after:
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + after)
        (self.say or logging.getLogger("guerdon.collect").info)(f"{reason}; again in {after + jitter:.1f} s")
        time.sleep(after + jitter)


def in_parallel(
    jobs: Iterable[Job], work: Callable[[Job], Result], connections: int
) -> Iterator[tuple[Job, Result | ChatError]]:
    """Each job with its result as it is done, at most `connections` under way; a ChatError takes the result's place.

    Jobs are taken one by one, never all at once. A fatal ChatError, and any other exception, ends the run after the jobs
    under way.
    """
    waiting = iter(jobs)
    with ThreadPoolExecutor(connections) as pool:
        running: dict[Future[Result], Job] = {pool.submit(work, job): job for job in islice(waiting, connections)}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, error = running.pop(future), future.exception()
                if isinstance(error, ChatError) and not error.fatal:
                    yield job, error
                else:
                    yield job, future.result()
                for job in islice(waiting, 1):
                    running[pool.submit(work, job)] = job


def key_of(variable: str | None) -> str | None:
    """The key in an environment variable; None leaves the choice to `ChatApi`. Raises ConfigError when it is not set."""
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"the environment variable {variable} is not set; put the key of the chat endpoint into it")
    return os.environ[variable]


def _refusal(call: str, response: httpx2.Response, content: bytes) -> _Failure:
    """Why there is no answer, and whether another attempt may help."""
    text, status = " ".join(content[:2000].decode("utf-8", "replace").split()), response.status_code
    return _Failure(
        f"{call} answered {status}{f' ({text[:200]})' if text else ''}",
        again=status in _BUSY and not (status == 429 and "insufficient_quota" in text),
        after=retry_after(response.headers.get("Retry-After")),
        fatal=status in _FATAL or "insufficient_quota" in text,
    )


def _broken(call: str, error: httpx2.HTTPError, timeout: float) -> _Failure:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return _Failure(f"{call} cannot be reached ({error})", again=True)
    if isinstance(error, httpx2.TimeoutException):
        return _Failure(f"{call} did not answer within {timeout:g} s", again=True, sent=True)
    lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
    return _Failure(f"{call} broke off ({error})", again=lost, sent=lost)


def _tokens(data: Any) -> tuple[int, int]:
    """(prompt, completion) tokens of a reply; 0 where it does not say."""
    usage = data.get("usage") if isinstance(data, dict) else None
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else 0 for n in counts)
    return prompt, completion


def _reply(call: str, model: str, data: Any, tokens: tuple[int, int], seconds: float) -> Reply | _Failure:
    """The first choice of a reply; a failure when it holds no text."""
    try:
        choice = data["choices"][0]
        text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
    except (LookupError, TypeError, AttributeError):
        return _Failure(f"{call} answered with something that is not a chat completion")
    if not isinstance(text, str):
        return _Failure(f"{call}: {model} gave no text{f' (refused: {str(refusal)[:100]})' if refusal else ''}")
    answered = data.get("model")
    by = answered if isinstance(answered, str) and answered else model
    return Reply(text, str(choice.get("finish_reason") or ""), by, tokens, seconds)
