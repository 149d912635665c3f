"""Locks: a question given to a rater is theirs until they answer or the time is over. Every change keeps the totals right.

A question is open while `answered + locked < overlap` and fewer than `give_up` raters refused it. `open_seen` of a
participant counts the open ordinary questions they have or had, so that what is left for them is a subtraction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from guerdon.collect import schema, studies
from guerdon.collect.order import Tally, add, empty
from guerdon.collect.questions import dump
from guerdon.collect.records import Study

EXPIRE = 200  # locks taken back at once, at most
_Q, _A, _P = schema.question, schema.assignment, schema.participant


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
) -> int:
    """Lock a question for a rater and return the assignment's number. An expired one comes back with the order it had."""
    key = (_A.c.question == question) & (_A.c.rater == rater) & (_A.c.round == round)
    old = db.execute(sa.select(_A.c.id, _A.c.display).where(key)).first()
    values = {
        "arm": arm,
        "probability": probability,
        "guideline": studies.latest_guideline(db, study.id),
        "given": now,
        "expires": now + study.settings.lock_seconds,
        "state": "live",
    }
    if old:
        order = json.loads(old.display)
        db.execute(_A.update().where(_A.c.id == old.id).values(**values))
        number = old.id
    else:
        values |= {
            "study": study.id,
            "question": question,
            "rater": rater,
            "round": round,
            "display": dump(list(order)),
        }
        number = db.execute(_A.insert().values(**values)).inserted_primary_key[0]  # type: ignore[index]
    _show(db, study.id, question, rater, order, 1)
    if round == 0:
        change_question(db, study, question, rater, locked=1, seen=1)
    return int(number)


def expire(db: sa.Connection, study: Study, now: float) -> None:
    """Take back the locks whose time is over. What was answered before an undo stays answered."""
    late = sa.select(_A).where(_A.c.study == study.id, _A.c.state == "live", _A.c.expires < now)
    for row in db.execute(late.order_by(_A.c.expires).limit(EXPIRE)).all():
        here = _A.update().where(_A.c.id == row.id)
        if row.judgement:
            db.execute(here.values(state="done", replaces=""))
            continue
        db.execute(here.values(state="expired"))
        _show(db, study.id, row.question, row.rater, json.loads(row.display), -1)
        if row.round == 0:
            change_question(db, study, row.question, row.rater, locked=-1, seen=-1)


def shown_again(db: sa.Connection, row: Any) -> None:
    """Count the order of an expired assignment after all: its answer came late."""
    _show(db, row.study, row.question, row.rater, json.loads(row.display), 1)


def _show(db: sa.Connection, study: int, question: int, rater: str, order: Sequence[int], times: int) -> None:
    """Keep both tallies: how often candidates stood where, for the question and for the rater."""
    tally = json.loads(db.scalar(sa.select(_Q.c.positions).where(_Q.c.id == question)) or "[]") or empty(len(order))
    db.execute(_Q.update().where(_Q.c.id == question).values(positions=dump(add(tally, order, times))))
    here = (_P.c.study == study) & (_P.c.rater == rater)
    person = db.execute(sa.select(_P.c.positions).where(here)).one()
    positions = json.loads(person.positions) | {str(len(order)): add(tally_of(person, len(order)), order, times)}
    db.execute(_P.update().where(here).values(positions=dump(positions)))


def change_question(
    db: sa.Connection,
    study: Study,
    question: int,
    rater: str,
    *,
    locked: int = 0,
    answered: int = 0,
    refused: int = 0,
    seen: int = 0,
) -> None:
    """Add to the numbers of an ordinary question, and open or close it where they cross what is wanted.

    `seen` is +1 when the rater gets it, or answers late, and -1 when their lock expires.
    """
    q = db.execute(
        sa.select(_Q.c.kind, _Q.c.open, _Q.c.locked, _Q.c.answered, _Q.c.refused).where(_Q.c.id == question)
    ).one()
    if q.kind != "normal":
        return
    locked, answered, refused = q.locked + locked, q.answered + answered, q.refused + refused
    wanted = answered + locked < study.settings.overlap and refused < study.settings.give_up
    values = {"locked": locked, "answered": answered, "refused": refused, "open": wanted}
    db.execute(_Q.update().where(_Q.c.id == question).values(**values))
    if q.open and seen:
        _add_seen(db, study.id, _P.c.rater == rater, seen)
    if q.open != wanted:
        step = 1 if wanted else -1
        studies.count(db, study.id, {"open": step})
        have = sa.select(_A.c.rater).where(_A.c.question == question, _A.c.round == 0, _A.c.state != "expired")
        _add_seen(db, study.id, _P.c.rater.in_(have), step)


def _add_seen(db: sa.Connection, study: int, who: sa.ColumnElement[bool], step: int) -> None:
    db.execute(_P.update().where(_P.c.study == study, who).values(open_seen=_P.c.open_seen + step))
