"""Watches policy runs at the one place that every score passes through.

`seen` takes note of a scored call and returns at once; a thread of its own makes small statistics of it. A random share of the
samples, whole prompts at a time, is scored by a second, held-out model through the same queue as everybody's. When a step is
over, `guerdon.diagnose.monitor.Monitor` says ok, warn or stop. What could not be had is missing, never made up.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.diagnose.monitor import Settings
from guerdon.diagnose.novelty import Novelty
from guerdon.serve import run_record
from guerdon.serve.admission import characters
from guerdon.serve.answers import Answer, Answers, number_of
from guerdon.serve.call import Call, Item, Served
from guerdon.serve.held_out import TIMEOUT, HeldOut, Scores
from guerdon.serve.run_record import GRACE, RunRecord
from guerdon.serve.run_tally import Sample, surface_of
from guerdon.serve.service import Service
from guerdon.types import ConfigError, Score

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("guerdon.serve")
MOST_WAITING = 20_000_000  # characters of samples that may wait for the thread; those after them are counted as dropped
MOST_RUNS, MOST_ROWS = 256, 50_000  # in memory; the runs seen longest ago go first, and stay in their files
LARGEST_STEP = 2**53

Features = NDArray[np.float32] | None


@dataclass(frozen=True)
class WatchOptions:
    """How runs are watched.

    folder    where runs are kept across restarts; None: in memory only
    held_out  name of the served model that samples are checked with; None: nothing is held out
    share     share of the samples that are checked, by prompt, before the budget
    budget    checks per step; the monitor asks for four times as many after an alert
    steps     planned length of a run, in steps
    grace     seconds that samples of a step may come in after the next step has begun
    novelty   where the training answers of a model lie, by its name; None: its drift is not measured
    """

    folder: Path | None = None
    held_out: str | None = None
    share: float = 0.1
    budget: int = 48
    steps: int = 250
    grace: float = GRACE
    novelty: Callable[[str], Novelty | None] = lambda _: None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"the held-out share must be above 0 and at most 1, got {self.share:g}")
        if self.budget < 1 or self.steps < 1 or self.grace < 0:
            raise ConfigError("the held-out budget and the planned steps must be at least 1, and the grace not below 0")


_Seen = tuple[Call, Sequence[Item], Sequence[Score], Features]
_Event = _Seen | Callable[[], None]


class Watch:
    """All runs. `start` it before the first request, `stop` it after the last."""

    def __init__(self, service: Scores, options: WatchOptions | None = None, seed: bytes | None = None) -> None:
        self.service, self.options = service, options or WatchOptions()
        self.settings = Settings(steps=self.options.steps, budget=self.options.budget)
        self.checks: HeldOut | None = None
        if self.options.held_out is not None:
            self.checks = HeldOut(
                service, self.options.held_out, self.options.share, self.options.budget, self._post, seed
            )
        self._runs: dict[str, RunRecord] = {}
        self._answers: dict[str, Answers] = {}
        self._events: deque[_Event] = deque()
        self._waiting = 0
        self._wake, self._lock = threading.Condition(), threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._folder_lock: Any = None
        self._number, self._since = 0, time.time()

    def start(self) -> None:
        """Begin to take note, with the runs that the folder keeps. Raises ConfigError for a held-out model that is not served,
        and a folder that cannot be used or that another server keeps its runs in.
        """
        if self.checks is not None:
            self.checks.require_model()
        if self.options.folder is not None:
            self._folder_lock = locked(self.options.folder)
            self._runs = run_record.kept(self.options.folder, self.settings, MOST_RUNS, MOST_ROWS)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="guerdon-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take in what waits, write down the steps that are open, and end the thread."""
        if self._thread is not None:
            with self._wake:
                self._is_stopping = True
                self._wake.notify()
            self._thread.join(timeout=10)
            self._thread = None
        with self._lock:
            for run in self._runs.values():
                self._suspend(run)
        if self._folder_lock is not None:
            self._folder_lock.close()
            self._folder_lock = None

    def wants_features(self, model: str) -> bool:
        """Is the distance from this model's training answers measured?"""
        return self.options.novelty(model) is not None

    def seen(
        self,
        call: Call,
        items: Sequence[Item],
        scores: Sequence[Score],
        features: Features = None,
    ) -> None:
        """Take note of a scored call, in microseconds; its `contract` is that of the model that scored it. A call without a run
        is passed over."""
        if call.run is None or not items:
            return
        if self.checks is not None:
            self.checks.use(asyncio.get_running_loop())
        size = sum(_size(item) for item in items)
        with self._wake:
            if self._waiting + size > MOST_WAITING:
                self._events.append(lambda: self._drop(call.run or "", len(items)))
            else:
                self._waiting += size
                self._events.append((call, items, scores, features))
            self._wake.notify()

    async def close_step(self, name: str, step: int, kl: float | None = None) -> dict[str, Any] | None:
        """The client says that a step is over (and its mean KL): the run's summary after it, held-out scores included.

        None for a run or a step that is not known; a step that is over already is answered as it was the first time.
        """
        await self._caught_up()
        if not await asyncio.to_thread(self._end, name, step, kl):
            return None
        until = time.monotonic() + TIMEOUT
        while True:
            view = await asyncio.to_thread(self._view, name, 0)
            is_closed = view is None or (view["step"] is not None and view["step"] >= step)
            if is_closed or time.monotonic() > until:
                return view
            await asyncio.sleep(0.02)

    async def view(self, name: str, last: int | None = None) -> dict[str, Any] | None:
        """Verdict, reason and series of a run, the last so many steps of them; None when it is not known."""
        await self._caught_up()
        return await asyncio.to_thread(self._view, name, last)

    async def summaries(self) -> list[dict[str, Any]]:
        """All runs in memory, the last seen first."""
        await self._caught_up()
        return await asyncio.to_thread(self._summaries)

    def _post(self, event: Callable[[], None]) -> None:
        """Have something done by the thread, under the lock."""

        def do() -> None:
            with self._lock:
                event()

        with self._wake:
            self._events.append(do)
            self._wake.notify()

    async def _caught_up(self) -> None:
        """Wait until all that was noted so far is taken in, at most two seconds."""
        if self._thread is None:
            return
        done = threading.Event()
        with self._wake:
            self._events.append(done.set)
            self._wake.notify()
        until = time.monotonic() + 2.0
        while not done.is_set() and time.monotonic() < until:
            await asyncio.sleep(0.002)

    # What follows never runs in the event loop: the lock may be held while a step is judged.

    def _end(self, name: str, step: int, kl: float | None) -> bool:
        with self._lock:
            run = self._find(name)
            one = run.open.get(step) if run is not None else None
            if run is None or one is None:
                return run is not None and step in run.columns.get("step", ())
            if kl is not None:
                one.tally.kl = kl
            for number, other in run.open.items():
                other.is_ended |= number <= step
            one.left = time.monotonic() if one.left is None else one.left
            return True

    def _view(self, name: str, last: int | None) -> dict[str, Any] | None:
        with self._lock:
            run = self._find(name)
            if run is None:
                return None
            self._settle(run)
            return run.view(last) | {"held_out": self.options.held_out}

    def _summaries(self) -> list[dict[str, Any]]:
        with self._lock:
            for run in self._runs.values():
                self._settle(run)
            return [run.summary() for run in sorted(self._runs.values(), key=lambda run: -run.seen)]

    def _work(self) -> None:
        while True:
            with self._wake:
                if not self._events and not self._is_stopping:
                    self._wake.wait(timeout=0.5)
                event = self._events.popleft() if self._events else None
                if event is None and self._is_stopping:
                    return
            try:
                self._take(event)
            except Exception:  # a fault in the statistics must not end the watch, and never the service
                logger.exception("a scored call could not be taken into the statistics of its run")

    def _take(self, event: _Event | None) -> None:
        if event is None:
            self._summaries()  # closes what is over
        elif callable(event):
            event()
        else:
            call, items, scores, features = event
            with self._wake:
                self._waiting -= sum(_size(item) for item in items)
            samples = self._samples(call, items, scores, features)
            with self._lock:
                self._add(call, items, samples)

    def _samples(self, call: Call, items: Sequence[Item], scores: Sequence[Score], features: Features) -> list[Sample]:
        served, samples = self.service.model(call.model), []
        self._number += 1
        novelty = self.options.novelty(served.name)
        for i, (item, score) in enumerate(zip(items, scores, strict=True)):
            try:
                answer = self._splitter(served).of(item)
                surface = {} if answer.text is None else surface_of(answer.text)
            except (
                Exception
            ):  # no message, or no text that a tokenizer reads; the sample counts by its status all the same
                answer, surface = Answer(), {}
            prompt = answer.prompt
            if prompt is None and call.groups is not None:
                prompt = number_of(f"call {self._number} {call.groups[i]}")
            drift = math.nan
            if novelty is not None and features is not None and score.status == "ok":
                drift = novelty.distance(features[i : i + 1].astype(np.float64))
            samples.append(
                Sample(score, prompt, surface, answer.tokens, drift, math.nan if call.kl is None else call.kl[i])
            )
        return samples

    def _add(self, call: Call, items: Sequence[Item], samples: Sequence[Sample]) -> None:
        run = self._find(call.run or "", make=True)
        assert run is not None
        run.seen = time.time()
        if call.step is None or call.step > LARGEST_STEP:
            run.counts["without_step"] += len(items)
            return
        one = run.opened(call.step, time.monotonic(), run.seen)
        if one is None:
            run.counts["late"] += len(items)
            return
        served = self.service.model(call.model)
        if len(run.models) < 8:
            run.models.setdefault(f"{served.name} {call.reward or served.rule}")
        if call.contract is not None:
            run.scored_by(served.name, call.contract, call.step)
        for sample in samples:
            one.tally.add(sample)
            run.counts[sample.score.status] += 1
        if self.checks is not None:
            held_out = self.service.model(self.checks.name)
            run.scored_by(held_out.name, held_out.contract or held_out.fingerprint, call.step)
            self.checks.take(run, one, items, samples)
        self._settle(run)

    def _splitter(self, served: Served) -> Answers:
        if served.fingerprint not in self._answers:
            if len(self._answers) > 16:
                self._answers.clear()
            self._answers[served.fingerprint] = Answers(served.tokenizer)
        return self._answers[served.fingerprint]

    def _drop(self, name: str, count: int) -> None:
        with self._lock:
            run = self._find(name, make=True)
            assert run is not None
            run.counts["dropped"] += count

    def _settle(self, run: RunRecord) -> None:
        for line in run.settle(time.monotonic(), self.options.grace):
            if line:
                self._keep(run, line)

    def _keep(self, run: RunRecord, line: Mapping[str, Any]) -> None:
        if self.options.folder is not None:
            try:
                run_record.append(run_record.path_of(self.options.folder, run.name), run, line)
            except OSError as error:
                logger.error("a step of run %s cannot be written: %s", run.name, error)
                run.counts["unwritten"] += 1

    def _find(self, name: str, make: bool = False) -> RunRecord | None:
        """The run, from memory or its file; a new one if it is to be made. The one looked for is the last to be forgotten."""
        run = self._runs.pop(name, None)
        if run is None and self.options.folder is not None:
            path = run_record.path_of(self.options.folder, name)
            run = run_record.read(path, self.settings) if path.is_file() else None
        if run is None and make:
            run = RunRecord(name, self.settings)
        if run is not None:
            self._runs[name] = run
            while len(self._runs) > 1 and (
                len(self._runs) > MOST_RUNS or sum(one.steps for one in self._runs.values()) > MOST_ROWS
            ):
                self._forget(next(iter(self._runs)))
        return run

    def _forget(self, name: str) -> None:
        self._suspend(self._runs.pop(name))

    def _suspend(self, run: RunRecord) -> None:
        """Write down the steps that are open, unless they are as the file has them."""
        if run.open and run.seen >= self._since:
            self._keep(run, run.suspended())


@contextmanager
def watch_of(service: Service) -> Iterator[Watch]:
    """The watch that a server's options ask for, at work while the block runs."""
    config = service.config
    options = WatchOptions(
        folder=None if config.watch_folder is None else Path(config.watch_folder),
        held_out=config.held_out,
        share=config.held_out_share,
        budget=config.held_out_budget,
        steps=config.watch_steps,
        novelty=lambda name: service.novelty.get(name),
    )
    service.watch = watch = Watch(service, options)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


def _size(item: Item) -> int:
    return characters(item) + 4 * len(item.ids or ())


def locked(folder: Path) -> Any:
    """The folder, for this process alone until the file is closed. Raises ConfigError where another has it, or it cannot be
    written in."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("ab")
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{folder}: another server keeps its runs there; give each server a folder of its own"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{folder}: runs cannot be kept there ({error.strerror}); choose a folder to write in"
        ) from error
    return file
