"""From waiting items to scores: batches by tokens, encoded and scored in a thread, delivered row by row.

A batch leaves as soon as the worker is free, so nobody waits for company; company gathers while the worker is busy. Within a
batch the model sorts by length and hangs what starts alike on one prompt tree. All state but the model's belongs to the
event loop; the thread gets a list of items and calls back with scores.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from guerdon.model.ready import Ready
from guerdon.serve.admission import Entry, characters
from guerdon.serve.call import Call, Item, Refused
from guerdon.serve.metrics import Metrics
from guerdon.serve.models import Loaded
from guerdon.types import Score

logger = logging.getLogger("guerdon.serve")


@dataclass(eq=False)
class Job:
    """A request in the queue. `scores` fills up; `features` too, where they are wanted."""

    loaded: Loaded
    call: Call
    scores: list[Any]
    future: asyncio.Future[None]
    admitted: float
    wants_features: bool = False
    features: NDArray[np.float32] | None = None
    left: int = 0
    is_waiting: bool = True
    over: bool = field(default=False)


class Engine:
    """The one place where models run. Use it from one event loop.

    workers  batches under way at once: 1 on CPU; 2 on CUDA, where one is encoded while the other is scored
    """

    def __init__(self, metrics: Metrics, *, batch_tokens: int | None, row_tokens: int | None) -> None:
        self.metrics = metrics
        self.batch_tokens, self.row_tokens = batch_tokens, row_tokens
        self._turns: deque[Loaded] = deque()
        self._free = self._workers = 2 if torch.cuda.is_available() else 1
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="guerdon-score")
        self._model_lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: set[asyncio.Future[None]] = set()

    async def score(self, loaded: Loaded, items: Sequence[Item], call: Call, *, features: bool = False) -> Job:
        """Wait for the scores of a request. Raises Refused: 413, 429 before it waits, 504 past its deadline.

        When the caller is cancelled, what still waits is dropped.
        """
        self._loop = loop = asyncio.get_running_loop()
        job = Job(loaded, call, [None] * len(items), loop.create_future(), time.monotonic(), features)
        groups = call.groups or (None,) * len(items)
        estimate = loaded.estimate
        entries = [
            estimate.entry(job, n, item, group) for n, (item, group) in enumerate(zip(items, groups, strict=True))
        ]
        loaded.queue.require_room(call.key, sum(entry.cost for entry in entries), loaded.drain)
        job.left = len(entries)
        self._jobs.add(job.future)
        job.future.add_done_callback(self._jobs.discard)
        timer = None
        if call.deadline is not None:
            timer = loop.call_later(max(0.0, call.deadline - time.monotonic()), self._expire, job)
        loaded.queue.put(call.key, entries)
        if loaded not in self._turns:
            self._turns.append(loaded)
        self._dispatch()
        try:
            await job.future
        finally:
            if timer:
                timer.cancel()
            self._drop(job)
        return job

    def refuse(self, refused: Refused) -> None:
        """Answer every request that is here with this."""
        for future in [future for future in self._jobs if not future.done()]:
            future.set_exception(refused)

    @property
    def is_busy(self) -> bool:
        """Whether a batch is being scored."""
        return self._free < self._workers

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _expire(self, job: Job) -> None:
        if not job.future.done():
            job.future.set_exception(Refused(504, "the deadline passed before all was scored", kind="deadline"))

    def _drop(self, job: Job) -> None:
        job.over = True
        if job.is_waiting:
            job.is_waiting = False
            before = job.loaded.queue.tokens
            count = job.loaded.queue.drop(job.call.key, job)
            if count:
                self.metrics.dropped.inc(count)
                logger.debug("dropped %d items, %d tokens", count, before - job.loaded.queue.tokens)
            self.metrics.queue.labels(job.loaded.served.name).set(job.loaded.queue.tokens)

    def _dispatch(self) -> None:
        """Give every free worker a batch, models in turns."""
        while self._free and self._turns:
            loaded = self._turns.popleft()
            batch = loaded.queue.take(self._budget(loaded))
            if loaded.queue.tokens:
                self._turns.append(loaded)
            if batch:
                self._free -= 1
                now = time.monotonic()
                cost = 0
                for entry in batch:
                    cost += entry.cost
                    job: Any = entry.owner
                    if job.admitted:
                        self.metrics.wait.observe(now - job.admitted)
                        job.admitted = 0.0
                loaded.running += cost
                self._pool.submit(self._run, loaded, batch, cost)
            self.metrics.queue.labels(loaded.served.name).set(loaded.queue.tokens)

    def _budget(self, loaded: Loaded) -> int:
        model: Any = getattr(loaded.model, "models", (loaded.model,))[0]
        return self.batch_tokens or (8192 if model.device.type == "cpu" else 65536)

    def _run(self, loaded: Loaded, batch: list[Entry], cost: int) -> None:
        """In the thread: encode, score, and hand over what is ready; whatever goes wrong becomes scores of status `error`."""
        started = time.perf_counter()
        totals = [0, 0]  # tokens of the items, tokens computed
        encoded = _encode(loaded.model, batch)
        with self._model_lock:
            rest = self._stream(loaded, batch, encoded, range(len(batch)), totals)
            if len(rest) > 1:  # one of them may have spoiled it for the others, or memory was short
                rest = [place for alone in rest for place in self._stream(loaded, batch, encoded, [alone], totals)]
        failed = Score(0, "error", reason="scoring failed; the log of the server says why")
        if rest:
            self._call(self._deliver, loaded, batch, Ready(rest, [failed] * len(rest), None, 0))
        self._call(self._finished, loaded, batch, cost, time.perf_counter() - started, totals)

    def _stream(
        self, loaded: Loaded, batch: list[Entry], encoded: list[Any], places: Sequence[int], totals: list[int]
    ) -> list[int]:
        """Score some items of a batch and deliver them; returns those that an exception left over."""
        left = dict.fromkeys(places)
        wanted = any(entry.owner.wants_features for entry in batch)  # type: ignore[attr-defined]
        options: dict[str, Any] = {"features": wanted, "tokens_per_row": self.row_tokens}
        try:
            for ready in loaded.model.stream([encoded[place] for place in places], **options):
                found = ready._replace(places=[places[place] for place in ready.places])
                for place in found.places:
                    del left[place]
                totals[0] += sum(score.tokens for score in ready.scores)
                totals[1] += ready.computed
                self._call(self._deliver, loaded, batch, found)
        except Exception:
            logger.exception("a batch of %d items failed", len(places))
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return list(left)

    def _call(self, function: Any, *arguments: Any) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop was closed under us: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _deliver(self, loaded: Loaded, batch: list[Entry], ready: Ready) -> None:
        name = loaded.served.name  # counted before anybody has the answer, so that who has it finds it counted
        self.metrics.tokens.labels(name).inc(sum(score.tokens for score in ready.scores))
        self.metrics.computed.labels(name).inc(ready.computed)
        for n, (place, score) in enumerate(zip(ready.places, ready.scores, strict=True)):
            entry = batch[place]
            job: Any = entry.owner
            if job.over:
                continue
            job.scores[entry.index] = score
            if job.wants_features and ready.features is not None:
                if job.features is None:
                    job.features = np.full((len(job.scores), ready.features.shape[1]), np.nan, dtype=np.float32)
                job.features[entry.index] = ready.features[n]
            job.left -= 1
            if not job.left and not job.future.done():
                job.is_waiting = False
                job.future.set_result(None)

    def _finished(self, loaded: Loaded, batch: list[Entry], cost: int, seconds: float, totals: list[int]) -> None:
        self._free += 1
        loaded.running -= cost
        self._dispatch()  # before anything else: the worker is free
        name, metrics = loaded.served.name, self.metrics
        loaded.rate += min(1.0, cost / 20_000) * (cost / max(seconds, 1e-6) - loaded.rate)
        self._learn(loaded, batch)
        metrics.rate.labels(name).set(loaded.rate)
        metrics.batch.labels(name).observe(totals[0])
        metrics.score.labels(name).observe(seconds)
        if totals[0]:
            metrics.shared.labels(name).set(max(0.0, 1 - totals[1] / totals[0]))

    def _learn(self, loaded: Loaded, batch: list[Entry]) -> None:
        """Correct the estimate of tokens by what the items turned out to be."""
        size = tokens = 0
        for entry in batch:
            score = entry.owner.scores[entry.index]  # type: ignore[attr-defined]
            if score is not None and score.tokens and not score.truncated and entry.item.ids is None:
                size += characters(entry.item)
                tokens += score.tokens
        loaded.estimate.learn(size, tokens)


def _encode(model: Any, batch: Sequence[Entry]) -> list[Any]:
    """Token ids of every item, each kind in one call of the tokenizer; what makes that fail fails alone."""
    encoded: list[Any] = [None] * len(batch)
    for name, encode in (("messages", model.encode), ("text", model.encode_texts), ("ids", model.encode_ids)):
        places = [n for n, entry in enumerate(batch) if getattr(entry.item, name) is not None]
        if not places:
            continue
        try:
            found = encode([getattr(batch[n].item, name) for n in places])
        except Exception:
            found = [_encode_one(encode, getattr(batch[n].item, name)) for n in places]
        for place, item in zip(places, found, strict=True):
            encoded[place] = item
    return encoded


def _encode_one(encode: Any, thing: Any) -> Any:
    try:
        return encode([thing])[0]
    except Exception as error:
        return Score(0, "error", reason=f"cannot be read as a text ({error})")
