"""What a run of model calls has cost so far, written to the study's table `cost` while it runs, not only at its end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from guerdon.collect import schema
from guerdon.collect.chat_api import Prices, Usage
from guerdon.collect.store import Store

_EVERY = 5.0  # seconds between two rows


@dataclass(frozen=True, slots=True)
class Spent:
    """Totals of one rater or generator: calls, tokens, and their cost in the user's currency (None: no price was given)."""

    rater: str
    purpose: Literal["rate", "generate"]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


class Spending:
    """Writes the difference since its last row, so that the rows of a study add up to what was spent on it."""

    def __init__(
        self,
        store: Store,
        study: str,
        rater: str,
        purpose: Literal["rate", "generate"],
        usage: Usage,
        prices: Prices,
    ) -> None:
        self.store, self.study, self.rater, self.purpose = store, store.study(study).id, rater, purpose
        self.usage, self.prices, self.written, self.at = usage, prices, (0, 0, 0), time.monotonic()

    def note(self, last: bool = False) -> None:
        """Write a row if there is something new and some seconds have passed, or this is the last."""
        now = (self.usage.calls, self.usage.prompt_tokens, self.usage.completion_tokens)
        if now == self.written or not (last or time.monotonic() - self.at > _EVERY):
            return
        calls, prompt, completion = (new - old for new, old in zip(now, self.written, strict=True))
        row = {
            "study": self.study,
            "rater": self.rater,
            "purpose": self.purpose,
            "at": time.time(),
            "requests": calls,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "dollars": self.prices.cost(prompt, completion),
        }
        self.store.write(lambda db: db.execute(schema.cost.insert().values(row)))
        self.written, self.at = now, time.monotonic()


def spent(store: Store, study: str) -> list[Spent]:
    """What each AI rater and generator of a study has cost so far; the cost is None when any of its calls had no price."""
    c, number = schema.cost.c, store.study(study).id
    sums = [sa.func.sum(column) for column in (c.requests, c.prompt_tokens, c.completion_tokens, c.dollars)]
    query = (
        sa.select(c.rater, c.purpose, *sums, sa.func.count() - sa.func.count(c.dollars))
        .where(c.study == number)
        .group_by(c.rater, c.purpose)
        .order_by(c.rater, c.purpose)
    )
    rows = store.read(lambda db: db.execute(query).all())
    return [Spent(*row[:5], row[5] if row[6] == 0 else None) for row in rows]
