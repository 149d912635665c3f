"""Which questions a rater could be given: the open ones nobody gave to this rater yet, and how many there are."""

from __future__ import annotations

import random
from typing import Any

import sqlalchemy as sa

from guerdon.collect import schema, studies

WINDOW = 8  # the next questions of the random order, among which the sides decide
HIDDEN = 500  # gold or attention items looked at, at most


def unseen(rater: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Condition on `question`: this rater neither has nor had it (an expired lock does not count)."""
    a = schema.assignment.c
    return ~sa.exists().where(a.question == schema.question.c.id, a.rater == rater, a.state != "expired")


def is_open(study: int | sa.BindParameter[int], kind: str = "normal") -> sa.ColumnElement[bool]:
    """Condition on `question`: of this study and kind, and wanting another rater."""
    q = schema.question.c
    return (q.study == study) & (q.kind == kind) & q.open


_NEXT = (
    sa.select(schema.question.c.id, schema.question.c.k, schema.question.c.positions)
    .where(is_open(sa.bindparam("study")), unseen(sa.bindparam("rater")))
    .order_by(schema.question.c.draw)
    .limit(WINDOW)
)


def next_open(db: sa.Connection, study: int, rater: str) -> list[Any]:
    """(id, k, positions) of the first open questions in the study's random order that this rater has not had."""
    return list(db.execute(_NEXT, {"study": study, "rater": rater}).all())


def size(db: sa.Connection, study: int, rater: str) -> int:
    """How many open ordinary questions this rater has not had; from counters, so it takes no time."""
    p = schema.participant.c
    seen = db.scalar(sa.select(p.open_seen).where(p.study == study, p.rater == rater)) or 0
    return studies.counter(db, study, "open") - seen


def hidden(db: sa.Connection, study: int, rater: str, kind: str, rng: random.Random) -> tuple[int, float] | None:
    """A gold or attention item this rater has not had, any with equal chance, and that chance."""
    q = schema.question.c
    query = sa.select(q.id).where(is_open(study, kind), unseen(rater)).order_by(q.draw).limit(HIDDEN)
    ids = list(db.scalars(query))
    return (rng.choice(ids), 1 / len(ids)) if ids else None


def repeatable(db: sa.Connection, study: int, rater: str, last: int, rng: random.Random) -> tuple[Any, float] | None:
    """An answered ordinary assignment of this rater, at most item `last`, to be asked again; and its chance, roughly even.

    Only what was answered (not skipped or flagged) and was not repeated before.
    """
    if last < 0:
        return None
    a, j = schema.assignment.c, schema.judgement.c
    again = schema.assignment.alias("again")
    query = (
        sa.select(a.id, a.question, a.display)
        .join(schema.judgement, j.id == a.judgement)
        .where(a.study == study, a.rater == rater, a.state == "done", a.item <= last, a.round == 0)
        .where(a.arm.in_(("random", "uncertain", "d-optimal")), j.answer.in_(("ranked", "all_bad")))
        .where(~sa.exists().where(again.c.question == a.question, again.c.rater == rater, again.c.round == 1))
        .order_by(a.item)
        .limit(1)
    )
    start = rng.randint(0, last)
    row = db.execute(query.where(a.item >= start)).first() or db.execute(query).first()
    return (row, 1 / (last + 1)) if row else None
