"""Accounts are found by their name without capitals, in every script, and two of the same name stop the migration; the counters
of raters hold the whole name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from guerdon.collect.names import folded
from guerdon.types import ConfigError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """person.folded, filled from the names; counters of raters, counted anew."""
    _fold()
    with op.batch_alter_table("counter") as counter:
        counter.alter_column("name", existing_type=sa.String(length=60), type_=sa.String(length=130), nullable=False)
    op.execute("DELETE FROM counter WHERE name LIKE 'rater:%'")
    op.execute(
        "INSERT INTO counter (study, name, value) "
        "SELECT study, 'rater:' || rater, count(*) FROM judgement GROUP BY study, rater"
    )


def _fold() -> None:
    op.add_column("person", sa.Column("folded", sa.String(length=240), server_default="", nullable=False))
    person = sa.table("person", sa.column("id"), sa.column("name"), sa.column("folded"))
    seen: dict[str, str] = {}
    for number, name in op.get_bind().execute(sa.select(person.c.id, person.c.name).order_by(person.c.id)).all():
        key = folded(name)
        if key in seen:
            raise ConfigError(
                f"accounts '{seen[key]}' and '{name}' differ in capitals or spelling only, so neither can be told from the "
                f"other; rename one in the database: UPDATE person SET name = 'ANOTHER NAME' WHERE id = {number}"
            )
        seen[key] = name
        op.execute(sa.update(person).where(person.c.id == number).values(folded=key))
    op.create_index("ix_person_folded", "person", ["folded"], unique=True)
