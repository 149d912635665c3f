"""Which question an active arm puts next: the open one with the highest priority that the rater has not had."""

from __future__ import annotations

import random

import sqlalchemy as sa

from guerdon.collect import pool, schema
from guerdon.collect.records import Study


def choose(db: sa.Connection, study: Study, rater: str, arm: str, rng: random.Random) -> tuple[int, float] | None:
    """(question, probability) by the priorities of this arm; None when they name no question that is left."""
    q, priority = schema.question.c, schema.priority
    query = (
        sa.select(q.id)
        .join(priority, priority.c.question == q.id)
        .where(priority.c.study == study.id, priority.c.arm == arm, pool.is_open(study.id), pool.unseen(rater))
        .order_by(priority.c.value.desc(), q.id)
        .limit(1)
    )
    found = db.scalar(query)
    return None if found is None else (found, 1.0)
