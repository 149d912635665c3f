"""An ensemble of separate checkpoints: independently trained reward models that score together.

Costs M forward passes where the heads of `guerdon train --ensemble` cost one, and disagrees more usefully: members that
share a trunk share its mistakes (Eisenstein et al. 2023, arXiv 2312.09244).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.aggregate import combine, parse_rule
from guerdon.model.reward import RewardModel
from guerdon.types import ConfigError, Conversation, Score


class Ensemble:
    """Reward models behind one `score`. Build it with `load`.

    A ranking loss leaves the zero point of each model open, so each is shifted by `centers[m]` before they are combined:
    its mean reward over the golden rows of its contract, until `center` is given conversations nearer to the use.
    """

    contract = None  # each member has its own

    def __init__(self, models: Sequence[RewardModel], reward: str = "mean") -> None:
        if len(models) < 2:
            raise ConfigError("an ensemble needs at least two reward models; name them separated by commas")
        self.models = tuple(models)
        self.rule = parse_rule(reward)
        self.centers = tuple(_golden_mean(model) for model in models)

    @classmethod
    def load(
        cls, paths: Sequence[str | Path], *, device: str | torch.device | None = None, reward: str = "mean"
    ) -> Ensemble:
        """Load every checkpoint (see `RewardModel.load`); their order does not matter."""
        return cls([RewardModel.load(path, device=device) for path in paths], reward)

    @property
    def fingerprint(self) -> str:
        """Names the reward as it is computed here: all members, their centres, and the rule."""
        members = sorted(
            f"{model.fingerprint} {center:.6g}" for model, center in zip(self.models, self.centers, strict=True)
        )
        return sha256(f"{members} {self.rule}".encode()).hexdigest()[:16]

    def center(self, conversations: Sequence[Conversation]) -> None:
        """Give all members one zero point: their mean reward over these conversations."""
        scores = [[score for score in model.score(conversations) if score.status == "ok"] for model in self.models]
        if not all(scores):
            raise ConfigError("none of the conversations to centre on could be scored; give others")
        self.centers = tuple(math.fsum(s.mean for s in found) / len(found) for found in scores)

    def score(self, conversations: Sequence[Conversation], **options: Any) -> list[Score]:
        """The combined reward of each conversation, `members` one per model; not `ok` unless every member could score it."""
        rows = [model.score(conversations, **options) for model in self.models]
        return [self._combined(scores) for scores in zip(*rows, strict=True)]

    def _combined(self, scores: Sequence[Score]) -> Score:
        failed = next((score for score in scores if score.status != "ok"), None)
        if failed is not None:
            return failed
        members = tuple(score.mean - center for score, center in zip(scores, self.centers, strict=True))
        tokens, truncated = max(score.tokens for score in scores), any(score.truncated for score in scores)
        return Score(float(combine(np.array(members), self.rule)), "ok", tokens, truncated, members=members)


def _golden_mean(model: RewardModel) -> float:
    rows = model.contract.golden if model.contract else ()
    return math.fsum(row.score for row in rows) / len(rows) if rows else 0.0
