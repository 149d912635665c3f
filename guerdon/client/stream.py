"""Batches of any size: lines of JSON go out, scores come back as they are made, each exactly once and with its place.

What a stream that broke off still owes is asked for again in another. What could not be had becomes an error, never a reward.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx2

from guerdon.client.reply import score_of, unusable_row
from guerdon.client.retry import Failure
from guerdon.types import Conversation, Score, ScoringError

LINES = 4096  # conversations in one request
PATH = "/v1/score/stream"


@dataclass(eq=False)
class Part:
    """The conversations of one request.

    line       writes one of them
    left       those that have no score yet, by their place in the whole
    sent       their places in the order of the lines that were sent
    is_strict  raise for a row with an unusable value
    """

    line: Callable[[Conversation], dict[str, Any]]
    left: dict[int, Conversation]
    is_strict: bool = False
    sent: list[int] = field(default_factory=list)
    rest: bytes = b""
    is_done: bool = False
    last: float = 0.0

    def body(self) -> bytes:
        """All that has no score yet."""
        self.sent, self.rest, self.is_done, self.last = list(self.left), b"", False, time.monotonic()
        return b"".join(json.dumps(self.line(self.left[place])).encode() + b"\n" for place in self.sent)

    def take(self, chunk: bytes, timeout: float) -> Iterator[tuple[int, Score]]:
        """The scores in what arrived, those that are owed. Raises httpx2.ReadTimeout when none came for `timeout` seconds, and
        ScoringError for an unusable one where that is wanted.
        """
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            for found in self._take(line):
                self.last = time.monotonic()
                yield found
        if time.monotonic() > self.last + timeout:
            raise httpx2.ReadTimeout("no score came for too long")

    def _take(self, text: bytes) -> Iterator[tuple[int, Score]]:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            return  # what it owes stays owed
        if not isinstance(row, dict):
            return
        self.is_done = self.is_done or row.get("done") is True
        index = row.get("index")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.sent):
            return
        place, score = self.sent[index], score_of(row)
        if self.is_strict and unusable_row(row, score):
            raise ScoringError(f"{PATH}: {score.reason}")
        if self.left.pop(place, None) is not None:
            yield place, score

    @property
    def has_gained(self) -> bool:
        """Has the last request brought any score that was owed?"""
        return len(self.left) < len(self.sent)

    def failure(self, call: str) -> Failure | None:
        """Why some have no score although the reply has ended; None when all have."""
        if not self.left:
            return None
        if self.is_done:
            return Failure(f"{call} ended with {len(self.left)} of {len(self.sent)} scores missing")
        return Failure(f"{call} broke off with {len(self.left)} of {len(self.sent)} scores missing", again=True)

    def errors(self, reason: str) -> Iterator[tuple[int, Score]]:
        """Give up what is left."""
        for place in list(self.left):
            del self.left[place]
            yield place, Score(0, "error", reason=reason)


def parts_of(
    conversations: Iterable[Conversation], line: Callable[[Conversation], dict[str, Any]], is_strict: bool
) -> Iterator[Part]:
    """Parts of at most 4,096, read only as they are needed."""
    rest = enumerate(conversations)
    while left := dict(islice(rest, LINES)):
        yield Part(line, left, is_strict)
