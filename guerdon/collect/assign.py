"""What a rater judges next. In the writer's transaction, so that no two raters are ever given the last place of a question."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import bindparam

from guerdon.collect import locks, pool, schema, studies, training
from guerdon.collect import order as orders
from guerdon.collect.choose import choose
from guerdon.collect.questions import question_of
from guerdon.collect.records import Assignment, Progress, Standing, Study
from guerdon.types import ConfigError

_Q, _A, _P = schema.question, schema.assignment, schema.participant
_HELD = (
    sa.select(_A.c.id)
    .where(_A.c.study == bindparam("study"), _A.c.rater == bindparam("rater"), _A.c.state == "live")
    .where(_A.c.id.not_in(bindparam("beside", expanding=True)))
    .order_by((_A.c.replaces == ""), _A.c.id)  # what was undone, else what has been on the screen longest
    .limit(1)
)
_AT_HAND = (
    sa.select(sa.func.count())
    .select_from(_A)
    .where(_A.c.study == bindparam("study"), _A.c.rater == bindparam("rater"), _A.c.state == "live")
    .where(_A.c.replaces == "", _A.c.arm.in_(("random", "uncertain", "d-optimal")))
)
_FIND = (
    sa.select(_A.c.id.label("number"), _A.c.display, _A.c.arm, _A.c.probability, _A.c.guideline, _A.c.expires)
    .add_columns(_A.c.replaces, schema.study.c.name.label("study_name"), _Q.c.name, _Q.c.body, _Q.c.models, _Q.c.source)
    .join(_Q, _Q.c.id == _A.c.question)
    .join(schema.study, schema.study.c.id == _A.c.study)
    .where(_A.c.id == bindparam("number"), _A.c.rater == bindparam("rater"))
)


@dataclass(frozen=True, slots=True)
class Draw:
    """What was chosen: the order only where it is not free, as for a repeat, whose sides are swapped."""

    question: int
    arm: str
    probability: float | None
    round: int = 0
    order: Sequence[int] | None = None


def next_for(db: sa.Connection, name: str, rater: str, now: float, beside: Sequence[int] = ()) -> Assignment | None:
    """See `Store.next`."""
    study = studies.find(db, name)
    locks.expire(db, study, now)
    person = join(db, study, rater, now)
    if study.state != "open" or person.state in ("failed", "removed"):
        return None
    if held := _held(db, study, rater, beside):
        locks.set_assignment(db, held, expires=now + study.settings.lock_seconds)
        return find(db, held, rater)
    rng = random.Random(f"{study.settings.seed}:{study.id}:{rater}:{person.judged}:{now}")
    draw = (
        _training(db, study, rater, person)
        if person.state == "training"
        else _item(db, study, rater, person, rng, len(beside))
    )
    if draw is None:
        return None
    order = draw.order or _order(db, draw.question, person, rng)
    return locks.take(db, study, draw.question, rater, order, draw.arm, draw.probability, draw.round, now)


def join(db: sa.Connection, study: Study, rater: str, now: float) -> Any:
    """The participant's row; made on first sight, in training when the study has training items."""
    if (row := locks.person_of(db, study.id, rater)) is None:
        state = "training" if studies.counter(db, study.id, "questions:training") else "active"
        db.execute(_P.insert().values(study=study.id, rater=rater, state=state, joined=now))
        row = locks.person_of(db, study.id, rater)
    return row


def _held(db: sa.Connection, study: Study, rater: str, beside: Sequence[int] = ()) -> int | None:
    """The assignment that is on the rater's screen: one they asked to undo first, else the one they have not answered."""
    return db.scalar(_HELD, {"study": study.id, "rater": rater, "beside": list(beside)})


def _training(db: sa.Connection, study: Study, rater: str, person: Any) -> Draw | None:
    """The first training item without an answer in this attempt; all raters get them in the same order."""
    had = sa.exists().where(
        _A.c.question == _Q.c.id, _A.c.rater == rater, _A.c.round == person.attempt, _A.c.state != "expired"
    )
    query = sa.select(_Q.c.id).where(pool.is_open(study.id, "training"), ~had).order_by(_Q.c.draw).limit(1)
    found = db.scalar(query)
    return None if found is None else Draw(found, "training", None, person.attempt)


def _item(db: sa.Connection, study: Study, rater: str, person: Any, rng: random.Random, pending: int) -> Draw | None:
    """A repeat, a gold item or an attention check by their shares, else an ordinary question by chance or an active arm."""
    settings = study.settings
    if settings.limit and person.done + pending >= settings.limit:
        return None
    left = studies.counter(db, study.id, "open") - person.open_seen
    if left <= 0:
        return None  # nothing is asked only to check the rater
    share = rng.random()
    if share < settings.repeats:
        if found := pool.repeatable(db, study.id, rater, person.judged - 1 - settings.repeat_after, rng):
            row, chance = found
            return Draw(row.question, "repeat", chance, 1, json.loads(row.display)[::-1])
    elif share < settings.repeats + settings.gold + settings.attention:
        kind = "gold" if share < settings.repeats + settings.gold else "attention"
        if hidden := pool.hidden(db, study.id, rater, kind, rng):
            return Draw(hidden[0], kind, hidden[1])
    if settings.arms and rng.random() >= settings.random:
        arm = rng.choice(settings.arms)
        if chosen := choose(db, study, rater, arm, rng):
            return Draw(chosen[0], arm, chosen[1])
    return _random(db, study, rater, person, left, rng)


def _random(db: sa.Connection, study: Study, rater: str, person: Any, left: int, rng: random.Random) -> Draw | None:
    """The next of the study's random order; within a few, one whose sides even out both the question and the rater.

    The order was drawn before anybody judged, and sides say nothing about content: each of the `left` questions is as
    likely as any other.
    """
    best: tuple[int, int, Sequence[int]] | None = None
    for row in pool.next_open(db, study.id, rater):
        order, off = orders.choose(json.loads(row.positions), locks.tally_of(person, row.k), rng)
        if best is None or off < best[0]:
            best = off, row.id, order
        if off == 0:
            break
    return None if best is None else Draw(best[1], "random", 1 / max(left, 1), 0, best[2])


def _order(db: sa.Connection, question: int, person: Any, rng: random.Random) -> Sequence[int]:
    row = db.execute(sa.select(_Q.c.k, _Q.c.positions).where(_Q.c.id == question)).one()
    return orders.choose(json.loads(row.positions), locks.tally_of(person, row.k), rng)[0]


def find(db: sa.Connection, number: int, rater: str) -> Assignment | None:
    """See `Store.assignment`."""
    row = db.execute(_FIND, {"number": number, "rater": rater}).first()
    if row is None:
        return None
    order = tuple(json.loads(row.display))
    return Assignment(
        row.number,
        row.study_name,
        rater,
        question_of(row),
        order,
        row.arm,
        row.probability,
        row.guideline,
        row.expires,
        row.replaces,
    )


def undo(db: sa.Connection, name: str, rater: str, now: float) -> Assignment | None:
    """See `Store.undo`. Training items stay answered: their feedback has been seen. A second undo goes one further back."""
    study, j = studies.find(db, name), schema.judgement.c
    query = (
        sa.select(_A.c.id, _A.c.judgement, _A.c.arm)
        .join(_A, _A.c.id == j.assignment)
        .where(j.study == study.id, j.rater == rater, _A.c.state == "done", _A.c.judgement == j.id)
        .order_by(j.seq.desc())
        .limit(1)
    )
    last = db.execute(query).first()
    if last is None or last.arm == "training" or study.state == "closed":
        return None
    expires = now + study.settings.lock_seconds
    locks.set_assignment(db, last.id, state="live", replaces=last.judgement, expires=expires)
    return find(db, last.id, rater)


def progress(db: sa.Connection, name: str, rater: str, now: float) -> Progress:
    """See `Store.progress`."""
    study = studies.find(db, name)
    total = studies.counter(db, study.id, "questions:training")
    person = locks.person_of(db, study.id, rater)
    limit, standing = study.settings.limit, _standing(db, study, person, rater)
    left = pool.size(db, study.id, rater)
    if person is None:
        left = min(left, limit) if limit else left
        return Progress("training" if total else "active", standing, 0, 0, limit, 0, total, left=left)
    result = training.result(db, study.id, rater, person.attempt)
    at_hand = db.scalar(_AT_HAND, {"study": study.id, "rater": rater}) or 0
    left = min(left + at_hand, limit - person.done) if limit else left + at_hand
    counts = person.judged, person.done, limit, result.answered, total, result.right
    return Progress(person.state, standing, *counts, left=max(0, left))


def _standing(db: sa.Connection, study: Study, person: Any | None, rater: str) -> Standing:
    if study.state != "open":
        return "study closed" if study.state == "closed" else "study paused"
    if person is None:
        return "go on" if pool.size(db, study.id, rater) > 0 else "nothing left"
    if person.state in ("failed", "removed"):
        return "removed" if person.state == "removed" else "not qualified"
    if person.state == "training" or _held(db, study, rater) is not None:
        return "go on"
    if study.settings.limit and person.done >= study.settings.limit:
        return "limit reached"
    return "go on" if pool.size(db, study.id, rater) > 0 else "nothing left"


def set_rater_state(
    db: sa.Connection, name: str, rater: str, state: Literal["training", "active", "failed", "removed"], now: float
) -> None:
    """See `Store.set_rater_state`. Back to training means another attempt."""
    if state not in ("training", "active", "failed", "removed"):
        raise ConfigError(f"a rater is training, active, failed or removed, not {state!r}")
    study = studies.find(db, name)
    person = join(db, study, rater, now)
    attempt = person.attempt + (state == "training" and person.state != "training")
    locks.set_person(db, study.id, rater, state=state, attempt=attempt)
