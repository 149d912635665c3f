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
FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0  # seconds
LONGEST_RETRY_AFTER = 60.0  # seconds a server may ask to stay away for, unless we are told to wait


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt gave no scores; `again` when another may; `after` seconds the server asks to stay away for."""

    reason: str
    again: bool = False
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How failures are taken: see `Client`."""

    retries: int
    on_failure: OnFailure
    deadline: float
    say: Callable[[str], None] | None = None

    def tell(self, sentence: str) -> None:
        (self.say or logging.getLogger("guerdon.client").warning)(sentence)


class Attempts:
    """How long to pause before the next attempt at one request, or that there is none."""

    def __init__(self, patience: Patience) -> None:
        self.patience, self.failures, self.first = patience, 0, 0.0

    def pause(self, failure: Failure) -> float | None:
        """Seconds until the next attempt; None when the rows go without a reward. Raises ScoringError as configured."""
        patience, now = self.patience, time.monotonic()
        self.first = self.first or now
        self.failures += 1
        highest = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self.failures - 1, 10))
        pause = failure.after + random.uniform(0.1, 1) * highest
        if patience.on_failure == "wait":
            left = self.first + patience.deadline - now
            if not failure.again or failure.after > left or left <= 0:
                waited = f", after {now - self.first:.0f} s of waiting" if failure.again else ""
                raise ScoringError(f"{failure.reason}{waited}; mend the server and resume")
            patience.tell(f"{failure.reason}; trying again in {min(pause, left):.1f} s, for {left:.0f} s more")
            return min(pause, left)
        if failure.again and self.failures <= patience.retries and failure.after <= LONGEST_RETRY_AFTER:
            return pause
        tries = f", {self.failures} attempts" if self.failures > 1 else ""
        if patience.on_failure == "raise":
            raise ScoringError(f"{failure.reason}{tries}")
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
