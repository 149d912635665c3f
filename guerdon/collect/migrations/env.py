"""Alembic's entry: run on the connection that `migrate` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from guerdon.collect.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
