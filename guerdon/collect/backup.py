"""A copy of the whole database while raters go on working: complete, checked, and only then under its name."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import sqlalchemy as sa

from guerdon.collect.database import parse, public
from guerdon.data.database import read_only
from guerdon.files import replacing
from guerdon.types import ConfigError


def backup(url: str, target: Path, overwrite: bool = False) -> int:
    """Write a backup of the database at `url` to the file `target` and return its size in bytes.

    SQLite: its online backup, then its integrity check and a count of the judgements. PostgreSQL: pg_dump in its own
    (compressed) form, for pg_restore. Raises ConfigError when it cannot be made, when `target` is there already and not to be
    overwritten, or when its folder is not there; nothing is left behind then.
    """
    parsed = parse(url)
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder; name a file")
    source = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
    if source is not None and not source.is_file():
        raise ConfigError(f"{source}: no such database; name the one that the study is in")
    if source is not None and target.exists() and target.samefile(source):
        raise ConfigError(f"{target}: is the database itself; name another file for the backup")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists; remove it, choose another name, or overwrite it (--overwrite)")
    with replacing(target) as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # for its owner alone, like the database
        if source is not None:
            _copy_sqlite(source, temporary)
        else:
            _dump_postgresql(parsed, temporary)
    return target.stat().st_size


def _copy_sqlite(source: Path, target: Path) -> None:
    try:
        with (
            contextlib.closing(sqlite3.connect(read_only(source), uri=True)) as old,
            contextlib.closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
            verdict = new.execute("PRAGMA integrity_check").fetchone()[0]
            new.execute("SELECT count(*) FROM judgement").fetchone()
    except sqlite3.Error as error:
        raise ConfigError(
            f"{source}: cannot be backed up ({error}); check that it is a database of guerdon collect"
        ) from None
    if verdict != "ok":
        raise ConfigError(f"{source}: the copy fails SQLite's integrity check ({verdict}); restore an earlier backup")


def _dump_postgresql(url: sa.URL, target: Path) -> None:
    plain = url.set(drivername="postgresql")
    command = ["pg_dump", "--format=custom", f"--file={target}"]
    if shutil.which("pg_dump") is None:
        raise ConfigError(
            f"{public(url)}: pg_dump is not installed here; run it where it is: "
            f"pg_dump --format=custom --file={target.name.strip('.')} '{public(plain)}'"
        )
    password = {"PGPASSWORD": url.password} if isinstance(url.password, str) else {}
    address = plain.set(password=None).render_as_string(hide_password=False)
    done = subprocess.run(
        [*command, f"--dbname={address}"], env=os.environ | password, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"{public(url)}: pg_dump failed ({done.stderr.strip().splitlines()[-1]})")
