"""What the store hands out: studies, assignments, progress, feedback, totals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from guerdon.collect.settings import Settings
from guerdon.types import Arm, Judgement, Question

StudyState = Literal["open", "paused", "closed"]
QuestionKind = Literal["normal", "gold", "attention", "training"]
QUESTION_KINDS: tuple[QuestionKind, ...] = ("normal", "gold", "attention", "training")

# Why a rater is given nothing, or `go on` when there is something.
Standing = Literal["go on", "nothing left", "limit reached", "not qualified", "removed", "study paused", "study closed"]


@dataclass(frozen=True, slots=True)
class Study:
    """A study as it stands: its number in the database, name, state, settings and their version.

    guideline    version of the guidelines that raters are shown now; 0 when there are none
    """

    id: int
    name: str
    state: StudyState
    settings: Settings
    version: int
    guideline: int = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """One question given to one rater; the lock on it lasts until `expires` (seconds since 1970).

    id           number of the assignment, to be sent back with the answer
    order        order[p] is the candidate to show at position p
    arm          why this question; `training` items get feedback, all others must look alike to the rater
    probability  of all the questions the arm could have chosen; None for training
    guideline    version of the guidelines to show; 0 when there are none
    replaces     id of the judgement this answer will replace: the rater asked to undo it
    """

    id: int
    study: str
    rater: str
    question: Question
    order: tuple[int, ...]
    arm: Arm
    probability: float | None
    guideline: int
    expires: float
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rater stands in a study: items judged, the limit (0: none), the training, and whether there is more.

    `left` counts the ordinary questions that this rater may still be given, those at hand among them.
    """

    state: Literal["training", "active", "failed", "removed"]
    standing: Standing
    items: int
    done: int
    limit: int
    training_done: int = 0
    training_total: int = 0
    training_right: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a training item teaches: `agreed` is the share of the known order that the rater's ranking has the same way."""

    right: bool
    agreed: float
    ranks: tuple[float, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A judgement as it lies in the database: its number of arrival, and whether its lock had expired."""

    seq: int
    judgement: Judgement
    late: bool
    received: float


@dataclass(frozen=True, slots=True)
class Added:
    """What an import did: questions added; those left out because the study has the same content already."""

    added: int = 0
    duplicates: int = 0
    wrong_size: int = 0  # not the number of candidates that the settings say, or not 2 to 9


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals of a study, kept with every event, so that reading them takes no time however many there are.

    questions    by kind
    open         ordinary questions that still want a rater
    judgements   all events; `replaced` of them were undone since, `late` came after their lock had expired
    answers      ranked, all_bad, skip, flag: events by answer
    arms         events by arm
    raters       events by rater
    hours        events by hour, `2026-11-24T13` (UTC)
    """

    questions: Mapping[str, int] = field(default_factory=dict)
    open: int = 0
    judgements: int = 0
    replaced: int = 0
    late: int = 0
    answers: Mapping[str, int] = field(default_factory=dict)
    arms: Mapping[str, int] = field(default_factory=dict)
    raters: Mapping[str, int] = field(default_factory=dict)
    hours: Mapping[str, int] = field(default_factory=dict)
