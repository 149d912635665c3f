"""An ensemble of separate checkpoints: independently trained reward models that score together.

Costs M forward passes where the heads of `guerdon train --ensemble` cost one, and disagrees more usefully: members that
share a trunk share its mistakes (Eisenstein et al. 2023, arXiv 2312.09244).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.aggregate import combine, parse_rule
from guerdon.model.encode import Encoded, template_hash
from guerdon.model.ready import Ready, gathered
from guerdon.model.reward import RewardModel
from guerdon.types import ConfigError, Conversation, Score

Readings = tuple[Encoded | Score, ...]  # one conversation as each member reads it


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
        self._reads_alike = all(_reads_as(models[0], model) for model in models[1:])

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
        return self.score_encoded(self.encode(conversations), **options)

    def score_texts(self, texts: Sequence[str], **options: Any) -> list[Score]:
        """The same for conversations that a chat template has already rendered."""
        return self.score_encoded(self.encode_texts(texts), **options)

    def score_ids(self, rows: Sequence[Sequence[int]], **options: Any) -> list[Score]:
        """The same for token ids; every row fails where the members have different tokenizers."""
        return self.score_encoded(self.encode_ids(rows), **options)

    def encode(self, conversations: Sequence[Conversation]) -> list[Readings]:
        """Token ids of each conversation as each member reads it; members with one tokenizer share the work."""
        return self._readings(lambda model: model.encode(conversations))

    def encode_texts(self, texts: Sequence[str]) -> list[Readings]:
        """The same for texts that a chat template has already rendered."""
        return self._readings(lambda model: model.encode_texts(texts))

    def encode_ids(self, rows: Sequence[Sequence[int]]) -> list[Readings]:
        """The same for token ids, which mean something only where all members have one tokenizer."""
        if not self._reads_alike:
            refused = Score(0, "error", reason="the members have different tokenizers; send texts instead of token ids")
            return [(refused,) * len(self.models) for _ in rows]
        return self._readings(lambda model: model.encode_ids(rows))

    def score_encoded(self, items: Sequence[Readings], **options: Any) -> list[Score]:
        """The combined rewards of what `encode`, `encode_texts` and `encode_ids` gave, in any mixture, in order."""
        return gathered(self.stream(items, **options), len(items))[0]

    def stream(self, items: Sequence[Readings], *, features: bool = False, **options: Any) -> Iterator[Ready]:
        """The same in one part, with the features of the first member where they are asked for."""
        rows, states, computed = [], None, 0
        for member, model in enumerate(self.models):
            parts = list(model.stream([item[member] for item in items], features=features and not member, **options))
            scores, found = gathered(parts, len(items))
            states = states if member else found
            computed += sum(part.computed for part in parts)
            rows.append(scores)
        yield Ready(list(range(len(items))), [self._combined(s) for s in zip(*rows, strict=True)], states, computed)

    def _readings(self, encode: Callable[[RewardModel], list[Encoded | Score]]) -> list[Readings]:
        if self._reads_alike:
            return [(item,) * len(self.models) for item in encode(self.models[0])]
        return list(zip(*map(encode, self.models), strict=True))

    def _combined(self, scores: Sequence[Score]) -> Score:
        failed = next((score for score in scores if score.status != "ok"), None)
        if failed is not None:
            return failed
        members = tuple(score.mean - center for score, center in zip(scores, self.centers, strict=True))
        tokens, truncated = max(score.tokens for score in scores), any(score.truncated for score in scores)
        return Score(float(combine(np.array(members), self.rule)), "ok", tokens, truncated, members=members)


def _reads_as(one: RewardModel, other: RewardModel) -> bool:
    """True when both turn every conversation into the same token ids."""
    a, b = one.encoder, other.encoder
    return (
        (a.max_length, a.truncation, a.frame, template_hash(a.tokenizer))
        == (b.max_length, b.truncation, b.frame, template_hash(b.tokenizer))
        and a.tokenizer.get_vocab() == b.tokenizer.get_vocab()
        and type(a.tokenizer) is type(b.tokenizer)
    )


def _golden_mean(model: RewardModel) -> float:
    rows = model.contract.golden if model.contract else ()
    return math.fsum(row.score for row in rows) / len(rows) if rows else 0.0
