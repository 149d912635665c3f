"""What tests do with a study: make questions, answer them as a rater, count everything anew."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from guerdon.collect import schema, studies
from guerdon.collect.events import judgement_for
from guerdon.collect.records import Assignment
from guerdon.collect.settings import Settings
from guerdon.collect.store import Store
from guerdon.types import Judgement, Question


def question(i: int, k: int = 2) -> Question:
    answers = tuple(({"role": "assistant", "content": f"answer {c} to {i}"},) for c in range(k))
    return Question(({"role": "user", "content": f"question {i}"},), answers, id=f"q{i}")


def study(store: Store, number: int, k: int = 2, gold: int = 0, training: int = 0, **settings: Any) -> str:
    """A study `s` with that many ordinary questions and no hidden items unless their shares are given."""
    shares = {"repeats": 0.0, "gold": 0.0, "attention": 0.0, "k": k}
    store.create_study("s", Settings(**{**shares, **settings}))
    store.add_questions("s", [question(i, k) for i in range(number)])
    for kind, start, count in (("gold", 10_000, gold), ("training", 20_000, training)):
        items = [question(start + i, k) for i in range(count)]
        known = {item.id: tuple(range(k)) for item in items}
        if items:
            store.add_questions("s", items, kind=kind, gold=known, why={item.id: "because" for item in items})
    return "s"


def answered(given: Assignment, ranks: Sequence[float] | None = None, **fields: Any) -> Judgement:
    """A judgement of this assignment under a new id; ranked in the order of the candidates unless told."""
    values: dict[str, Any] = {"answer": "ranked", **fields}
    if values["answer"] == "ranked":
        values["ranks"] = tuple(ranks if ranks is not None else range(len(given.order)))
    return judgement_for(given, str(uuid.uuid4()), **values)


def answer_next(store: Store, rater: str, ranks: Sequence[float] | None = None, **fields: Any) -> Assignment | None:
    """One step of a rater; None when there is nothing for them."""
    given = store.next("s", rater)
    if given is not None:
        assert store.submit(answered(given, ranks, **fields), "s", assignment=given.id) == "stored"
    return given


def answer_all(store: Store, rater: str, most: int = 10_000) -> list[Assignment]:
    found: list[Assignment] = []
    while len(found) < most and (given := answer_next(store, rater)):
        found.append(given)
    return found


def recounted(db: sa.Connection) -> dict[str, Any]:
    """Everything that is kept as a running total, counted from the rows themselves."""
    q, a, j = schema.question, schema.assignment, schema.judgement

    def number(query: Callable[..., Any], *where: Any) -> int:
        return int(db.scalar(sa.select(sa.func.count()).select_from(query).where(*where)) or 0)

    current = ~sa.exists().where(j.alias("n").c.replaces == j.c.id)
    found: dict[str, Any] = {
        "open": number(q, q.c.kind == "normal", q.c.open),
        "judgements": number(j),
        "questions": {},
        "people": {},
    }
    for row in db.execute(sa.select(q).where(q.c.kind == "normal")).all():
        mine = (j.c.question == row.id) & current & j.c.arm.in_(("random", "given"))
        answers = number(j, mine, j.c.answer.in_(("ranked", "all_bad")))
        refused = number(j, mine, j.c.answer.in_(("skip", "flag")))
        live = (a.c.question == row.id) & (a.c.state == "live") & (a.c.judgement == "") & (a.c.round == 0)
        found["questions"][row.name] = (answers, refused, number(a, live))
    for person in db.execute(sa.select(schema.participant)).all():
        joined = a.join(q, a.c.question == q.c.id)
        have = (a.c.rater == person.rater) & (a.c.round == 0) & (a.c.state != "expired")
        found["people"][person.rater] = number(joined, have, q.c.kind == "normal", q.c.open)
    return found


def kept(db: sa.Connection) -> dict[str, Any]:
    """The running totals themselves, in the shape of `recounted`."""
    q = schema.question
    rows = db.execute(sa.select(q).where(q.c.kind == "normal")).all()
    people = db.execute(sa.select(schema.participant)).all()
    return {
        "open": studies.counter(db, 1, "open"),
        "judgements": studies.counter(db, 1, "judgements"),
        "questions": {row.name: (row.answered, row.refused, row.locked) for row in rows},
        "people": {row.rater: row.open_seen for row in people},
    }
