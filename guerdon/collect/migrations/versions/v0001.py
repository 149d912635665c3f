"""The first form of the database: tables, indexes, and the triggers that make judgements and audit append-only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Everything is new."""
    _tables()
    for table in ("judgement", "audit"):
        _append_only(table)


def _append_only(table: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
    )


def _tables() -> None:
    op.create_table(
        "login_attempt",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_login_attempt"),
    )
    op.create_index("ix_login_attempt_address_at", "login_attempt", ["address", "at"], unique=False)
    op.create_index("ix_login_attempt_name_at", "login_attempt", ["name", "at"], unique=False)
    op.create_table(
        "person",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_person"),
        sa.UniqueConstraint("name", name="uq_person_name"),
    )
    op.create_table(
        "study",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("state", sa.String(length=10), server_default="open", nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("name", name="uq_study_name"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("person", sa.String(length=80), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("study", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_audit_study"),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_at", "audit", ["at"], unique=False)
    op.create_table(
        "cost",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(length=120), nullable=False),
        sa.Column("purpose", sa.String(length=12), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("requests", sa.Integer(), server_default="0", nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dollars", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_cost_study"),
        sa.PrimaryKeyConstraint("id", name="pk_cost"),
    )
    op.create_index("ix_cost_study_rater", "cost", ["study", "rater"], unique=False)
    op.create_table(
        "counter",
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_counter_study"),
        sa.PrimaryKeyConstraint("study", "name", name="pk_counter"),
    )
    op.create_table(
        "guideline",
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), server_default="", nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_guideline_study"),
        sa.PrimaryKeyConstraint("study", "version", name="pk_guideline"),
    )
    op.create_table(
        "invitation",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("study", sa.Integer(), nullable=True),
        sa.Column("author", sa.Integer(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("uses", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["author"], ["person.id"], name="fk_invitation_author"),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_invitation_study"),
        sa.PrimaryKeyConstraint("digest", name="pk_invitation"),
    )
    op.create_table(
        "membership",
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("person", sa.Integer(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name="fk_membership_person"),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_membership_study"),
        sa.PrimaryKeyConstraint("study", "person", name="pk_membership"),
    )
    op.create_index("ix_membership_person", "membership", ["person"], unique=False)
    op.create_table(
        "participant",
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(length=120), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("joined", sa.Float(), nullable=False),
        sa.Column("judged", sa.Integer(), server_default="0", nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("open_seen", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("positions", sa.Text(), server_default="{}", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_participant_study"),
        sa.PrimaryKeyConstraint("study", "rater", name="pk_participant"),
    )
    op.create_table(
        "question",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("models", sa.Text(), server_default="[]", nullable=False),
        sa.Column("source", sa.Text(), server_default="", nullable=False),
        sa.Column("digest", sa.String(length=32), nullable=False),
        sa.Column("draw", sa.Float(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("answered", sa.Integer(), server_default="0", nullable=False),
        sa.Column("locked", sa.Integer(), server_default="0", nullable=False),
        sa.Column("refused", sa.Integer(), server_default="0", nullable=False),
        sa.Column("positions", sa.Text(), server_default="[]", nullable=False),
        sa.Column("added", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_question_study"),
        sa.PrimaryKeyConstraint("id", name="pk_question"),
        sa.UniqueConstraint("study", "digest", name="uq_question_study_digest"),
        sa.UniqueConstraint("study", "name", name="uq_question_study_name"),
    )
    op.create_index("ix_question_pool", "question", ["study", "kind", "open", "draw"], unique=False)
    op.create_table(
        "session",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("person", sa.Integer(), nullable=False),
        sa.Column("csrf", sa.String(length=64), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("seen", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name="fk_session_person"),
        sa.PrimaryKeyConstraint("digest", name="pk_session"),
    )
    op.create_index("ix_session_person", "session", ["person"], unique=False)
    op.create_table(
        "settings",
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), server_default="", nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_settings_study"),
        sa.PrimaryKeyConstraint("study", "version", name="pk_settings"),
    )
    op.create_table(
        "assignment",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("question", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(length=120), nullable=False),
        sa.Column("round", sa.Integer(), server_default="0", nullable=False),
        sa.Column("display", sa.Text(), nullable=False),
        sa.Column("arm", sa.String(length=12), nullable=False),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("guideline", sa.Integer(), server_default="0", nullable=False),
        sa.Column("given", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("item", sa.Integer(), server_default="0", nullable=False),
        sa.Column("judgement", sa.Text(), server_default="", nullable=False),
        sa.Column("replaces", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["question"], ["question.id"], name="fk_assignment_question"),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_assignment_study"),
        sa.PrimaryKeyConstraint("id", name="pk_assignment"),
        sa.UniqueConstraint("question", "rater", "round", name="uq_assignment_question_rater_round"),
    )
    op.create_index(
        "ix_assignment_live",
        "assignment",
        ["study", "expires"],
        unique=False,
        sqlite_where=sa.text("state = 'live'"),
        postgresql_where=sa.text("state = 'live'"),
    )
    op.create_index(
        "ix_assignment_training",
        "assignment",
        ["study", "rater", "round"],
        unique=False,
        sqlite_where=sa.text("arm = 'training'"),
        postgresql_where=sa.text("arm = 'training'"),
    )
    op.create_index("ix_assignment_rater", "assignment", ["study", "rater", "state", "item"], unique=False)
    op.create_table(
        "gold",
        sa.Column("question", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ranks", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["question"], ["question.id"], name="fk_gold_question"),
        sa.PrimaryKeyConstraint("question", name="pk_gold"),
    )
    op.create_table(
        "masked",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("question", sa.Integer(), nullable=False),
        sa.Column("place", sa.String(length=40), nullable=False),
        sa.Column("word", sa.Text(), nullable=False),
        sa.Column("times", sa.Integer(), server_default="0", nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["question"], ["question.id"], name="fk_masked_question"),
        sa.PrimaryKeyConstraint("id", name="pk_masked"),
    )
    op.create_index("ix_masked_question", "masked", ["question"], unique=False)
    op.create_table(
        "priority",
        sa.Column("question", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("arm", sa.String(length=12), nullable=False),
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["question"], ["question.id"], name="fk_priority_question"),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_priority_study"),
        sa.PrimaryKeyConstraint("question", "arm", name="pk_priority"),
    )
    op.create_index("ix_priority_order", "priority", ["study", "arm", "value"], unique=False)
    op.create_table(
        "judgement",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("question", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(length=120), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("display", sa.Text(), nullable=False),
        sa.Column("answer", sa.String(length=8), nullable=False),
        sa.Column("ranks", sa.Text(), server_default="[]", nullable=False),
        sa.Column("strength", sa.Float(), nullable=True),
        sa.Column("attributes", sa.Text(), server_default="{}", nullable=False),
        sa.Column("rationale", sa.Text(), server_default="", nullable=False),
        sa.Column("edited", sa.Text(), server_default="", nullable=False),
        sa.Column("shown_at", sa.Float(), nullable=True),
        sa.Column("first_input_at", sa.Float(), nullable=True),
        sa.Column("submitted_at", sa.Float(), nullable=True),
        sa.Column("guideline", sa.Integer(), server_default="0", nullable=False),
        sa.Column("replaces", sa.String(length=64), nullable=True),
        sa.Column("arm", sa.String(length=12), nullable=False),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("assignment", sa.Integer(), nullable=True),
        sa.Column("late", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("received", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["assignment"], ["assignment.id"], name="fk_judgement_assignment"),
        sa.ForeignKeyConstraint(["question"], ["question.id"], name="fk_judgement_question"),
        sa.ForeignKeyConstraint(["replaces"], ["judgement.id"], name="fk_judgement_replaces"),
        sa.ForeignKeyConstraint(["study"], ["study.id"], name="fk_judgement_study"),
        sa.PrimaryKeyConstraint("seq", name="pk_judgement"),
        sa.UniqueConstraint("id", name="uq_judgement_id"),
        sa.UniqueConstraint("replaces", name="uq_judgement_replaces"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_judgement_question", "judgement", ["question"], unique=False)
    op.create_index("ix_judgement_rater", "judgement", ["study", "rater", "seq"], unique=False)
    op.create_index("ix_judgement_study", "judgement", ["study", "seq"], unique=False)
