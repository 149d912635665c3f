"""Studies, their settings and guidelines (both versioned), and their totals."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_args

import sqlalchemy as sa

from guerdon.collect import schema
from guerdon.collect.records import Counts, Study, StudyState
from guerdon.collect.settings import Settings
from guerdon.types import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_settings_of = lru_cache(maxsize=256)(Settings.from_json)
_GUIDELINE = sa.select(sa.func.max(schema.guideline.c.version)).where(schema.guideline.c.study == schema.study.c.id)
_STUDIES = (
    sa.select(schema.study, schema.settings.c.version, schema.settings.c.body)
    .add_columns(_GUIDELINE.scalar_subquery().label("guideline"))
    .join(schema.settings, schema.settings.c.study == schema.study.c.id)
    .order_by(schema.study.c.id, schema.settings.c.version.desc())
)
_STUDY = _STUDIES.where(schema.study.c.name == sa.bindparam("name")).limit(1)
_COUNTER = sa.select(schema.counter.c.value).where(
    schema.counter.c.study == sa.bindparam("study"), schema.counter.c.name == sa.bindparam("name")
)
_COUNT = sa.text(
    "INSERT INTO counter (study, name, value) VALUES (:study, :name, :value) "
    "ON CONFLICT (study, name) DO UPDATE SET value = counter.value + excluded.value"
)


def create(db: sa.Connection, name: str, settings: Settings, author: str) -> Study:
    """A new, open study with the first version of its settings. Raises ConfigError for a name that is taken or is none."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a study; write letters, digits, '-', '_' and '.', at most 80")
    if name == "new":  # the page that makes a study has this address
        raise ConfigError("a study cannot be called 'new'; choose another name")
    if db.execute(sa.select(schema.study.c.id).where(schema.study.c.name == name)).first():
        raise ConfigError(f"there is a study {name!r} already; choose another name, or go on with it")
    db.execute(schema.study.insert().values(name=name, state="open", created=time.time()))
    number = db.scalars(sa.select(schema.study.c.id).where(schema.study.c.name == name)).one()
    _add_version(db, schema.settings, number, settings.to_json(), author)
    return find(db, name)


def find(db: sa.Connection, name: str) -> Study:
    """The study with its latest settings. Raises ConfigError when there is none of that name."""
    row = db.execute(_STUDY, {"name": name}).first()
    if row is None:
        names = [study.name for study in every(db)]
        known = f"there are {', '.join(names)}" if names else "there is none yet; make one: guerdon collect create"
        raise ConfigError(f"there is no study {name!r}; {known}")
    return _study(row)


def every(db: sa.Connection) -> list[Study]:
    found: dict[int, Study] = {}
    for row in db.execute(_STUDIES):
        found.setdefault(row.id, _study(row))
    return list(found.values())


def _study(row: Any) -> Study:
    return Study(row.id, row.name, row.state, _settings_of(row.body), row.version, row.guideline or 0)


def set_state(db: sa.Connection, name: str, state: StudyState) -> None:
    if state not in get_args(StudyState):
        raise ConfigError(f"a study is {', '.join(get_args(StudyState))}, not {state!r}")
    study = find(db, name)
    db.execute(schema.study.update().where(schema.study.c.id == study.id).values(state=state))


def change_settings(db: sa.Connection, name: str, settings: Settings, author: str) -> int:
    """A new version; which questions are open is worked out anew, because the overlap may be another."""
    study = find(db, name)
    version = _add_version(db, schema.settings, study.id, settings.to_json(), author)
    reopen(db, study.id, settings)
    return version


def attributes(db: sa.Connection, name: str) -> tuple[str, ...]:
    """What answers were or are rated on: the attributes of every version of the settings."""
    table = schema.settings
    bodies = db.scalars(sa.select(table.c.body).where(table.c.study == find(db, name).id).order_by(table.c.version))
    return tuple(dict.fromkeys(one for body in bodies for one in _settings_of(body).attributes))


def add_guideline(db: sa.Connection, name: str, text: str, author: str) -> int:
    return _add_version(db, schema.guideline, find(db, name).id, text, author)


def guideline(db: sa.Connection, name: str, version: int | None) -> tuple[int, str]:
    """(version, text) of the guideline of a study, the newest unless `version` is given; (0, "") without any."""
    table = schema.guideline
    query = sa.select(table.c.version, table.c.body).where(table.c.study == find(db, name).id)
    if version is not None:
        query = query.where(table.c.version == version)
    row = db.execute(query.order_by(table.c.version.desc()).limit(1)).first()
    return (row.version, row.body) if row else (0, "")


def _add_version(db: sa.Connection, table: sa.Table, study: int, body: str, author: str) -> int:
    last = db.scalar(sa.select(sa.func.max(table.c.version)).where(table.c.study == study)) or 0
    db.execute(table.insert().values(study=study, version=last + 1, body=body, author=author, created=time.time()))
    return last + 1


def count(db: sa.Connection, study: int, changes: Mapping[str, int]) -> None:
    """Add to the counters of a study, within the transaction of what is counted."""
    rows = [{"study": study, "name": name, "value": value} for name, value in changes.items() if value]
    if rows:
        db.execute(_COUNT, rows)


def counter(db: sa.Connection, study: int, name: str) -> int:
    return db.scalar(_COUNTER, {"study": study, "name": name}) or 0


def counts(db: sa.Connection, name: str) -> Counts:
    """The totals of a study, read from its counters. Raises ConfigError for a study that does not exist."""
    table = schema.counter
    rows = db.execute(sa.select(table.c.name, table.c.value).where(table.c.study == find(db, name).id)).all()
    plain = {row.name: row.value for row in rows if ":" not in row.name}
    groups: dict[str, dict[str, int]] = {}
    for row in rows:
        group, colon, key = row.name.partition(":")
        if colon:
            groups.setdefault(group, {})[key] = row.value
    return Counts(
        questions=groups.get("questions", {}),
        open=plain.get("open", 0),
        judgements=plain.get("judgements", 0),
        replaced=plain.get("replaced", 0),
        late=plain.get("late", 0),
        answers=groups.get("answer", {}),
        arms=groups.get("arm", {}),
        raters=groups.get("rater", {}),
        hours=dict(sorted(groups.get("hour", {}).items())),
    )


def reopen(db: sa.Connection, study: int, settings: Settings) -> None:
    """Work out anew which ordinary questions are open, and all that is counted about it."""
    q, a, p = schema.question.c, schema.assignment.c, schema.participant.c
    ordinary = (q.study == study) & (q.kind == "normal")
    wanted = (q.answered + q.locked < settings.overlap) & (q.refused < settings.give_up)
    db.execute(schema.question.update().where(ordinary).values(open=wanted))
    total = db.scalar(sa.select(sa.func.count()).select_from(schema.question).where(ordinary, q.open)) or 0
    count(db, study, {"open": total - counter(db, study, "open")})
    seen = (
        sa.select(sa.func.count())
        .select_from(schema.assignment.join(schema.question, a.question == q.id))
        .where(a.study == study, a.rater == p.rater, a.round == 0, a.state != "expired", ordinary, q.open)
        .scalar_subquery()
    )
    db.execute(schema.participant.update().where(p.study == study).values(open_seen=seen))
