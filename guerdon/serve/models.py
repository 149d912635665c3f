"""What is loaded: reward models with their contracts enforced, the queue in front of each, and how fast they are."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from guerdon.diagnose.novelty import Novelty
from guerdon.model.contract import FILE, GOLDEN_CONVERSATIONS
from guerdon.model.ensemble import Ensemble
from guerdon.model.reward import RewardModel
from guerdon.serve.admission import Estimate, FairQueue
from guerdon.serve.call import Served
from guerdon.serve.config import ServeConfig
from guerdon.types import ConfigError, Conversation

RARE = 0.99  # share of training answers that lie nearer than what is flagged
_FEWEST = 64  # training answers to fit a distance on


@dataclass(eq=False)
class Loaded:
    """A model that is ready to score. A swap puts another in its place; requests that have this one finish on it.

    served     what callers see
    model      scores encoded items; one thread at a time
    queue      what waits for it
    estimate   tokens per character, as measured
    novelty    where training answers lie; None without --drift-data
    far        distance beyond which an answer counts as out of distribution
    rate       estimated tokens scored in a second, as measured lately
    running    estimated tokens that are being scored now
    """

    served: Served
    model: RewardModel | Ensemble
    queue: FairQueue
    estimate: Estimate
    novelty: Novelty | None = None
    far: float = math.nan
    rate: float = 1000.0
    running: int = 0
    path: str = ""
    since: float = field(default_factory=time.time)

    @property
    def drain(self) -> float:
        """Seconds until what waits and what is running is scored, at the speed of late."""
        return (self.queue.tokens + self.running) / self.rate


def load(name: str, path: str, config: ServeConfig, training: Sequence[Conversation] = ()) -> Loaded:
    """Load a model, enforce its contract, and `prepare` it. Raises ConfigError and ContractError, in one sentence.

    All in a thread that then ends. Each thread that computes keeps a team of OpenMP workers, and once there are more of them
    than cores, libgomp lets workers sleep after each parallel region, which every request pays for (benchmarks/serve_load.md).
    """
    with ThreadPoolExecutor(1, thread_name_prefix="guerdon-load") as thread:
        try:
            return thread.submit(_load, name, path, config, training).result()
        except OSError as error:  # a name that is too long, say
            raise ConfigError(f"{path[:200]}: cannot be loaded ({error.strerror or error})") from error


def _load(name: str, path: str, config: ServeConfig, training: Sequence[Conversation]) -> Loaded:
    paths = [part for part in path.split(",") if part]
    if (Path(path) / "implicit_reward.json").is_file():
        raise ConfigError(
            f"{path}: is a policy from DPO; its implicit reward cannot be served, distil it into a reward model"
        )
    members = [
        RewardModel.load(part, device=config.device, reward="mean" if len(paths) > 1 else config.reward, no_pickle=True)
        for part in paths
    ]
    for part, one in zip(paths, members, strict=True):
        if one.has_new_head:
            raise ConfigError(
                f"{part}: has no trained score head, so its scores would be random; guerdon train makes one"
            )
        if one.contract is None and not config.allow_no_contract:
            raise ConfigError(
                f"{part}: has no {FILE}, so nothing says whether it scores as it did in training; put back the one it was "
                "trained with, give a model from elsewhere one (RewardModel.load(PATH).save(FOLDER)), or say --allow-no-contract"
            )
    found = prepare(name, Ensemble(members, config.reward) if len(members) > 1 else members[0], config, training)
    found.path = path
    return found


def prepare(
    name: str, model: RewardModel | Ensemble, config: ServeConfig, training: Sequence[Conversation] = ()
) -> Loaded:
    """Put a queue in front of a model, measure its speed, and learn from `training` where its training answers lie."""
    members = model.models if isinstance(model, Ensemble) else (model,)
    for one in members:
        one.shares_prefix = one.shares_prefix and config.sharing
    limit = min(one.encoder.max_length for one in members)
    served = _served(name, model, members[0], limit)
    found = Loaded(served, model, FairQueue(config.queue_tokens), Estimate(limit))
    _measure(found)
    if training:
        _fit(found, training)
    return found


def _served(name: str, model: RewardModel | Ensemble, first: RewardModel, limit: int) -> Served:
    count = len(model.models) if isinstance(model, Ensemble) else model.members
    contract, fingerprint = model.contract, model.fingerprint
    golden = [row.score for row in contract.golden] if contract else []
    hash = contract.hash if contract else None
    if isinstance(model, Ensemble) and all(one.contract for one in model.models):
        hash = fingerprint
    return Served(
        name=name,
        fingerprint=fingerprint,
        contract=hash,
        max_length=limit,
        tokenizer=first.encoder.tokenizer,
        members=count,
        rules=("mean",) if count == 1 else ("mean", "min", "mean-std", "mean-var", "quantile"),
        rule=str(model.rule),
        temperature=contract.temperature if contract else None,
        reference=math.fsum(golden) / len(golden) if golden else None,
    )


def _measure(loaded: Loaded) -> None:
    """Set rate and tokens per character from the fixed conversations that contracts carry."""
    started = time.perf_counter()
    scores = loaded.model.score(GOLDEN_CONVERSATIONS)
    seconds = time.perf_counter() - started
    tokens = sum(score.tokens for score in scores)
    characters = sum(len(message["content"]) + 12 for talk in GOLDEN_CONVERSATIONS for message in talk)
    loaded.rate = max(1.0, tokens / max(seconds, 1e-6))
    loaded.estimate.learn(characters, tokens)


def _fit(loaded: Loaded, training: Sequence[Conversation]) -> None:
    """Learn where training answers lie, so that answers far from them can be flagged."""
    model = loaded.model.models[0] if isinstance(loaded.model, Ensemble) else loaded.model
    features = model.features(training).astype(np.float64)
    known = features[np.isfinite(features).all(1)]
    if len(known) < _FEWEST:
        raise ConfigError(
            f"--drift-data: only {len(known)} answers could be scored by {loaded.served.name}; give at least {_FEWEST}"
        )
    loaded.novelty = Novelty.fit(known)
    loaded.far = float(np.quantile(loaded.novelty.distances(known[1::2]), RARE))
