"""Questions into a study and out of it: as JSON, without duplicates, each at a random place of the study's order."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import sqlalchemy as sa

from guerdon.collect import schema, studies
from guerdon.collect.database import Database
from guerdon.collect.order import empty
from guerdon.collect.records import Added, QuestionKind, Study
from guerdon.types import ConfigError, Question

CHUNK = 500  # rows per transaction or per read
FEWEST, MOST = 2, 9  # candidates of a question: as many as the screen has keys for


def dump(value: Any) -> str:
    """JSON as it is stored: short, in Unicode, the same text for the same value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def body_of(question: Question) -> str:
    return dump({"prompt": question.prompt, "completions": question.completions})


def digest_of(question: Question) -> str:
    """What makes two questions the same: the prompt and the candidates, in whatever order they come."""
    parts = [dump(question.prompt), *sorted(dump(completion) for completion in question.completions)]
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def question_of(row: Any) -> Question:
    """The question of a row of its table."""
    body = json.loads(row.body)
    return Question(
        prompt=tuple(body["prompt"]),
        completions=tuple(map(tuple, body["completions"])),
        models=tuple(json.loads(row.models)),
        source=row.source,
        id=row.name,
    )


def add(
    database: Database,
    name: str,
    new: Iterable[Question],
    gold: Mapping[str, Sequence[float]],
    why: Mapping[str, str],
    kind: QuestionKind,
) -> Added:
    """See `Store.add_questions`. Each chunk is a transaction of its own: what an interrupted import left, the next one finishes."""
    if kind not in get_args(QuestionKind):
        raise ConfigError(f"questions are {', '.join(get_args(QuestionKind))}, not {kind!r}")
    if kind == "normal" and gold:
        raise ConfigError("ordinary questions have no known answer; add these as gold, attention or training")
    added = duplicates = wrong = 0
    rows = iter(new)
    while chunk := list(itertools.islice(rows, CHUNK)):
        ready = [(question, _ranks(question, gold, kind)) for question in chunk]
        one = database.write(lambda db, ready=ready: _add_chunk(db, studies.find(db, name), ready, why, kind))  # type: ignore[misc]
        added, duplicates, wrong = added + one.added, duplicates + one.duplicates, wrong + one.wrong_size
    return Added(added, duplicates, wrong)


def _ranks(question: Question, gold: Mapping[str, Sequence[float]], kind: QuestionKind) -> Sequence[float]:
    if kind == "normal":
        return ()
    ranks = gold.get(question.id, ())
    if len(ranks) != len(question.completions):
        raise ConfigError(
            f"{question.id}: a question of kind {kind} needs {len(question.completions)} known ranks, got {len(ranks)}"
        )
    if len(set(ranks)) < 2:
        raise ConfigError(
            f"{question.id}: the known ranks are all equal, so no answer would be wrong; give a clear case"
        )
    return ranks


def _add_chunk(
    db: sa.Connection,
    study: Study,
    ready: list[tuple[Question, Sequence[float]]],
    why: Mapping[str, str],
    kind: QuestionKind,
) -> Added:
    table, k = schema.question, study.settings.k
    sized = [
        pair for pair in ready if FEWEST <= len(pair[0].completions) <= MOST and k in (0, len(pair[0].completions))
    ]
    fitting = {digest_of(question): (question, ranks) for question, ranks in reversed(sized)}
    wrong = len(ready) - len(sized)
    in_study = table.c.study == study.id
    here = set(db.scalars(sa.select(table.c.digest).where(in_study, table.c.digest.in_(fitting))))
    fresh = {digest: pair for digest, pair in reversed(fitting.items()) if digest not in here}
    _require_free_names(db, study, [question.id for question, _ in fresh.values()])
    if fresh:
        db.execute(table.insert(), [_row(study, kind, digest, question) for digest, (question, _) in fresh.items()])
    if kind != "normal" and fresh:
        known = sa.select(table.c.id, table.c.digest).where(in_study, table.c.digest.in_(fresh))
        db.execute(
            schema.gold.insert(),
            [
                {
                    "question": row.id,
                    "ranks": dump(list(fresh[row.digest][1])),
                    "why": why.get(fresh[row.digest][0].id, ""),
                }
                for row in db.execute(known)
            ],
        )
    studies.count(db, study.id, {f"questions:{kind}": len(fresh), "open": len(fresh) if kind == "normal" else 0})
    return Added(len(fresh), len(ready) - wrong - len(fresh), wrong)


def _require_free_names(db: sa.Connection, study: Study, names: list[str]) -> None:
    table = schema.question
    taken = db.scalar(sa.select(table.c.name).where(table.c.study == study.id, table.c.name.in_(names)).limit(1))
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if taken is not None or twice:
        raise ConfigError(
            f"study {study.name!r} has another question with the id {taken or min(twice)!r}; give ids that tell them apart"
        )


def _row(study: Study, kind: QuestionKind, digest: str, question: Question) -> dict[str, Any]:
    k = len(question.completions)
    return {
        "study": study.id,
        "name": question.id,
        "kind": kind,
        "k": k,
        "body": body_of(question),
        "models": dump(list(question.models)),
        "source": question.source,
        "digest": digest,
        "draw": random.Random(f"{study.settings.seed}:{digest}").random(),
        "open": True,
        "positions": dump(empty(k)),
        "added": time.time(),
    }


def every(database: Database, name: str, kind: QuestionKind | None) -> Iterator[Question]:
    """See `Store.questions`."""
    table = schema.question
    study = database.read(lambda db: studies.find(db, name))
    query = sa.select(table).where(table.c.study == study.id).order_by(table.c.id).limit(CHUNK)
    if kind is not None:
        query = query.where(table.c.kind == kind)
    last = 0
    while rows := database.read(lambda db, last=last: db.execute(query.where(table.c.id > last)).all()):  # type: ignore[misc]
        yield from map(question_of, rows)
        last = rows[-1].id


def unrated(database: Database, name: str, rater: str, kind: QuestionKind) -> Iterator[Question]:
    """See `Store.unrated`."""
    table, judged = schema.question, schema.judgement.c
    study = database.read(lambda db: studies.find(db, name))
    rated = sa.exists().where(judged.question == table.c.id, judged.rater == rater)
    query = sa.select(table).where(table.c.study == study.id, table.c.kind == kind, ~rated)
    query = query.order_by(table.c.draw).limit(CHUNK)
    last = -1.0
    while rows := database.read(lambda db, last=last: db.execute(query.where(table.c.draw > last)).all()):  # type: ignore[misc]
        yield from map(question_of, rows)
        last = rows[-1].draw


def gold_of(db: sa.Connection, name: str) -> dict[str, tuple[float, ...]]:
    """See `Store.gold`."""
    q, g = schema.question.c, schema.gold
    query = sa.select(q.name, g.c.ranks).join(g, g.c.question == q.id).where(q.study == studies.find(db, name).id)
    return {row.name: tuple(json.loads(row.ranks)) for row in db.execute(query)}


def set_priorities(database: Database, name: str, arm: str, values: Mapping[str, float]) -> None:
    """See `Store.set_priorities`. One transaction, so that `next` never sees half of the values."""

    def work(db: sa.Connection) -> None:
        study, table = studies.find(db, name), schema.priority
        db.execute(table.delete().where(table.c.study == study.id, table.c.arm == arm))
        names = list(values)
        for start in range(0, len(names), CHUNK):
            some = names[start : start + CHUNK]
            q = schema.question.c
            ids = db.execute(sa.select(q.id, q.name).where(q.study == study.id, q.name.in_(some))).all()
            now = time.time()
            if ids:
                db.execute(
                    table.insert(),
                    [
                        {"question": i.id, "arm": arm, "study": study.id, "value": values[i.name], "updated": now}
                        for i in ids
                    ],
                )

    database.write(work)


def note_masked(db: sa.Connection, assignment: int, found: Sequence[tuple[str, str]], now: float) -> None:
    """Log the identity words that were hidden in an assignment's question: (place, word) pairs, once per question."""
    number = sa.select(schema.assignment.c.question).where(schema.assignment.c.id == assignment).scalar_subquery()
    question = db.scalar(sa.select(number))
    if question is None or db.scalar(
        sa.select(schema.masked.c.id).where(schema.masked.c.question == question).limit(1)
    ):
        return
    rows = [
        {"question": question, "place": place, "word": word, "times": times, "at": now}
        for (place, word), times in Counter(found).items()
    ]
    db.execute(schema.masked.insert(), rows)


def masked(db: sa.Connection, name: str) -> list[tuple[str, str, str, int]]:
    """What was hidden from raters in a study: (question id, place, word, times), by question."""
    at, question = schema.masked, schema.question
    query = (
        sa.select(question.c.name, at.c.place, at.c.word, at.c.times)
        .join_from(at, question)
        .where(question.c.study == studies.find(db, name).id)
        .order_by(at.c.id)
    )
    return [(row[0], row[1], row[2], row[3]) for row in db.execute(query)]
