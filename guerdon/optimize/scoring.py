"""What a step asks of its rewards: a score of every sample, held-out scores of a part, drift from the training data.

The reward may end the run; the held-out reward never does, because nothing is trained on it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from guerdon.data.read import load
from guerdon.diagnose.novelty import Novelty
from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.rewards import require_all
from guerdon.optimize.rollout import Rollout
from guerdon.types import ConfigError, GuerdonError, Score, Scorer, TrainingError

DRIFT_ROWS = 512  # training conversations that drift is measured against
Drift = tuple[Any, Novelty]


@contextmanager
def shared_errors(accelerator: Accelerator) -> Iterator[None]:
    """An error of one process ends all: the others would wait for it in their next collective operation, for ever."""
    failed: GuerdonError | None = None
    try:
        yield
    except GuerdonError as error:
        failed = error
    said = [str(failed) if failed else ""]
    if accelerator.num_processes > 1:
        said = gather_object(said)
    if failed:
        raise failed
    if elsewhere := next(filter(None, said), ""):
        raise TrainingError(f"another process ended the run: {elsewhere}")


def score(reward: Scorer, rollout: Rollout, drift: Drift | None) -> tuple[list[Score], float]:
    """Scores of all samples, and how far they lie from the reward model's training answers (NaN where not asked)."""
    conversations = rollout.conversations()
    scores = list(reward.score(conversations))
    if len(scores) != len(conversations):
        raise TrainingError(f"the reward returned {len(scores)} scores for {len(conversations)} completions")
    return scores, drift[1].distance(drift[0].features(conversations[:64])) if drift else math.nan


def require_rewards(config: OptimizeConfig, scores: Sequence[Score], step: int) -> None:
    """Raise TrainingError for a sample without a reward, where `--reward-failures stop` asks for that."""
    failed = [score for score in scores if score.status != "ok"]
    if failed and config.reward_failures == "stop":
        raise TrainingError(
            f"step {step}: {len(failed)} of {len(scores)} completions have no reward ({failed[0].reason}); "
            "see to the reward, then go on with --resume, or choose --reward-failures mask"
        )


class HeldOut:
    """The reward that is only watched: asked about a part of every step, and free to fail."""

    def __init__(self, scorer: Scorer | None, config: OptimizeConfig, say: Callable[[str], None]) -> None:
        self.scorer = scorer if config.held_out_budget else None
        self._seed, self._say, self._is_told = config.seed, say, False

    def check(self, rollout: Rollout, step: int, wanted: int) -> dict[int, float]:
        """Held-out scores of about `wanted` samples, or of all: sample -> score, NaN where it was asked for and did not come.

        Whole prompts are picked at random, as answers are compared within theirs; the last one is cut to the number.
        """
        if self.scorer is None:
            return {}
        groups = rollout.groups()
        order = random.Random(f"held out {self._seed} {step}").sample(range(len(groups)), len(groups))
        picked = sorted([sample for i in order for sample in groups[i].samples][:wanted])
        conversations = rollout.conversations()
        try:
            found = self.scorer.score([conversations[i] for i in picked])
            require_all(found, picked, "the held-out reward")
        except GuerdonError as error:
            if not self._is_told:
                self._say(f"step {step} has no held-out scores, which is said this once: {error}")
            self._is_told = True
            return dict.fromkeys(picked, math.nan)
        return {i: float(one) if one.status == "ok" else math.nan for i, one in zip(picked, found, strict=True)}


def fit_drift(config: OptimizeConfig, reward: Scorer) -> Drift | None:
    """The reward model whose features drift is read in, and what its training answers look like there."""
    if not config.drift_data:
        return None
    model = reward_model(reward, "--drift-data")
    rows = load(config.drift_data).comparisons
    picked = random.Random("drift").sample(rows, min(len(rows), DRIFT_ROWS // 2))
    return model, Novelty.fit(model.features([c for row in picked for c in row.conversations()[:2]]))


def reward_model(reward: Scorer, flag: str) -> Any:
    """The one local reward model in a reward. Raises ConfigError when there is none, or several."""
    return _local(reward, flag)[0]


def weight_of_model(reward: Scorer) -> float:
    """What the one local reward model counts for in the reward: its weight in a sum, else 1."""
    name = _local(reward, "--value-from reward")[1]
    return float(getattr(reward, "weights", {}).get(name, 1.0))


def _local(reward: Scorer, flag: str) -> tuple[Any, str]:
    """The one local reward model in a reward, and the name of its part."""
    parts = {"": reward, **getattr(reward, "scorers", {})}
    found = [(scorer, name) for name, scorer in parts.items() if hasattr(scorer, "score_with_features")]
    if len(found) != 1:
        raise ConfigError(f"{flag} needs one local reward model in --reward, found {len(found)}")
    return found[0]
