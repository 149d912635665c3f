"""When a request is tried again, after what pause, and what becomes of one that failed for good."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from guerdon.types import ScoringError

OnFailure = Literal["mask", "wait", "raise"]
BUSY = (429, 502, 503, 504)  # the server may answer later; asking again is safe, because scoring changes nothing
PATIENCE: dict[OnFailure, float] = {"mask": 300.0, "raise": 300.0, "wait": 1800.0}  # seconds
FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0  # seconds
TOLD_AFTER = 2.0  # seconds; shorter waits are nobody's concern


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt gave no scores; `again` when another may; `after` seconds the server asks to stay away for."""

    reason: str
    again: bool = False
    after: float = 0.0


@dataclass(eq=False)
class Patience:
    """How failures are taken, see `Client`. All requests of a client share one, so that a server that stays away is waited for
    once and not once for each request.

    since     when the server was first found away or busy, and no request was answered after that; None while it answers
    has_told  whether the wait that began then has been told
    """

    seconds: float
    on_failure: OnFailure
    say: Callable[[str], None] | None = None
    since: float | None = None
    has_told: bool = False

    def tell(self, sentence: str) -> None:
        (self.say or logging.getLogger("guerdon.client").warning)(sentence)

    def wait(self, reason: str, pause: float, left: float) -> None:
        """Tell of a wait, once, and not of one that is over in a moment."""
        if not self.has_told and time.monotonic() + pause >= (self.since or 0.0) + TOLD_AFTER:
            self.has_told = True
            self.tell(f"{reason}; waiting for it, {left:.0f} s at most")

    def answered(self) -> None:
        """The server is there and not too busy."""
        since, has_told, self.since, self.has_told = self.since, self.has_told, None, False
        if has_told and since is not None:
            self.tell(f"the server answers again, after {time.monotonic() - since:.0f} s")


class Attempts:
    """How long to pause before the next attempt at one request, or that there is none. `must`: without an answer nothing can go on."""

    def __init__(self, patience: Patience, must: bool = False) -> None:
        self.patience, self.must, self.failures, self.first = patience, must, 0, 0.0

    def pause(self, failure: Failure) -> float | None:
        """Seconds until the next attempt; None when the rows go without a reward. Raises ScoringError as configured, or for `must`."""
        patience, now = self.patience, time.monotonic()
        self.first = self.first or now
        self.failures += 1
        if failure.again:
            since = patience.since = patience.since or now
            left = min(self.first, since) + patience.seconds - now
            if 0 < left >= failure.after:
                highest = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self.failures - 1, 10))
                pause = min(left, failure.after + random.uniform(0.1, 1) * highest)
                patience.wait(failure.reason, pause, left)
                return pause
        tries = f", {self.failures} attempts in {now - self.first:.0f} s" if self.failures > 1 else ""
        if self.must or patience.on_failure != "mask":
            advice = "; mend the server and resume" if patience.on_failure == "wait" else ""
            raise ScoringError(f"{failure.reason}{tries}{advice}")
        patience.tell(f"{failure.reason}{tries}; the rows of this request go without a reward")
        return None


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
