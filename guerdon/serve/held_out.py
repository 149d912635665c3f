"""Has a random share of a run's samples scored by a second, held-out model, through the same queue as everybody's.

A score that could not be had, because the queue was full or the model failed, is counted as missing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from guerdon.serve.call import Call, Item, Refused, Served
from guerdon.serve.run_record import Open, RunRecord
from guerdon.serve.run_tally import Sample
from guerdon.types import ConfigError, Score

logger = logging.getLogger("guerdon.serve")
TIMEOUT = 60.0  # seconds
KEY = "guerdon:held-out"  # a queue of its own, so that no caller's share is used


class Scores(Protocol):
    """What of the service is used."""

    async def score(self, items: Sequence[Item], call: Call) -> list[Score]: ...

    def model(self, name: str | None) -> Served: ...


class HeldOut:
    """Chooses samples and has them checked.

    share   of the samples, by prompt; after an alert as much more as the monitor asks for
    budget  checks that the monitor may count on in a step
    post    hands what is to be done with the scores to whoever holds the runs
    seed    which samples are chosen; random when None
    """

    def __init__(
        self,
        service: Scores,
        name: str,
        share: float,
        budget: int,
        post: Callable[[Callable[[], None]], None],
        seed: bytes | None = None,
    ) -> None:
        self.service, self.name, self.share, self.budget, self.post = service, name, share, budget, post
        self._seed = os.urandom(16) if seed is None else seed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = 0

    def require_model(self) -> None:
        """Raise ConfigError when the service has no such model."""
        try:
            self.service.model(self.name)
        except Refused as error:
            raise ConfigError(f"--held-out {self.name}: {error.message}") from error

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that the service runs in."""
        self._loop = loop

    def take(self, run: RunRecord, one: Open, items: Sequence[Item], samples: Sequence[Sample]) -> None:
        """Choose among the samples of a call, and have those scored; their step waits."""
        picked = []
        for item, sample in zip(items, samples, strict=True):
            if sample.score.status == "ok" and self._is_chosen(run, one, sample.prompt):
                one.chosen += 1
                picked.append((item, sample))
        if picked:
            one.pending += len(picked)
            self._ask(one, picked)

    def _is_chosen(self, run: RunRecord, one: Open, prompt: int | None) -> bool:
        """The same answer for all samples of a prompt, at random over prompts; fewer where the step before says that they would
        pass the budget. When a sample comes does not matter, so that short answers, which come first, are not preferred.
        """
        if one.chosen >= 4 * run.wanted:
            return False
        share = self.share * run.wanted / self.budget
        if run.said and run.columns["samples"][-1] > 0:
            share = min(share, run.wanted / run.columns["samples"][-1])
        self._number += 1
        text = f"{run.name}\n{one.tally.step}\n{f'sample {self._number}' if prompt is None else prompt}"
        drawn = blake2b(text.encode("utf-8", "replace"), digest_size=8, key=self._seed).digest()
        return int.from_bytes(drawn, "big") < share * 2**64

    def _ask(self, one: Open, picked: Sequence[tuple[Item, Sample]]) -> None:
        def taken(scores: Sequence[Score]) -> None:
            one.pending -= len(picked)
            for score, (_, sample) in zip(scores, picked, strict=True):
                one.tally.check(score, float(sample.score), sample.prompt)

        async def ask() -> None:
            call = Call(self.name, key=KEY, deadline=time.monotonic() + TIMEOUT)
            try:
                scores = await self.service.score([item for item, _ in picked], call)
            except Refused as error:
                scores = [Score(0, "error", reason=error.message) for _ in picked]
            except Exception:
                logger.exception("the held-out model failed")
                scores = [Score(0, "error", reason="the held-out model failed") for _ in picked]
            self.post(lambda: taken(scores))

        asked: Coroutine[Any, Any, None] = ask()
        try:
            assert self._loop is not None
            asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:  # the loop has ended
            asked.close()
            taken([Score(0, "error", reason="the server is stopping") for _ in picked])
