"""Locks: a question given to a rater is theirs until they answer or the time is over. Every change keeps the totals right.

A question is open while `answered + locked < overlap` and fewer than `give_up` raters refused it. `open_seen` of a
participant counts the open ordinary questions they have or had, so that what is left for them is a subtraction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from guerdon.collect import schema, studies
from guerdon.collect.order import Tally, add, empty
from guerdon.collect.questions import dump, question_of
from guerdon.collect.records import Assignment, Study

EXPIRE = 200  # locks taken back at once, at most
_Q, _A, _P = schema.question, schema.assignment, schema.participant

# Statements are built once: building one costs more than running it.
_WHO = (_P.c.study == bindparam("b_study")) & (_P.c.rater == bindparam("b_rater"))
_HAVE = sa.select(_A.c.rater).where(_A.c.question == bindparam("b_question"), _A.c.round == 0, _A.c.state != "expired")
_OLD = sa.select(_A.c.id, _A.c.display).where(
    _A.c.question == bindparam("question"), _A.c.rater == bindparam("rater"), _A.c.round == bindparam("round")
)
_LATE = (
    sa.select(_A)
    .where(
        _A.c.study == bindparam("study"), sa.text("state = 'live'"), _A.c.expires < bindparam("now")
    )  # as the index says it
    .order_by(_A.c.expires)
    .limit(EXPIRE)
)
_PERSON = sa.select(_P).where(_WHO)
_QUESTION = sa.select(_Q).where(_Q.c.id == bindparam("b_id"))
_SET_ASSIGNMENT = _A.update().where(_A.c.id == bindparam("b_id"))
_SET_QUESTION = _Q.update().where(_Q.c.id == bindparam("b_id"))
_SET_PERSON = _P.update().where(_WHO)
_ADD_SEEN = _SET_PERSON.values(open_seen=_P.c.open_seen + bindparam("step"))
_ADD_SEEN_TO_ALL = (
    _P.update()
    .where(_P.c.study == bindparam("b_study"), _P.c.rater.in_(_HAVE))
    .values(open_seen=_P.c.open_seen + bindparam("step"))
)
_INSERT = _A.insert()


def set_assignment(db: sa.Connection, number: int, **values: Any) -> None:
    """Change some columns of an assignment."""
    db.execute(_SET_ASSIGNMENT, {"b_id": number, **values})


def person_of(db: sa.Connection, study: int, rater: str) -> Any:
    """The row of a participant, or None."""
    return db.execute(_PERSON, {"b_study": study, "b_rater": rater}).first()


def set_person(db: sa.Connection, study: int, rater: str, **values: Any) -> None:
    """Change some columns of a participant."""
    db.execute(_SET_PERSON, {"b_study": study, "b_rater": rater, **values})


def tally_of(person: Any, k: int) -> Tally:
    """How often this rater saw candidate i at position p, over questions with K candidates."""
    found: Tally = json.loads(person.positions).get(str(k)) or empty(k)
    return found


def take(
    db: sa.Connection,
    study: Study,
    question: int,
    rater: str,
    order: Sequence[int],
    arm: str,
    probability: float | None,
    round: int,
    now: float,
) -> Assignment:
    """Lock a question for a rater. An expired assignment comes back with the order it had."""
    key: dict[str, Any] = {"question": question, "rater": rater, "round": round}
    old = db.execute(_OLD, key).first()
    values: dict[str, Any] = {
        "arm": arm,
        "probability": probability,
        "guideline": study.guideline,
        "given": now,
        "expires": now + study.settings.lock_seconds,
        "state": "live",
    }
    if old:
        order, number = json.loads(old.display), old.id
        set_assignment(db, number, **values)
    else:
        values |= {"study": study.id, **key, "display": dump(list(order))}
        number = db.execute(_INSERT, values).inserted_primary_key[0]  # type: ignore[index]
    row = show(db, study.id, question, rater, order, 1)
    if round == 0:
        change_question(db, study, question, rater, row=row, locked=1, seen=1)
    return Assignment(
        number,
        study.name,
        rater,
        question_of(row),
        tuple(order),
        arm,  # type: ignore[arg-type]
        probability,
        study.guideline,
        now + study.settings.lock_seconds,
    )


def expire(db: sa.Connection, study: Study, now: float) -> None:
    """Take back the locks whose time is over. What was answered before an undo stays answered."""
    for row in db.execute(_LATE, {"study": study.id, "now": now}).all():
        if row.judgement:
            set_assignment(db, row.id, state="done", replaces="")
            continue
        set_assignment(db, row.id, state="expired")
        show(db, study.id, row.question, row.rater, json.loads(row.display), -1)
        if row.round == 0:
            change_question(db, study, row.question, row.rater, locked=-1, seen=-1)


def show(db: sa.Connection, study: int, question: int, rater: str, order: Sequence[int], times: int) -> Any:
    """Keep both tallies, how often candidates stood where, for the question and for the rater; returns the question's row."""
    row = db.execute(_QUESTION, {"b_id": question}).one()
    tally = json.loads(row.positions) or empty(len(order))
    db.execute(_SET_QUESTION, {"b_id": question, "positions": dump(add(tally, order, times))})
    person = person_of(db, study, rater)
    positions = json.loads(person.positions) | {str(len(order)): add(tally_of(person, len(order)), order, times)}
    set_person(db, study, rater, positions=dump(positions))
    return row


def change_question(
    db: sa.Connection,
    study: Study,
    question: int,
    rater: str,
    *,
    row: Any = None,
    locked: int = 0,
    answered: int = 0,
    refused: int = 0,
    seen: int = 0,
) -> None:
    """Add to the numbers of an ordinary question, and open or close it where they cross what is wanted.

    `row` is the question's row where it is at hand. `seen` is +1 when the rater gets it, or answers late, and -1 when
    their lock expires.
    """
    q = row or db.execute(_QUESTION, {"b_id": question}).one()
    if q.kind != "normal":
        return
    locked, answered, refused = q.locked + locked, q.answered + answered, q.refused + refused
    wanted = answered + locked < study.settings.overlap and refused < study.settings.give_up
    values = {"locked": locked, "answered": answered, "refused": refused, "open": wanted}
    db.execute(_SET_QUESTION, {"b_id": question, **values})
    who = {"b_study": study.id, "b_rater": rater}
    if q.open and seen:
        db.execute(_ADD_SEEN, {**who, "step": seen})
    if q.open != wanted:
        step = 1 if wanted else -1
        studies.count(db, study.id, {"open": step})
        db.execute(_ADD_SEEN_TO_ALL, {"b_study": study.id, "b_question": question, "step": step})
