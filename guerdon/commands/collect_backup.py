"""guerdon collect backup: a checked copy of the database, also while raters work."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional


def collect_backup(to: Positional[str], database: str = "study.db", overwrite: bool = False) -> None:
    """Copy the whole database to a file, while raters go on; only a complete and checked copy gets that name.

    Args:
        to: The file to write: an SQLite database, or for PostgreSQL what pg_restore reads.
        database: SQLite file, or postgresql://USER:PASSWORD@HOST/NAME.
        overwrite: Take the place of a file that is there already.
    """
    from guerdon.collect.backup import backup

    size = backup(database, Path(to), overwrite)
    print(f"{to}: {size:,} bytes, complete and checked")
