"""Qualification: items whose answer is known, with feedback after each, and a pass mark before ordinary questions come."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from guerdon.collect import locks, schema, studies
from guerdon.collect.records import Feedback, Study

_A, _J, _G = schema.assignment, schema.judgement, schema.gold
_TRAINING = sa.text("assignment.arm = 'training'")  # written out, or the index of training items is not seen to apply


class Result(NamedTuple):
    """Training items answered in one attempt, and those answered rightly."""

    answered: int
    right: int


def agreed(given: Sequence[float], known: Sequence[float]) -> float:
    """Share of the pairs that the known ranks decide which the given ranks decide the same way; a tie is not the same."""
    pairs = [(i, j) for i, j in itertools.permutations(range(len(known)), 2) if known[i] < known[j]]
    if not given:
        return 0.0
    return sum(given[i] < given[j] for i, j in pairs) / len(pairs)


def result(db: sa.Connection, study: int, rater: str, attempt: int) -> Result:
    """How one attempt went so far. Right means that every pair the known ranks decide was decided the same way."""
    query = (
        sa.select(_J.c.ranks, _G.c.ranks.label("known"))
        .join(_A, _A.c.judgement == _J.c.id)
        .join(_G, _G.c.question == _J.c.question)
        .where(_A.c.study == study, _A.c.rater == rater, _A.c.state == "done")
        .where(_TRAINING, _A.c.round == attempt)
    )
    shares = [agreed(json.loads(row.ranks), json.loads(row.known)) for row in db.execute(query)]
    return Result(len(shares), sum(share == 1 for share in shares))


def finish(db: sa.Connection, study: Study, rater: str) -> None:
    """After a training answer: once all items are answered, let the rater in, give another attempt, or neither."""
    person = locks.person_of(db, study.id, rater)
    total = studies.counter(db, study.id, "questions:training")
    answered, right = result(db, study.id, rater, person.attempt)
    if person.state != "training" or answered < total:
        return
    if right >= study.settings.pass_mark * total:
        locks.set_person(db, study.id, rater, state="active")
    elif person.attempt + 1 < study.settings.attempts:
        locks.set_person(db, study.id, rater, attempt=person.attempt + 1)
    else:
        locks.set_person(db, study.id, rater, state="failed")


def feedback(db: sa.Connection, assignment: int, rater: str) -> Feedback | None:
    """See `Store.feedback`."""
    query = (
        sa.select(_J.c.ranks, _G.c.ranks.label("known"), _G.c.why)
        .join(_A, _A.c.judgement == _J.c.id)
        .join(_G, _G.c.question == _J.c.question)
        .where(_A.c.id == assignment, _A.c.rater == rater, _A.c.arm == "training", _A.c.state == "done")
    )
    row = db.execute(query).first()
    if row is None:
        return None
    known = tuple(json.loads(row.known))
    share = agreed(json.loads(row.ranks), known)
    return Feedback(share == 1, share, known, row.why)
