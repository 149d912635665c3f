"""The store: every question, assignment and judgement of every study, in one SQLite file or PostgreSQL database.

Methods block until what they did is on the disk; call them from a thread (`asyncio.to_thread`) inside a web server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import sqlalchemy as sa

from guerdon.collect import assign, events, questions, studies, training
from guerdon.collect.database import Database, open_database
from guerdon.collect.records import (
    Added,
    Assignment,
    Counts,
    Feedback,
    Progress,
    QuestionKind,
    Stored,
    Study,
    StudyState,
)
from guerdon.collect.settings import Settings
from guerdon.types import Judgement, Question

T = TypeVar("T")


class Store:
    """All studies of one database. `read` and `write` run a function of a connection in a transaction of its own.

    Functions given to `write` may run together with others in one transaction (each behind its own savepoint), in the
    thread that writes; `write` returns when that transaction is on the disk.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self.clock = clock

    @classmethod
    def open(cls, url: str, make: bool = True) -> Store:
        """Open a database, made (unless `make` is false) or brought up to date first. A bare path means SQLite.

        Raises ConfigError when it cannot be opened or is not to be made, or was written by a newer version of this program.
        """
        return cls(open_database(url, make))

    def close(self) -> None:
        """Finish what is being written and let go of the database."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction and return its result once it is on the disk. What `work` raises undoes only its own."""
        return self.database.write(work)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work`, which only reads, on a connection of its own; it sees one moment of the database."""
        return self.database.read(work)

    # studies

    def create_study(self, name: str, settings: Settings | None = None, author: str = "") -> Study:
        """A new, empty study. Raises ConfigError when the name is taken or not letters, digits, `-`, `_` and `.`."""
        return self.write(lambda db: studies.create(db, name, settings or Settings(), author))

    def study(self, name: str) -> Study:
        """The study of that name. Raises ConfigError when there is none."""
        return self.read(lambda db: studies.find(db, name))

    def studies(self) -> list[Study]:
        """All studies, oldest first."""
        return self.read(studies.every)

    def set_state(self, name: str, state: StudyState) -> None:
        """Open, pause or close a study. Answers to what was given out before are stored all the same."""
        self.write(lambda db: studies.set_state(db, name, state))

    def change_settings(self, name: str, settings: Settings, author: str = "") -> int:
        """Store a new version of the settings and return its number; earlier versions stay readable."""
        return self.write(lambda db: studies.change_settings(db, name, settings, author))

    def attributes(self, name: str) -> tuple[str, ...]:
        """What answers of a study were or are rated on, under all versions of its settings."""
        return self.read(lambda db: studies.attributes(db, name))

    def add_guideline(self, name: str, text: str, author: str = "") -> int:
        """Store a new version of the guidelines (Markdown) and return its number, from 1."""
        return self.write(lambda db: studies.add_guideline(db, name, text, author))

    def guideline(self, name: str, version: int | None = None) -> tuple[int, str]:
        """(version, text) of the guidelines, the latest unless one is named; (0, "") when there are none."""
        return self.read(lambda db: studies.guideline(db, name, version))

    # questions

    def add_questions(
        self,
        name: str,
        new: Iterable[Question],
        *,
        gold: Mapping[str, Sequence[float]] | None = None,
        why: Mapping[str, str] | None = None,
        kind: QuestionKind = "normal",
    ) -> Added:
        """Add questions, those the study has already left out and counted.

        `gold` gives the known ranks by question id (needed for kinds gold, attention, training), `why` the feedback
        after a training item. Raises ConfigError where known ranks are missing or do not fit.
        """
        return questions.add(self.database, name, new, {} if gold is None else gold, {} if why is None else why, kind)

    def questions(self, name: str, kind: QuestionKind | None = None) -> Iterator[Question]:
        """The questions of a study in the order they were added, streaming."""
        return questions.every(self.database, name, kind)

    def gold(self, name: str) -> dict[str, tuple[float, ...]]:
        """Known ranks by question id."""
        return self.read(lambda db: questions.gold_of(db, name))

    def unrated(self, name: str, rater: str, kind: QuestionKind = "normal") -> Iterator[Question]:
        """The questions that this rater has no judgement on, in the random order of the study: what an AI rater works through."""
        return questions.unrated(self.database, name, rater, kind)

    def set_priorities(self, name: str, arm: str, values: Mapping[str, float]) -> None:
        """Replace what an active arm goes by: question id -> value, higher is asked sooner."""
        questions.set_priorities(self.database, name, arm, values)

    def note_masked(self, assignment: int, found: Sequence[tuple[str, str]]) -> None:
        """Log (place, word) of what was hidden from the rater in an assignment's question; a question is logged once."""
        if found:
            self.write(lambda db: questions.note_masked(db, assignment, found, self.clock()))

    def masked(self, name: str) -> list[tuple[str, str, str, int]]:
        """What was hidden in a study: (question id, place, word, times)."""
        return self.read(lambda db: questions.masked(db, name))

    # raters at work

    def next(self, name: str, rater: str, beside: Sequence[int] = ()) -> Assignment | None:
        """What this rater judges now: the assignment that is still theirs, or a new one; None when there is none (see `progress`).

        `beside` names assignments the rater has at hand and means to answer; another one is wanted. So a browser can
        have the next question before the network goes.
        """
        return self.write(lambda db: assign.next_for(db, name, rater, self.clock(), beside))

    def assignment(self, number: int, rater: str) -> Assignment | None:
        """The assignment of that number, if it is this rater's; also after its lock expired."""
        return self.read(lambda db: assign.find(db, number, rater))

    def submit(self, judgement: Judgement, name: str, *, assignment: int | None = None) -> Literal["stored", "known"]:
        """Store a judgement; it is on the disk when this returns. A second delivery of the same one is `known`.

        Raises DataError when the id carries other content already, when the assignment is not this rater's or has been
        answered (send it with `replaces` to change it), when the question is not in the study, or when `replaces` names
        no current judgement of this rater on this question.
        """
        return self.write(lambda db: events.submit(db, name, judgement, assignment, self.clock()))

    def undo(self, name: str, rater: str) -> Assignment | None:
        """Give the rater's last question back; the next answer replaces the old one, which stays valid until then."""
        return self.write(lambda db: assign.undo(db, name, rater, self.clock()))

    def feedback(self, assignment: int, rater: str) -> Feedback | None:
        """What there is to learn from an answered training item; None for every other kind."""
        return self.read(lambda db: training.feedback(db, assignment, rater))

    def progress(self, name: str, rater: str) -> Progress:
        """Where this rater stands, and why there may be nothing to do."""
        return self.read(lambda db: assign.progress(db, name, rater, self.clock()))

    def set_rater_state(self, name: str, rater: str, state: Literal["training", "active", "failed", "removed"]) -> None:
        """A lead's decision about one rater: let in without training, give another attempt, or remove."""
        self.write(lambda db: assign.set_rater_state(db, name, rater, state, self.clock()))

    # judgements out

    def stored(self, name: str, *, since: int = 0, current: bool = False) -> Iterator[Stored]:
        """Judgements with their numbers of arrival, from after `since`, streaming; `current` leaves replaced ones out."""
        return events.stored(self.database, name, since, current)

    def latest(self, name: str, rater: str, most: int) -> list[Stored]:
        """The last judgements of one rater, the newest first, replaced ones too."""
        return self.read(lambda db: events.latest(db, name, rater, most))

    def judgements(self, name: str, *, since: int = 0, kinds: Sequence[str] = ()) -> Iterator[Judgement]:
        """Every judgement in order of arrival, replaced ones too; `kinds` keeps human or model raters only."""
        return (s.judgement for s in self.stored(name, since=since) if not kinds or s.judgement.kind in kinds)

    def current(self, name: str, *, kinds: Sequence[str] = ()) -> Iterator[Judgement]:
        """The judgements that stand: those that were replaced are left out."""
        return (s.judgement for s in self.stored(name, current=True) if not kinds or s.judgement.kind in kinds)

    def counts(self, name: str) -> Counts:
        """Totals for the admin page, read from counters that every event keeps."""
        return self.read(lambda db: studies.counts(db, name))
