"""What a request is, whatever dialect it came in, and what callers see of a model."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from guerdon.types import Conversation, Score

_OTHER_PAGE = re.compile(r"(^|/)\.\.?(/|$)|/page$|/steps/[^/]*$")  # in the address of a run
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: no file name, page or address can hold it


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to score: exactly one of the three is set.

    messages  a whole conversation
    text      already rendered by a chat template, special tokens written out; the opening and the closing token are put
              where the contract wants them exactly once, whether or not they are there
    ids       token ids, taken as they are
    """

    messages: Conversation | None = None
    text: str | None = None
    ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.messages is None) + (self.text is None) + (self.ids is None) != 2:
            raise ValueError("an item has exactly one of messages, text and ids")


@dataclass(frozen=True, slots=True)
class Call:
    """What came with the request besides the items.

    model     name of the model; None for the first one
    reward    rule that makes one reward of an ensemble's members: mean, min, mean-std:K, mean-var:K, quantile:Q
    run, step a policy run and its step, so that it can be watched
    key       name of the API key, with the run if there is one: the unit of fair queueing
    deadline  `time.monotonic()` after which the answer is of no use
    groups    a number per item, equal for items that answer the same prompt, where the caller knows it
    contract  contract hash that the caller insists on
    kl        nats between policy and reference on each item, where the caller sends it: for the watch alone
    """

    model: str | None = None
    reward: str | None = None
    run: str | None = None
    step: int | None = None
    key: str = ""
    deadline: float | None = None
    groups: tuple[int, ...] | None = None
    contract: str | None = None
    kl: tuple[float, ...] | None = None


class Refused(Exception):
    """A request that is not scored, and why: `status` is the HTTP status, `kind` one word for programs.

    400 invalid, 401 key, 403 key, 404 model, 408 slow, 409 busy, 412 contract, 413 size, 429 overloaded or guessing, 503
    draining, 504 deadline. `retry_after` is in seconds.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None, kind: str = "invalid") -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after, self.kind = status, message, retry_after, kind

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After in whole seconds, rounded up, where there is one."""
        return {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


@dataclass(frozen=True, slots=True)
class Served:
    """A model as callers see it.

    name         what it is called in requests
    fingerprint  names the reward as it is computed here (see `RewardModel.fingerprint`)
    contract     hash of its scoring contract, for an ensemble of checkpoints its fingerprint; None where one has no contract
    max_length   context in tokens
    tokenizer    its tokenizer (of the first member, for an ensemble of checkpoints)
    members      how many members vote; 1 for a single reward model
    rules        names of the rules that `reward` may ask for
    rule         the rule when a request asks for none
    temperature  preference probability = sigmoid(difference / temperature); None when it was never measured
    reference    reward that probabilities compare with unless a request brings its own reference
    """

    name: str
    fingerprint: str
    contract: str | None
    max_length: int
    tokenizer: Any
    members: int = 1
    rules: tuple[str, ...] = ("mean",)
    rule: str = "mean"
    temperature: float | None = None
    reference: float | None = None


class Watch(Protocol):
    """What is told about every scored call that carries a run."""

    def seen(
        self, call: Call, items: Sequence[Item], scores: Sequence[Score], features: NDArray[np.float32] | None
    ) -> None: ...


def call_of(request: Request, body: Mapping[str, Any]) -> Call:
    """Model, rule, run, step and deadline of a request, from its body or, where that has no room for them, the headers
    X-Guerdon-Model, -Run, -Step, -Reward and -Timeout (seconds). Raises Refused (400).
    """
    headers = request.headers
    run = _text(body, "run") or _text(headers, "x-guerdon-run")
    if run is not None and _OTHER_PAGE.search(run):
        raise Refused(400, f"'{run[:80]}' cannot name a run: its address would be that of something else")
    name = str(request.scope.get("guerdon.key", ""))
    timeout = _number(headers.get("x-guerdon-timeout"), "X-Guerdon-Timeout")
    if timeout is not None and timeout <= 0:
        raise Refused(400, f"X-Guerdon-Timeout must be more than 0 seconds, got {timeout:g}")
    step = body.get("step")
    step = _number(headers.get("x-guerdon-step"), "X-Guerdon-Step") if step is None else step
    if step is not None and (isinstance(step, bool) or not isinstance(step, int | float) or step != step // 1):
        raise Refused(400, "step must be a whole number")
    if step is not None and step < 0:
        raise Refused(400, f"step must be 0 or more, got {str(step)[:40]}")
    if step is not None and run is None:
        raise Refused(400, "a step belongs to a run; send run (or X-Guerdon-Run) with it")
    return Call(
        model=_text(body, "model") or _text(headers, "x-guerdon-model"),
        reward=_text(body, "reward") or _text(headers, "x-guerdon-reward"),
        run=run,
        step=None if step is None else int(step),
        key=f"{name}/{run}" if run else name,
        deadline=None if timeout is None else time.monotonic() + timeout,
        contract=_text(body, "contract") or _pinned(headers.get("if-match")),
        kl=_kl(body.get("kl"), headers.get("x-guerdon-kl")),
    )


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None or (isinstance(value, str) and len(value) <= 256 and not _HALF.search(value)):
        return value or None
    raise Refused(400, f"{name} must be a text of at most 256 characters, without half of a surrogate pair")


def _number(value: str | None, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Refused(400, f"{name} must be a number")
    return number


def _kl(value: Any, header: str | None) -> tuple[float, ...] | None:
    """Numbers from the body, one or a list, or the one in the header."""
    value = _number(header, "X-Guerdon-KL") if value is None else value
    if value is None:
        return None
    numbers = value if isinstance(value, list) else [value]
    if not all(type(n) in (int, float) and abs(n) < 1e300 for n in numbers):
        raise Refused(400, "kl must be a finite number of nats, or one for each item")
    return tuple(map(float, numbers))


def _pinned(value: str | None) -> str | None:
    """The hash in an If-Match header; None for `*`."""
    hash = (value or "").strip().removeprefix("W/").strip('"')
    return None if hash in ("", "*") else hash
