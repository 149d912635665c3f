"""A reward to optimise, out of parts: weighted sums with a rule for what could not be scored, and centring.

In: scorers. Out: a `Scorer` whose scores carry the scores of their parts, for the sample table. A row that has no reward
stays without one: nothing here turns a failure into a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from guerdon.types import ConfigError, Conversation, Score, Scorer, ScoringError, Status

Masked = Literal["mask", "renormalise", "error"]
_NO_PARTS: Mapping[str, Score] = {}


class SumScore(Score):
    """A `Score` that was put together; `parts` maps each part's name to its own score, before weight and centring."""

    __slots__ = ("parts",)
    parts: Mapping[str, Score]

    def __new__(
        cls,
        value: float,
        status: Status = "ok",
        tokens: int = 0,
        truncated: bool = False,
        reason: str = "",
        members: tuple[float, ...] = (),
        parts: Mapping[str, Score] = _NO_PARTS,
    ) -> SumScore:
        score = cast(SumScore, super().__new__(cls, value, status, tokens, truncated, reason, members))
        score.parts = parts
        return score


def parts_of(score: Score) -> Mapping[str, Score]:
    """The parts a score was put together from; empty for a reward that is one piece."""
    return score.parts if isinstance(score, SumScore) else _NO_PARTS


class WeightedSum:
    """The sum over named parts of weight times score, as one `Scorer`.

    parts   name -> (scorer, weight). A part of weight 0 is only watched: it is scored and shown, and neither its value nor
            its failure changes the sum.
    masked  what becomes of a row that a part (of weight other than 0) could not score:
            `mask`         the row has no reward: status `masked`
            `error`        the row has no reward: status `error`
            `renormalise`  the other weights are multiplied by sum |w| / sum |w of those scored|, as if the part had been
                           the average of the rest; only sensible where all parts have one scale and one zero point

    Where exactly one part is an ensemble, the members of the sum are the sums with each of its members in its place, so
    that their spread is the ensemble's, times its weight. With several, the sum has no members.
    Raises ConfigError without parts, with a weight that is not finite, and when every weight is 0.
    """

    def __init__(self, parts: Mapping[str, tuple[Scorer, float]], masked: Masked = "mask") -> None:
        if masked not in get_args(Masked):
            raise ConfigError(f"masked rule '{masked}' is not known; choose one of {', '.join(get_args(Masked))}")
        for name, (_, weight) in parts.items():
            if not math.isfinite(weight):
                raise ConfigError(f"reward part '{name}': the weight is {weight}; write a finite number")
        if not any(weight for _, weight in parts.values()):
            raise ConfigError("the reward has no part with a weight other than 0, so there is nothing to optimise")
        self.scorers = {name: scorer for name, (scorer, _) in parts.items()}
        self.weights = {name: float(weight) for name, (_, weight) in parts.items()}
        self.masked: Masked = masked

    def parts(self, conversations: Sequence[Conversation]) -> dict[str, list[Score]]:
        """Each part's own scores, in the order of the conversations. Raises ScoringError when a part returns another number of them."""
        found = {name: scorer.score(conversations) for name, scorer in self.scorers.items()}
        for name, scores in found.items():
            require_all(scores, conversations, f"reward part '{name}'")
        return found

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        """One `SumScore` per conversation."""
        return self.combine(self.parts(conversations))

    def combine(self, parts: Mapping[str, Sequence[Score]]) -> list[Score]:
        """The sums, from what `parts` returned."""
        return [self._sum(dict(zip(parts, row, strict=True))) for row in zip(*parts.values(), strict=True)]

    def _sum(self, parts: dict[str, Score]) -> SumScore:
        tokens, truncated = max(s.tokens for s in parts.values()), any(s.truncated for s in parts.values())
        counted = {name: score for name, score in parts.items() if self.weights[name]}
        scored = {name: score for name, score in counted.items() if score.status == "ok"}
        if len(scored) < len(counted) and (self.masked != "renormalise" or not scored):
            status: Status = "error" if self.masked == "error" else "masked"
            reason = "; ".join(f"{name}: {s.reason or s.status}" for name, s in counted.items() if s.status != "ok")
            return SumScore(math.nan, status, tokens, truncated, reason, parts=parts)
        share = sum(abs(self.weights[n]) for n in counted) / sum(abs(self.weights[n]) for n in scored)
        terms = {name: share * self.weights[name] * score for name, score in scored.items()}
        total = math.fsum(terms.values())
        ensembles = [name for name in scored if scored[name].members]
        members: tuple[float, ...] = ()
        if len(ensembles) == 1:
            name = ensembles[0]
            rest, weight = math.fsum(terms[n] for n in terms if n != name), share * self.weights[name]
            members = tuple(rest + weight * member for member in scored[name].members)
        return SumScore(total, "ok", tokens, truncated, "", members, parts)


@dataclass(frozen=True, eq=False)
class Affine:
    """(reward - shift) / scale of a scorer, members included; parts are handed on as they are.

    Raises ConfigError unless shift is finite and scale is finite and above 0, which keeps every ranking.
    """

    scorer: Scorer
    shift: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shift) and math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"a reward cannot be shifted by {self.shift} and divided by {self.scale}")

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        """The shifted and scaled scores; what has no reward stays without one."""
        return [self._moved(score) for score in self.scorer.score(conversations)]

    def _moved(self, score: Score) -> Score:
        members = tuple((member - self.shift) / self.scale for member in score.members)
        value = (float(score) - self.shift) / self.scale
        return SumScore(value, score.status, score.tokens, score.truncated, score.reason, members, parts_of(score))


def centred(scorer: Scorer, conversations: Sequence[Conversation], *, scale: bool = True) -> Affine:
    """The scorer moved to mean 0 and, with `scale`, standard deviation 1 (population form) on these conversations.

    Give it samples of the reference policy: a ranking loss leaves the zero point of a reward open, and with it the worth of
    an unfinished answer and the meaning of a KL coefficient. Ziegler et al. 2019 (arXiv 1909.08593, section 2) fix mean 0
    and variance 1 on samples of the initial policy; Huang et al. 2024 (arXiv 2403.17031) move the zero point
    alone, so that the demonstrations of the SFT data average 0.
    Conversations without a reward are left out. Raises ConfigError when fewer than two have one, or, with `scale`, when
    they all have the same.
    """
    found = scorer.score(conversations)
    require_all(found, conversations, "the reward to centre")
    values = [float(score) for score in found if score.status == "ok"]
    if len(values) < 2:
        why = next((f" ({score.reason})" for score in found if score.status != "ok" and score.reason), "")
        raise ConfigError(
            f"only {len(values)} of the {len(found)} samples to centre the reward on could be scored{why}; at least 2 are needed"
        )
    mean = math.fsum(values) / len(values)
    if not scale:
        return Affine(scorer, mean)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    if sd <= 1e-12 * max(1.0, abs(mean)):
        raise ConfigError(
            f"all {len(values)} samples to centre the reward on have the reward {mean:g}, so it has no scale; leave --center out "
            "(in Python, centred(..., scale=False))"
        )
    return Affine(scorer, mean, sd)


def require_all(scores: Sequence[Score], conversations: Sequence[Any], what: str) -> None:
    """Raise ScoringError unless there is one score for each conversation."""
    if len(scores) != len(conversations):
        raise ScoringError(f"{what} returned {len(scores)} scores for {len(conversations)} conversations")
