"""The one call that every dialect makes: `Service.score`.

    dialect: body -> Items, Call        service: admit, queue, batch, score        dialect: Scores -> reply

A request is answered whole (a `Score` for each item, in order, those that failed with status `error`) or refused whole
(`Refused`, with the HTTP status that fits). Nothing in between, and never an invented number.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.aggregate import combine, parse_rule
from guerdon.diagnose.novelty import Novelty
from guerdon.model.ensemble import Ensemble
from guerdon.model.reward import RewardModel
from guerdon.serve.call import Call, Item, Refused, Served, Watch, call_of
from guerdon.serve.config import ServeConfig
from guerdon.serve.engine import Engine
from guerdon.serve.metrics import Metrics
from guerdon.serve.models import Loaded, load, prepare
from guerdon.types import ConfigError, Conversation, GuerdonError, Score

__all__ = ["Call", "Item", "Measured", "Refused", "Served", "Service", "Watch", "call_of"]
logger = logging.getLogger("guerdon.serve")
_MOST_RUNS = 2000  # pairs of a run and a model whose last call is remembered


@dataclass(frozen=True, slots=True)
class Measured:
    """What a request got: a score for each item, and how far each lies from the training answers of the model.

    served     the model that answered: it may have been swapped since
    distances  squared distance over the typical one, NaN where it could not be measured; None without training data
    far        distance beyond which an answer counts as out of distribution
    """

    scores: list[Score]
    served: Served
    distances: NDArray[np.float64] | None = None
    far: float = math.nan


class Service:
    """The models that are served and the queue in front of them. Use it from one event loop.

    models    name -> a loaded reward model or ensemble, or what `models.load` gave; the first answers calls that name none
    training  conversations that a model swapped in learns its distances from
    watch     is told about every scored call of a run
    """

    def __init__(
        self,
        models: Mapping[str, Loaded | RewardModel | Ensemble],
        config: ServeConfig | None = None,
        training: Sequence[Conversation] = (),
    ) -> None:
        if not models:
            raise ConfigError("there is no model to serve; name one: guerdon serve MODEL")
        self.config = config or ServeConfig()
        self.training = training
        self.watch: Watch | None = None
        self.metrics = Metrics()
        self.engine = Engine(self.metrics, batch_tokens=self.config.batch_tokens, row_tokens=self.config.row_tokens)
        self.is_draining = False
        self._models = {
            name: model if isinstance(model, Loaded) else prepare(name, model, self.config, training)
            for name, model in models.items()
        }
        self._runs: dict[tuple[str, str], float] = {}
        self._swapping = asyncio.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models, the default one first."""
        return tuple(self._models)

    @property
    def novelty(self) -> dict[str, Novelty]:
        """Where the training answers of each model lie, for those that were given training data."""
        return {name: loaded.novelty for name, loaded in self._models.items() if loaded.novelty is not None}

    def model(self, name: str | None) -> Served:
        """The model of that name; the first one for None. Raises Refused (404)."""
        return self.loaded(name).served

    def loaded(self, name: str | None) -> Loaded:
        """The same with its queue and its speed."""
        found = self._models.get(name or next(iter(self._models)))
        if found is None:
            raise Refused(404, f"there is no model '{str(name)[:80]}' here; see GET /v1/models", kind="model")
        return found

    async def score(self, items: Sequence[Item], call: Call) -> list[Score]:
        """One score per item, in order. Raises Refused: 400 for a rule that does not fit, 404, 412 for another contract than
        the caller's, 413, 429, 503 and 504.
        """
        return (await self.measure(items, call)).scores

    async def measure(self, items: Sequence[Item], call: Call, unwatched: int = 0) -> Measured:
        """The same with distances. The last `unwatched` items are no samples of the call's run."""
        loaded = self.loaded(call.model)
        served = loaded.served
        self.require(call, loaded)
        if len(items) > self.config.max_items:
            raise Refused(
                413,
                f"{len(items)} conversations in one request, more than the {self.config.max_items} allowed",
                kind="size",
            )
        samples = len(items) - unwatched
        if call.kl is not None and len(call.kl) != samples:
            raise Refused(400, f"{len(call.kl)} numbers in kl for {samples} items; send one for each")
        if not items:
            return Measured([], served)
        watch = self.watch if call.run is not None else None
        wanted = getattr(watch, "wants_features", None)
        features = loaded.novelty is not None or (wanted is not None and wanted(served.name))
        job = await self.engine.score(loaded, items, call, features=features)
        scores = self._by_rule(job.scores, call.reward, served)
        self.metrics.items.labels(served.name, "ok").inc(sum(score.status == "ok" for score in scores))
        if any(score.status != "ok" for score in scores):
            self.metrics.items.labels(served.name, "error").inc(sum(score.status != "ok" for score in scores))
        if watch is not None:
            tagged = replace(call, model=served.name, contract=served.contract or served.fingerprint)
            try:
                watch.seen(tagged, items[:samples], scores[:samples], job.features)
            except Exception:  # statistics never cost anybody a score
                logger.exception("a scored call could not be noted for the statistics of its run")
        if loaded.novelty is None or job.features is None:
            return Measured(scores, served)
        return Measured(scores, served, loaded.novelty.distances(job.features.astype(np.float64)), loaded.far)

    def require(self, call: Call, loaded: Loaded) -> None:
        """Raise Refused for a call that need not even wait: while draining, for a rule that the model does not know, and
        for a contract that is not the model's."""
        if self.is_draining:
            raise Refused(503, "the server is stopping; ask another one", 5.0, "draining")
        served = loaded.served
        if call.contract is not None and call.contract != served.contract:
            raise Refused(
                412,
                f"the contract of {served.name} is {served.contract or 'missing'}, not the {call.contract[:64]} that was asked for",
                kind="contract",
            )
        if call.reward is not None and call.reward != "mean":
            try:
                rule = parse_rule(call.reward)
            except ConfigError as error:
                raise Refused(400, str(error), kind="reward") from None
            if rule.name not in served.rules:
                raise Refused(
                    400, f"{served.name} is a single reward model; its reward can only be the mean", kind="reward"
                )
        if call.run is not None:
            for name in {served.name, self.config.held_out or served.name}:  # what judges a run must not change either
                self._runs[call.run, name] = time.monotonic()
            while len(self._runs) > _MOST_RUNS:
                del self._runs[min(self._runs, key=lambda key: self._runs[key])]

    def active_runs(self, name: str) -> list[str]:
        """Runs that called on a model, or are checked with it, within the time after which a run counts as over."""
        since = time.monotonic() - self.config.run_idle
        return sorted(run for (run, model), seen in self._runs.items() if model == name and seen > since)

    async def swap(self, name: str, path: str, *, force: bool = False) -> Served:
        """Put another model in the place of one. Requests that wait already are answered by the old one.

        Raises Refused: 404, 409 while runs depend on it (unless forced) or another swap is going on, 422 when the new model
        cannot be loaded or does not score as its contract says.
        """
        self.loaded(name)
        if not force:
            self._require_no_run(name)
        if self._swapping.locked():
            raise Refused(409, "another model is being swapped in", 10.0, "busy")
        async with self._swapping:
            try:
                loaded = await asyncio.to_thread(load, name, path, self.config, self.training)
            except GuerdonError as error:
                raise Refused(422, str(error), kind="model") from None
            if not force:
                self._require_no_run(name)  # one may have begun while it was loaded
            self._models[name] = loaded
        return loaded.served

    def _require_no_run(self, name: str) -> None:
        runs = self.active_runs(name)
        if runs:
            raise Refused(
                409,
                f"{name} is the reward of, or held out from, {', '.join(runs[:5])}, last heard of less than "
                f"{self.config.run_idle:g} s ago; a reward must not change within a run (force, if it is to)",
                kind="busy",
            )

    @property
    def is_ready(self) -> bool:
        """True while new requests are welcome: not stopping, and no queue full."""
        return not self.is_draining and not any(loaded.queue.full for loaded in self._models.values())

    def close(self) -> None:
        """Let the worker threads end."""
        self.engine.close()

    def _by_rule(self, scores: list[Any], reward: str | None, served: Served) -> list[Score]:
        if reward is None or served.members == 1 or str(rule := parse_rule(reward)) == served.rule:
            return scores
        return [
            Score(float(combine(np.array(s.members), rule)), "ok", s.tokens, s.truncated, members=s.members)
            if s.status == "ok"
            else s
            for s in scores
        ]
