"""Bring a database to the form this version needs: Alembic's migrations, run inside the transaction of whoever opens it."""

from __future__ import annotations

from functools import cache

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from guerdon.types import ConfigError

FOLDER = "guerdon.collect:migrations"
ABSENT = (
    "there is no such database of studies; check the address, or make one: guerdon collect create STUDY --database ..."
)


def form_of(connection: sa.Connection) -> str | None:
    """The revision that a database is at; None for one that we have not filled."""
    return MigrationContext.configure(connection).get_current_revision()


@cache
def newest() -> str | None:
    """The revision that this version needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", FOLDER)
    return config


def migrate(connection: sa.Connection, make: bool = True) -> None:
    """Run the migrations that are missing. Raises ConfigError for a database of a newer version, or of something else, and
    for an empty one unless `make`."""
    config = _config()
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    current = form_of(connection)
    if current == script.get_current_head():
        return
    if current is None and (tables := sa.inspect(connection).get_table_names()):
        raise ConfigError(
            f"holds tables of something else ({', '.join(sorted(tables)[:3])}, ...); name an empty or a new database"
        )
    if current is None and not make:
        raise ConfigError(ABSENT)
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        raise ConfigError(
            f"was written by a newer version of guerdon (its form is {current!r}); update guerdon, or open a backup "
            "made before the update"
        )
    command.upgrade(config, "head")
