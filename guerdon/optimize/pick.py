"""Which of n candidates to take: the best by the reward, or the answer that most of them, or most reward, agree on.

In: texts and scores of the candidates to one prompt. Out: a `Pick`, with the votes and the distance to the runner-up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guerdon.optimize.final_answer import canonical
from guerdon.types import ConfigError

Mode = Literal["best", "weighted", "majority"]
Weights = Literal["exp", "sigmoid", "raw"]


@dataclass(frozen=True)
class Vote:
    """One final answer: how many candidates gave it, and its share of all weight (of all candidates in plain voting)."""

    answer: str
    count: int
    share: float


@dataclass(frozen=True)
class Pick:
    """The choice among the candidates to one prompt.

    index   of the candidate that is taken; None when none could be scored, or none gives an answer to vote on
    value   what it was picked by: its score less the penalties; NaN where majority voting needed none
    margin  distance to the best different candidate, reward units; in voting to the second answer, as a share of the weight;
            NaN without a second
    votes   in voting, the answers, most weight first
    """

    index: int | None
    value: float = math.nan
    margin: float = math.nan
    votes: tuple[Vote, ...] = ()


@dataclass(frozen=True)
class Picking:
    """How to pick.

    mode            `best`: the highest value (best-of-n); `weighted`: the final answer with the largest sum of weights;
                    `majority`: the final answer given most often (Wang et al. 2022, arXiv 2203.11171)
    length_penalty  taken off the score for each word
    logprob_weight  added to the score for each nat of log p(candidate) under the policy: reward minus weight times the KL of
                    a point mass on the candidate from the policy (Jinnai et al. 2024, arXiv 2404.01054)
    weights         weight of a candidate from its value v: `exp` exp(v / scale), which a shift of all rewards leaves as it
                    is; `sigmoid` 1 / (1 + exp(-v / scale)); `raw` v itself, for rewards that are shares
    scale           reward units
    numeric         final answers are numbers; else what follows `answer is`, a box, or the last line

    Raises ConfigError for a scale that is not above 0 and for penalties that are not finite.
    """

    mode: Mode = "best"
    length_penalty: float = 0.0
    logprob_weight: float = 0.0
    weights: Weights = "exp"
    scale: float = 1.0
    numeric: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"--scale must be greater than 0, got {self.scale}")
        if not (math.isfinite(self.length_penalty) and math.isfinite(self.logprob_weight)):
            raise ConfigError("--length-penalty and --logprob-weight must be finite numbers")

    def values(
        self, texts: Sequence[str], scores: Sequence[float], logprobs: Sequence[float] | None = None
    ) -> list[float]:
        """What each candidate is worth; NaN for one without a score. `logprobs` are nats per candidate."""
        nats = logprobs if logprobs is not None and self.logprob_weight else [0.0] * len(texts)
        return [
            score - self.length_penalty * len(text.split()) + self.logprob_weight * nat
            for text, score, nat in zip(texts, scores, nats, strict=True)
        ]

    def pick(self, texts: Sequence[str], values: Sequence[float]) -> Pick:
        """Choose among candidates with these values; those of value NaN are out, but for plain majority voting."""
        if self.mode == "best":
            return _best(texts, values)
        return self._vote(texts, values)

    def _vote(self, texts: Sequence[str], values: Sequence[float]) -> Pick:
        answers = [canonical(text, self.numeric) for text in texts]
        voters = [
            i
            for i, answer in enumerate(answers)
            if answer is not None and (self.mode == "majority" or not math.isnan(values[i]))
        ]
        weights = dict(zip(voters, self._weights([values[i] for i in voters]), strict=True))
        members: dict[str, list[int]] = {}
        for i in voters:
            members.setdefault(str(answers[i]), []).append(i)
        if not members:
            return Pick(None)

        def merit(i: int) -> float:
            return -math.inf if math.isnan(values[i]) else values[i]

        total = math.fsum(abs(weight) for weight in weights.values()) or 1.0
        won = {answer: math.fsum(weights[i] for i in found) for answer, found in members.items()}
        order = sorted(
            members, key=lambda answer: (-won[answer], -max(map(merit, members[answer])), members[answer][0])
        )
        votes = tuple(Vote(answer, len(members[answer]), won[answer] / total) for answer in order)
        index = max(members[order[0]], key=lambda i: (merit(i), -i))
        margin = votes[0].share - votes[1].share if len(votes) > 1 else math.nan
        return Pick(index, values[index], margin, votes)

    def _weights(self, values: Sequence[float]) -> list[float]:
        if self.mode == "majority":
            return [1.0] * len(values)
        if self.weights == "raw":
            return list(values)
        if self.weights == "sigmoid":
            return [0.5 * (1 + math.tanh(value / self.scale / 2)) for value in values]
        top = max(values, default=0.0)
        return [math.exp((value - top) / self.scale) for value in values]


def _best(texts: Sequence[str], values: Sequence[float]) -> Pick:
    scored = [i for i, value in enumerate(values) if not math.isnan(value)]
    if not scored:
        return Pick(None)
    index = max(scored, key=lambda i: (values[i], -i))
    others = [values[i] for i in scored if texts[i] != texts[index]]
    return Pick(index, values[index], values[index] - max(others) if others else math.nan)
