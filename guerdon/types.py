"""The nouns of reward modeling, and the errors that speak about them. Standard library only.

A `Comparison` is what a rater gave us: one prompt, K >= 2 completions and a ranking in which equal ranks are ties.
Everything that is read, checked, split, trained on or evaluated is a list of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypedDict

Status = Literal["ok", "masked", "error"]


class Message(TypedDict):
    """One turn, in the shape that chat templates and every API already use."""

    role: str
    content: str


Conversation = Sequence[Message]
ROLES = ("system", "developer", "user", "assistant", "tool")


class GuerdonError(Exception):
    """Base of every error that a user can cause and mend. The command line prints it as one sentence."""


class DataError(GuerdonError, ValueError):
    """A file or a row cannot be read as comparisons; the message names file, line and remedy."""


class ConfigError(GuerdonError, ValueError):
    """An option, or a combination of options, cannot be used; the message says what to write instead."""


class ContractError(GuerdonError, ValueError):
    """A checkpoint does not score the way its scoring contract says."""


class TrainingError(GuerdonError, RuntimeError):
    """Training cannot start or go on: no space, a folder that cannot be written, a loss that is not finite."""


class ScoringError(GuerdonError, RuntimeError):
    """A reward could not be had, and the caller asked not to go on without it; the message says from where and why."""


class Pair(NamedTuple):
    """One decided or tied pair of a comparison, as indices into `Comparison.completions`.

    `target` is the probability that `chosen` beats `rejected`: 1.0, or 0.5 for a tie, or what the comparison's own
    `probabilities` say. `weight` is 1/C(K,2) times the comparison's own weight, so that a ranking of K counts as one
    comparison (Ouyang et al. 2022, arXiv 2203.02155, eq. 1).
    """

    chosen: int
    rejected: int
    target: float
    weight: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt, K >= 2 completions, and a ranking of them.

    prompt       messages before the completions; empty when the source has only whole texts
    completions  each a non-empty tuple of messages that follows the prompt (usually one assistant turn)
    ranks        one number per completion, lower is better, equal means tie
    strength     how much better the first-ranked is than the last, in the source's own units (TRL `margin`), or None
    annotator    who judged, or None
    weight       how much the row counts in the loss; 1.0 unless the source says otherwise
    source       name of the set it came from; evaluation breaks results down by it
    id           where it came from, `file:line` unless the row carries an id of its own
    probabilities  soft labels: for each pair (0,1), (0,2), ..., (1,2), ... the probability that the first of the two is
                 better; () for hard ones. They must agree with the ranks: a better rank has at least 0.5, a tie 0.5
    """

    prompt: tuple[Message, ...]
    completions: tuple[tuple[Message, ...], ...]
    ranks: tuple[float, ...]
    strength: float | None = None
    annotator: str | None = None
    weight: float = 1.0
    source: str = ""
    id: str = ""
    probabilities: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.completions) < 2:
            raise DataError(
                f"{self.id or 'comparison'}: a comparison needs at least 2 completions, got {len(self.completions)}"
            )
        if len(self.ranks) != len(self.completions):
            raise DataError(
                f"{self.id or 'comparison'}: {len(self.completions)} completions but {len(self.ranks)} ranks; give one rank each"
            )
        if not all(map(math.isfinite, self.ranks)):
            raise DataError(f"{self.id or 'comparison'}: ranks must be finite numbers, got {list(self.ranks)}")
        if self.probabilities:
            self._check_probabilities()

    def _check_probabilities(self) -> None:
        k, name = len(self.completions), self.id or "comparison"
        couples = [(i, j) for i in range(k) for j in range(i + 1, k)]
        if len(self.probabilities) != len(couples):
            raise DataError(
                f"{name}: {len(couples)} pairs but {len(self.probabilities)} probabilities; give one for each"
            )
        for (i, j), p in zip(couples, self.probabilities, strict=True):
            gap = self.ranks[j] - self.ranks[i]  # positive where i is the better one
            if not 0 <= p <= 1 or (p != 0.5 if gap == 0 else (p - 0.5) * gap < 0):
                raise DataError(
                    f"{name}: probability {p} that completion {i} is better than {j} does not fit their ranks "
                    f"{self.ranks[i]:g} and {self.ranks[j]:g}; a better rank has 0.5 to 1, a tie exactly 0.5"
                )

    def pairs(self) -> Iterator[Pair]:
        """All C(K,2) pairs, better one first; ties carry target 0.5 and keep the order of the file."""
        k = len(self.completions)
        weight = self.weight / (k * (k - 1) // 2)
        soft = iter(self.probabilities)
        for i in range(k):
            for j in range(i + 1, k):
                p = next(soft, 1.0 if self.ranks[i] < self.ranks[j] else 0.0)  # that i is better
                if self.ranks[i] == self.ranks[j]:
                    yield Pair(i, j, 0.5, weight)
                elif self.ranks[i] < self.ranks[j]:
                    yield Pair(i, j, p, weight)
                else:
                    yield Pair(j, i, 1 - p, weight)

    def conversations(self) -> list[Conversation]:
        """The K full conversations: prompt and completion, as they are scored."""
        return [self.prompt + completion for completion in self.completions]


Arm = Literal["random", "uncertain", "d-optimal", "gold", "attention", "training", "repeat", "given"]
Answer = Literal["ranked", "all_bad", "skip", "flag"]
RaterKind = Literal["human", "model"]


@dataclass(frozen=True, slots=True)
class Question:
    """What raters are asked: one prompt with K >= 2 candidate answers, before anybody has judged them.

    prompt       messages before the candidates
    completions  each a non-empty tuple of messages that follows the prompt
    models       where each candidate came from (a policy, a checkpoint), never shown to raters; () when not known
    source       name of the set it came from
    id           its name in the study, or `file:line`
    """

    prompt: tuple[Message, ...]
    completions: tuple[tuple[Message, ...], ...]
    models: tuple[str, ...] = ()
    source: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        if len(self.completions) < 2:
            raise DataError(
                f"{self.id or 'question'}: a question needs at least 2 candidates, got {len(self.completions)}"
            )
        if self.models and len(self.models) != len(self.completions):
            raise DataError(
                f"{self.id or 'question'}: {len(self.completions)} candidates but {len(self.models)} models; name one each"
            )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one rater answered to one question at one time. Judgements are events: none is ever changed or removed.

    id           made by the rater's client (a UUID), so that a repeated delivery is the same judgement
    rater        who judged
    kind         `human` or `model`
    question     the question judged, whole, so that a judgement can be read alone
    order        order[p] is the candidate that was shown at position p (0 = left or top); () when not recorded
    answer       `ranked`: see `ranks`; `all_bad`: every candidate is unacceptable; `skip`; `flag`: should not be asked
    ranks        one number per candidate (not per position), lower is better, equal means tie; () unless ranked
    strength     how much better the first is than the second, 1 (slightly) to 3 (much); None when not asked
    attributes   attribute -> one rating per candidate (None: not rated)
    rationale    the rater's reason; for `skip` and `flag`, why
    edited       the winner as the rater rewrote it: better than every candidate; "" when it was not
    shown_at     when the question was on the rater's screen; seconds since 1970, NaN when not recorded
    first_input_at, submitted_at  likewise: first key or click, and sent
    guideline    version of the guidelines that were shown; 0 when there are none
    replaces     id of the judgement this one takes the place of (undo); "" when it is the first
    arm          why this question was put to this rater
    probability  probability with which it was chosen then, of all the arm could have chosen; None when not recorded
    """

    id: str
    rater: str
    kind: RaterKind
    question: Question
    order: tuple[int, ...]
    answer: Answer
    ranks: tuple[float, ...] = ()
    strength: float | None = None
    attributes: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    rationale: str = ""
    edited: str = ""
    shown_at: float = math.nan
    first_input_at: float = math.nan
    submitted_at: float = math.nan
    guideline: int = 0
    replaces: str = ""
    arm: Arm = "given"
    probability: float | None = None

    def __post_init__(self) -> None:
        k, name = len(self.question.completions), f"judgement {self.id}"
        if self.order and sorted(self.order) != list(range(k)):
            raise DataError(f"{name}: order {list(self.order)} does not name each of {k} candidates once")
        if self.answer == "ranked" and not (len(self.ranks) == k and all(map(math.isfinite, self.ranks))):
            raise DataError(f"{name}: a ranking of {k} candidates needs {k} finite ranks, got {list(self.ranks)}")
        if self.answer != "ranked" and self.ranks:
            raise DataError(f"{name}: answer '{self.answer}' carries no ranks")


class Score(float):
    """A reward that knows how it came about. It is a float, so it can be used as one; it is NaN unless `status` is
    `ok`.

    status     `ok`; `masked` (could have been scored, deliberately was not); `error` (could not be scored)
    tokens     length of the scored sequence, in tokens
    truncated  True when the conversation was longer than the context and was cut as the contract says
    reason     why it was masked or failed, for people
    members    rewards of the members of an ensemble; () for a single reward model

    What a reward server adds, where it measures it (see docs/serve.md):
    probability          that it beats the server's reference; None without a measured temperature
    distance             from the training answers, 1 being typical of them; None where it was not measured
    out_of_distribution  whether that is farther than 99 % of them; None likewise
    contract             hash of the scoring contract that the reward was computed by; "" when not known
    """

    __slots__ = (
        *("contract", "distance", "members", "out_of_distribution", "probability"),
        *("reason", "status", "tokens", "truncated"),
    )
    status: Status
    tokens: int
    truncated: bool
    reason: str
    members: tuple[float, ...]
    probability: float | None
    distance: float | None
    out_of_distribution: bool | None
    contract: str

    def __new__(
        cls,
        value: float,
        status: Status = "ok",
        tokens: int = 0,
        truncated: bool = False,
        reason: str = "",
        members: tuple[float, ...] = (),
        *,
        probability: float | None = None,
        distance: float | None = None,
        out_of_distribution: bool | None = None,
        contract: str = "",
    ) -> Score:
        if status == "ok" and not math.isfinite(value):
            status, reason = "error", reason or f"the model returned {value}"
        score = super().__new__(cls, value if status == "ok" else math.nan)
        score.status, score.tokens, score.truncated, score.reason = status, tokens, truncated, reason
        score.members = members
        score.probability, score.distance, score.out_of_distribution = probability, distance, out_of_distribution
        score.contract = contract
        return score

    @property
    def mean(self) -> float:
        """Mean over the members of an ensemble, whatever rule made the reward of them; the reward itself for one model."""
        return math.fsum(self.members) / len(self.members) if self.members else float(self)

    @property
    def std(self) -> float:
        """Standard deviation over the members (population form), in reward units: how much they disagree. NaN for one model."""
        if not self.members:
            return math.nan
        mean = self.mean
        return math.sqrt(math.fsum((member - mean) ** 2 for member in self.members) / len(self.members))

    def __repr__(self) -> str:
        if self.status != "ok":
            return f"Score({self.status}: {self.reason})"
        spread = f" ± {self.std:.3g}" if self.members else ""
        return f"Score({float(self):.6g}{spread})"


class Scorer(Protocol):
    """Anything that turns conversations into rewards: a local model, an HTTP client, an ensemble, a rule."""

    def score(self, conversations: Sequence[Conversation]) -> list[Score]: ...


class Generator(Protocol):
    """Anything that answers prompts: a policy, a writer of the lab, a remote model."""

    def generate(self, prompts: Sequence[Conversation]) -> list[str]: ...
