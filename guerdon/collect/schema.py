"""The tables of the database, for SQLite and PostgreSQL alike.

Times are seconds since 1970 (UTC). Lists and mappings are JSON texts. `judgement` and `audit` are append-only: triggers
refuse every UPDATE and DELETE. Everything else is bookkeeping that could be rebuilt from them and from the imports.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
APPEND_ONLY = ("judgement", "audit")


def _key() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


def _study(primary_key: bool = False) -> Column[int]:
    return Column("study", Integer, ForeignKey("study.id"), nullable=False, primary_key=primary_key)


def _text(name: str, default: str = "") -> Column[str]:
    return Column(name, Text, nullable=False, server_default=default)


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default="0")


study = Table(
    "study",
    metadata,
    _key(),
    Column("name", String(80), nullable=False, unique=True),
    Column("state", String(10), nullable=False, server_default="open"),  # open | paused | closed
    Column("created", Float, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    _study(primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    _text("author"),
    Column("created", Float, nullable=False),
)

guideline = Table(
    "guideline",
    metadata,
    _study(primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),  # 1, 2, ...
    Column("body", Text, nullable=False),  # Markdown
    _text("author"),
    Column("created", Float, nullable=False),
)

question = Table(
    "question",
    metadata,
    _key(),
    _study(),
    Column("name", Text, nullable=False),  # Question.id
    Column("kind", String(10), nullable=False),  # normal | gold | attention | training
    Column("k", Integer, nullable=False),
    Column("body", Text, nullable=False),  # {"prompt": [...], "completions": [[...], ...]}
    _text("models", "[]"),
    _text("source"),
    Column("digest", String(32), nullable=False),  # of prompt and the set of completions: finds duplicates
    Column("draw", Float, nullable=False),  # its place in the random order of the study
    Column("open", Boolean, nullable=False),  # normal: wants another rater; others: always
    _count("answered"),  # current human judgements that count for the overlap
    _count("locked"),  # live assignments
    _count("refused"),  # raters who skipped or flagged it
    _text("positions", "[]"),  # [candidate][position] -> how often it was put there
    Column("added", Float, nullable=False),
    UniqueConstraint("study", "name"),
    UniqueConstraint("study", "digest"),
    Index("ix_question_pool", "study", "kind", "open", "draw"),
)

gold = Table(
    "gold",  # what is right, apart from the question so that nothing sent to a rater can hold it
    metadata,
    Column("question", Integer, ForeignKey("question.id"), primary_key=True, autoincrement=False),
    Column("ranks", Text, nullable=False),
    _text("why"),  # feedback after a training item
)

priority = Table(
    "priority",
    metadata,
    Column("question", Integer, ForeignKey("question.id"), primary_key=True, autoincrement=False),
    Column("arm", String(12), primary_key=True),
    _study(),
    Column("value", Float, nullable=False),  # higher is asked sooner
    Column("updated", Float, nullable=False),
    Index("ix_priority_order", "study", "arm", "value"),
)

masked = Table(
    "masked",  # identity words hidden from raters, and where they stood
    metadata,
    _key(),
    Column("question", Integer, ForeignKey("question.id"), nullable=False, index=True),
    Column("place", String(40), nullable=False),  # prompt or candidate:I
    Column("word", Text, nullable=False),
    _count("times"),
    Column("at", Float, nullable=False),
)

participant = Table(
    "participant",  # a rater in a study
    metadata,
    _study(primary_key=True),
    Column("rater", String(120), primary_key=True),
    Column("state", String(10), nullable=False),  # training | active | failed | removed
    Column("joined", Float, nullable=False),
    _count("judged"),  # items judged, of every kind but training
    _count("done"),  # ordinary questions judged
    _count("open_seen"),  # open ordinary questions that were given to this rater already
    _count("attempt"),  # of the training
    _text("positions", "{}"),  # K -> [candidate][position] -> how often
    _text("note"),  # a lead's remark on the review list
)

assignment = Table(
    "assignment",
    metadata,
    _key(),
    _study(),
    Column("question", Integer, ForeignKey("question.id"), nullable=False),
    Column("rater", String(120), nullable=False),
    _count("round"),  # 0 first, 1 the repeat; attempt number for training
    Column("display", Text, nullable=False),  # display[p] is the candidate shown at position p
    Column("arm", String(12), nullable=False),
    Column("probability", Float),
    _count("guideline"),
    Column("given", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("state", String(8), nullable=False),  # live | done | expired
    _count("item"),  # how many items the rater had judged when it was answered
    _text("judgement"),  # id of the current judgement, "" before the first
    _text("replaces"),  # live after an undo: the judgement that the next one replaces
    UniqueConstraint("question", "rater", "round"),
    Index("ix_assignment_rater", "study", "rater", "state", "item"),
    Index(
        "ix_assignment_live",
        "study",
        "expires",
        sqlite_where=sa.text("state = 'live'"),
        postgresql_where=sa.text("state = 'live'"),
    ),
    Index(
        "ix_assignment_training",
        "study",
        "rater",
        "round",
        sqlite_where=sa.text("arm = 'training'"),
        postgresql_where=sa.text("arm = 'training'"),
    ),
)

judgement = Table(
    "judgement",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),  # order of arrival
    Column("id", String(64), nullable=False, unique=True),  # made by the rater's client
    _study(),
    Column("question", Integer, ForeignKey("question.id"), nullable=False, index=True),
    Column("rater", String(120), nullable=False),
    Column("kind", String(8), nullable=False),  # human | model
    Column("display", Text, nullable=False),
    Column("answer", String(8), nullable=False),  # ranked | all_bad | skip | flag
    _text("ranks", "[]"),
    Column("strength", Float),
    _text("attributes", "{}"),
    _text("rationale"),
    _text("edited"),
    Column("shown_at", Float),
    Column("first_input_at", Float),
    Column("submitted_at", Float),
    _count("guideline"),
    Column("replaces", String(64), ForeignKey("judgement.id"), unique=True),
    Column("arm", String(12), nullable=False),
    Column("probability", Float),
    Column("assignment", Integer, ForeignKey("assignment.id")),
    Column("late", Boolean, nullable=False, server_default=sa.false()),  # its lock had expired
    Column("received", Float, nullable=False),
    Index("ix_judgement_study", "study", "seq"),
    Index("ix_judgement_rater", "study", "rater", "seq"),
    sqlite_autoincrement=True,  # a number is never used twice
)

counter = Table(
    "counter",  # totals, kept in the transaction of the event they count
    metadata,
    _study(primary_key=True),
    Column("name", String(130), primary_key=True),
    Column("value", Integer, nullable=False),
)

cost = Table(
    "cost",  # what AI raters and generators spent
    metadata,
    _key(),
    _study(),
    Column("rater", String(120), nullable=False),
    Column("purpose", String(12), nullable=False),  # rate | generate
    Column("at", Float, nullable=False),
    _count("requests"),
    _count("prompt_tokens"),
    _count("completion_tokens"),
    Column("dollars", Float),  # None when no price is known
    Index("ix_cost_study_rater", "study", "rater"),
)

user = Table(
    "person",  # `user` is a reserved word of PostgreSQL
    metadata,
    _key(),
    Column("name", String(80), nullable=False, unique=True),
    Column("role", String(8), nullable=False),  # admin | lead | rater
    Column("password", Text, nullable=False),  # argon2 hash
    Column("active", Boolean, nullable=False, server_default=sa.true()),
    Column("created", Float, nullable=False),
    Column("folded", String(240), nullable=False, server_default=""),  # names.folded: whom a typed name means
    Index("ix_person_folded", "folded", unique=True),
)

membership = Table(
    "membership",  # which studies a lead or rater sees
    metadata,
    _study(primary_key=True),
    Column("person", Integer, ForeignKey("person.id"), primary_key=True, autoincrement=False, index=True),
)

invitation = Table(
    "invitation",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the token in the link
    Column("role", String(8), nullable=False),
    Column("study", Integer, ForeignKey("study.id")),
    Column("author", Integer, ForeignKey("person.id")),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("uses", Integer, nullable=False, server_default="1"),  # how many people may still use it
)

session = Table(
    "session",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the cookie
    Column("person", Integer, ForeignKey("person.id"), nullable=False, index=True),
    Column("csrf", String(64), nullable=False),
    Column("created", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Column("expires", Float, nullable=False),
)

login_attempt = Table(
    "login_attempt",
    metadata,
    _key(),
    Column("name", String(80), nullable=False),  # names.folded
    Column("address", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("ok", Boolean, nullable=False),
    Index("ix_login_attempt_name_at", "name", "at"),
    Index("ix_login_attempt_address_at", "address", "at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("person", String(80), nullable=False),
    Column("action", String(40), nullable=False),
    Column("study", Integer, ForeignKey("study.id")),
    _text("detail", "{}"),
    Index("ix_audit_at", "at"),
    sqlite_autoincrement=True,
)
