"""Judgements in and out. In: append one event and what follows from it, in one transaction. Out: a stream in order of arrival."""

from __future__ import annotations

import json
import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import bindparam

from guerdon.collect import assign, locks, schema, studies, training
from guerdon.collect.database import Database
from guerdon.collect.questions import CHUNK, body_of, dump, question_of
from guerdon.collect.records import Assignment, Stored, Study
from guerdon.types import DataError, Judgement, Question

COUNTED = ("random", "uncertain", "d-optimal", "given")  # arms whose answers count for the overlap
CACHED = 5000  # questions kept while streaming
_Q, _A, _J, _P = schema.question, schema.assignment, schema.judgement, schema.participant
_KNOWN = sa.select(_J, _Q.c.name).join(_Q, _Q.c.id == _J.c.question).where(_J.c.id == bindparam("id"))
_QUESTION = sa.select(_Q).where(_Q.c.study == bindparam("study"), _Q.c.name == bindparam("name"))
_MINE = sa.select(_A).where(
    _A.c.question == bindparam("question"), _A.c.rater == bindparam("rater"), _A.c.study == bindparam("study")
)
_THIS = _MINE.where(_A.c.id == bindparam("number"))
_OPEN_FIRST = _MINE.order_by(
    sa.case((_A.c.state == "live", 0), (_A.c.state == "expired", 1), else_=2), _A.c.round.desc()
).limit(1)
_INSERT = _J.insert().inline()
_ONE_MORE = (
    _P.update()
    .where(_P.c.study == bindparam("b_study"), _P.c.rater == bindparam("b_rater"))
    .values(judged=_P.c.judged + 1, done=_P.c.done + bindparam("counted"))
)


def submit(
    db: sa.Connection, name: str, judgement: Judgement, assignment: int | None, now: float
) -> Literal["stored", "known"]:
    """See `Store.submit`."""
    study = studies.find(db, name)
    if known := db.execute(_KNOWN, {"id": judgement.id}).first():
        _require_same(known, study, judgement)
        return "known"
    question = db.execute(_QUESTION, {"study": study.id, "name": judgement.question.id}).first()
    if question is None:
        raise DataError(f"judgement {judgement.id}: study {name!r} has no question {judgement.question.id!r}")
    if question.body != body_of(judgement.question):
        raise DataError(f"judgement {judgement.id}: question {question.name!r} has other content in study {name!r}")
    given = _assignment(db, study, question.id, judgement, assignment)
    replaced = _replaced(db, study, question.id, judgement)
    late = bool(given and not replaced and (given.state == "expired" or given.expires < now))
    if given:  # what was shown, and why, is what the server knows and not what a client says
        order = tuple(json.loads(given.display))
        judgement = replace(
            judgement, order=order, arm=given.arm, probability=given.probability, guideline=given.guideline
        )
    db.execute(_INSERT, _row(study, question.id, judgement, given.id if given else None, late, now))
    _count(db, study, judgement, replaced is not None, late, now)
    if judgement.kind == "human":
        if replaced is not None:
            _after_replacement(db, study, question.id, judgement, given, replaced)
        else:
            _after_answer(db, study, question.id, judgement, given, now)
    return "stored"


def _assignment(db: sa.Connection, study: Study, question: int, judgement: Judgement, number: int | None) -> Any:
    """The row of the assignment that is answered: the one named, else the one this rater has on the question; or None.

    Raises DataError when it is another's, is about another question, or has been answered.
    """
    if judgement.kind == "model":
        return None
    mine = {"question": question, "rater": judgement.rater, "study": study.id}
    if number is None:
        row = db.execute(_OPEN_FIRST, mine).first()
    else:
        row = db.execute(_THIS, {**mine, "number": number}).first()
        if row is None:
            raise DataError(
                f"judgement {judgement.id}: assignment {number} is not this rater's, or on another question"
            )
    if row is None:
        return None
    expected = row.replaces or row.judgement
    if judgement.replaces != expected:
        what = f"was answered by {expected}; send `replaces` to change it" if expected else "has no answer to replace"
        raise DataError(f"judgement {judgement.id}: its question {what}")  # whose id may tell a rater that it is gold
    return row


def _replaced(db: sa.Connection, study: Study, question: int, judgement: Judgement) -> Any:
    """The row of the judgement that this one takes the place of, or None. Raises DataError when it cannot."""
    if not judgement.replaces:
        return None
    row = db.execute(sa.select(_J).where(_J.c.id == judgement.replaces)).first()
    same = (study.id, question, judgement.rater, judgement.kind)
    if row is None or (row.study, row.question, row.rater, row.kind) != same:
        raise DataError(
            f"judgement {judgement.id}: replaces {judgement.replaces}, which is no judgement of this rater on this question"
        )
    if row.arm == "training":
        raise DataError(f"judgement {judgement.id}: a training item cannot be changed, its feedback has been seen")
    if db.execute(sa.select(_J.c.id).where(_J.c.replaces == judgement.replaces)).first():
        raise DataError(f"judgement {judgement.id}: {judgement.replaces} was replaced already; replace its successor")
    return row


def _count(db: sa.Connection, study: Study, judgement: Judgement, replaces: bool, late: bool, now: float) -> None:
    hour = time.strftime("%Y-%m-%dT%H", time.gmtime(now))
    changes = {
        "judgements": 1,
        f"answer:{judgement.answer}": 1,
        f"arm:{judgement.arm}": 1,
        f"rater:{judgement.rater}": 1,
        f"hour:{hour}": 1,
        "replaced": int(replaces),
        "late": int(late),
    }
    studies.count(db, study.id, changes)


def _after_answer(db: sa.Connection, study: Study, question: int, judgement: Judgement, given: Any, now: float) -> None:
    """First answer of this rater: the assignment is done, the question has one answer (or refusal) more."""
    person = assign.join(db, study, judgement.rater, now)
    number = given.id if given else _insert_done(db, study, question, judgement, now)
    locks.set_assignment(db, number, state="done", judgement=judgement.id, item=person.judged, replaces="")
    expired = bool(given and given.state == "expired")
    if expired:
        locks.show(db, study.id, question, judgement.rater, json.loads(given.display), 1)  # after all
    counted = judgement.arm in COUNTED
    if counted:
        answers = judgement.answer in ("ranked", "all_bad")
        locks.change_question(
            db,
            study,
            question,
            judgement.rater,
            locked=-1 if given and not expired else 0,
            answered=int(answers),
            refused=int(not answers),
            seen=0 if given and not expired else 1,
        )
    if judgement.arm == "training":
        training.finish(db, study, judgement.rater)
        return
    db.execute(_ONE_MORE, {"b_study": study.id, "b_rater": judgement.rater, "counted": int(counted)})


def _insert_done(db: sa.Connection, study: Study, question: int, judgement: Judgement, now: float) -> int:
    """A judgement that came without an assignment leaves one, so that its rater is not asked again."""
    values = {
        "study": study.id,
        "question": question,
        "rater": judgement.rater,
        "display": dump(list(judgement.order)),
        "arm": judgement.arm,
        "probability": judgement.probability,
        "guideline": judgement.guideline,
        "given": now,
        "expires": now,
        "state": "expired",
    }
    return int(db.execute(_A.insert().values(**values)).inserted_primary_key[0])  # type: ignore[index]


def _after_replacement(
    db: sa.Connection, study: Study, question: int, judgement: Judgement, given: Any, replaced: Any
) -> None:
    """A changed answer: only whether it is an answer or a refusal can make a difference to the question."""
    if given:
        locks.set_assignment(db, given.id, state="done", judgement=judgement.id, replaces="")
    if judgement.arm in COUNTED:
        change = int(judgement.answer in ("ranked", "all_bad")) - int(replaced.answer in ("ranked", "all_bad"))
        locks.change_question(db, study, question, judgement.rater, answered=change, refused=-change)


def _row(
    study: Study, question: int, judgement: Judgement, assignment: int | None, late: bool, now: float
) -> dict[str, Any]:
    return {
        "id": judgement.id,
        "study": study.id,
        "question": question,
        "assignment": assignment,
        "late": late,
        "received": now,
        **_content(judgement),
        "display": dump(list(judgement.order)),
        "guideline": judgement.guideline,
        "arm": judgement.arm,
        "probability": judgement.probability,
    }


def _content(judgement: Judgement) -> dict[str, Any]:
    """What the rater's client says; two deliveries of one judgement must agree in it."""
    return {
        "rater": judgement.rater,
        "kind": judgement.kind,
        "answer": judgement.answer,
        "ranks": dump(list(map(float, judgement.ranks))),
        "strength": judgement.strength,
        "attributes": dump({name: list(values) for name, values in sorted(judgement.attributes.items())}),
        "rationale": judgement.rationale,
        "edited": judgement.edited,
        "shown_at": _number(judgement.shown_at),
        "first_input_at": _number(judgement.first_input_at),
        "submitted_at": _number(judgement.submitted_at),
        "replaces": judgement.replaces or None,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _require_same(row: Any, study: Study, judgement: Judgement) -> None:
    content = _content(judgement) | {"study": study.id, "name": judgement.question.id}
    if differing := [name for name, value in content.items() if getattr(row, name) != value]:
        raise DataError(
            f"judgement {judgement.id}: is stored with another {differing[0]}; a new judgement needs an id of its own"
        )


def stored(database: Database, name: str, since: int, current: bool) -> Iterator[Stored]:
    """See `Store.stored`. What arrives while it streams is left to the next call."""
    study = database.read(lambda db: studies.find(db, name))
    until = database.read(lambda db: db.scalar(sa.select(sa.func.max(_J.c.seq)).where(_J.c.study == study.id))) or 0
    query = sa.select(_J).where(_J.c.study == study.id, _J.c.seq <= until).order_by(_J.c.seq).limit(CHUNK)
    if current:
        newer = _J.alias("newer")
        query = query.where(~sa.exists().where(newer.c.replaces == _J.c.id, newer.c.seq <= until))
    questions: OrderedDict[int, Question] = OrderedDict()
    last = since
    while last < until:
        with database.reading() as db:
            rows = db.execute(query.where(_J.c.seq > last)).all()
            _remember(db, questions, {row.question for row in rows})
        for row in rows:
            yield Stored(row.seq, judgement_of(row, questions[row.question]), row.late, row.received)
        if not rows:
            return
        last = rows[-1].seq


def latest(db: sa.Connection, name: str, rater: str, most: int) -> list[Stored]:
    """See `Store.latest`."""
    study = studies.find(db, name)
    mine = sa.select(_J).where(_J.c.study == study.id, _J.c.rater == rater)
    rows = db.execute(mine.order_by(_J.c.seq.desc()).limit(most)).all()
    questions: OrderedDict[int, Question] = OrderedDict()
    _remember(db, questions, {row.question for row in rows})
    return [Stored(row.seq, judgement_of(row, questions[row.question]), row.late, row.received) for row in rows]


def _remember(db: sa.Connection, questions: OrderedDict[int, Question], wanted: set[int]) -> None:
    while len(questions) > CACHED:
        questions.popitem(last=False)
    missing = wanted - questions.keys()
    for row in db.execute(sa.select(_Q).where(_Q.c.id.in_(missing))) if missing else ():
        questions[row.id] = question_of(row)


def judgement_of(row: Any, question: Question) -> Judgement:
    """The judgement of a row of its table."""
    return Judgement(
        id=row.id,
        rater=row.rater,
        kind=row.kind,
        question=question,
        order=tuple(json.loads(row.display)),
        answer=row.answer,
        ranks=tuple(json.loads(row.ranks)),
        strength=row.strength,
        attributes={name: tuple(values) for name, values in json.loads(row.attributes).items()},
        rationale=row.rationale,
        edited=row.edited,
        shown_at=_or_nan(row.shown_at),
        first_input_at=_or_nan(row.first_input_at),
        submitted_at=_or_nan(row.submitted_at),
        guideline=row.guideline,
        replaces=row.replaces or "",
        arm=row.arm,
        probability=row.probability,
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def judgement_for(given: Assignment, id: str, kind: Literal["human", "model"] = "human", **answer: Any) -> Judgement:
    """The judgement that answers an assignment: what the server knows from it, and the client's `answer`, `ranks`, ..."""
    return Judgement(
        id=id,
        rater=given.rater,
        kind=kind,
        question=given.question,
        order=given.order,
        guideline=given.guideline,
        replaces=given.replaces,
        arm=given.arm,
        probability=given.probability,
        **answer,
    )
