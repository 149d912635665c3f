"""Connections: SQLite with full sync, or PostgreSQL; one thread that writes, and commits many waiting writers at once.

Group commit: whoever wants to write hands a function to the writer thread; it runs all that wait in one transaction, each
behind a savepoint, commits, and only then lets them go on. One fsync serves them all, and nothing is acknowledged before.
Several processes may use one database: SQLite takes the write lock at BEGIN, PostgreSQL an advisory lock.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from guerdon.collect.migrate import ABSENT, form_of, migrate, newest
from guerdon.data.database import read_only
from guerdon.types import ConfigError

T = TypeVar("T")
BUSY_SECONDS = 30  # how long to wait for another process that writes
BATCH = 64  # writers served by one commit, at most
WRITE_LOCK = 0x67756572  # key of PostgreSQL's advisory lock: one transaction writes at a time, as in SQLite


class Database:
    """One database: `write` and `read` run functions of a connection. See `Store` for what they promise."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._waiting: queue.SimpleQueue[tuple[Callable[[sa.Connection], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="guerdon-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sa.Connection], T]) -> Future[T]:
        """Hand `work` to the writer; the future is done when its transaction is on the disk."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise ConfigError("the database was closed; open it again")
            self._waiting.put((work, future))
        return future

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        return self.submit(work).result()

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        with self.reading() as connection:
            return work(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that sees one moment of the database until the block ends."""
        with self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield connection

    def close(self) -> None:
        """Stop taking writes, wait for those that were taken, and let go of the connections. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._waiting.put(None)
        self._thread.join()
        self.engine.dispose()

    def _serve(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while batch[-1] is not None and len(batch) < BATCH:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            if jobs := [job for job in batch if job is not None]:
                self._commit(jobs)
            if batch[-1] is None:
                return

    def _commit(self, jobs: list[tuple[Callable[[sa.Connection], Any], Future[Any]]]) -> None:
        """Run these jobs in one transaction. Their callers hear of it after the commit, or of its failure."""
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with writing(self.engine) as connection:
                for work, future in jobs:
                    try:
                        with connection.begin_nested():
                            done.append((future, work(connection), None))
                    except sa.exc.DBAPIError as error:
                        if error.connection_invalidated or _breaks_transaction(error):
                            raise
                        done.append((future, None, error))
                    except Exception as error:
                        done.append((future, None, error))
        except Exception as error:
            for _, future in jobs:
                future.set_exception(error)
            return
        for future, result, failure in done:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)


def _breaks_transaction(error: sa.exc.DBAPIError) -> bool:
    """A full or failing disk: SQLite has rolled the whole transaction back, so that going on would commit half of it."""
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY)


@contextlib.contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that no other writer overlaps; committed when the block ends without an error."""
    with engine.connect().execution_options(guerdon_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITE_LOCK})
        yield connection


def open_database(url: str, make: bool = True) -> Database:
    """Connect and migrate; without `make` only what is there. Raises ConfigError with what to do when that cannot be done."""
    engine = connect(url)
    if not make and engine.dialect.name == "sqlite" and not _is_filled(Path(engine.url.database or "")):
        raise ConfigError(f"{public(engine.url)}: {ABSENT}")
    if make and engine.dialect.name == "sqlite":
        private(Path(engine.url.database or ""))
    try:
        with engine.connect() as connection:
            is_due = form_of(connection) != newest()
        if is_due:
            with writing(engine) as connection:
                migrate(connection, make)
    except sa.exc.DBAPIError as error:
        engine.dispose()
        reason = str(error.orig).strip().splitlines()[0]
        raise ConfigError(
            f"{public(engine.url)}: cannot be opened ({reason}); check the address, rights and space"
        ) from None
    except ConfigError as error:
        engine.dispose()
        raise ConfigError(f"{public(engine.url)}: {error}") from None
    return Database(engine)


def private(file: Path) -> None:
    """Make a file, if it is not there, that only its owner may read: it will hold password hashes and names of raters. SQLite
    gives its log the same rights."""
    with contextlib.suppress(OSError):  # whoever opens it next says what is wrong
        os.close(os.open(file, os.O_CREAT, 0o600))


def _is_filled(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def connect(url: str) -> sa.Engine:
    """An engine for a database URL or a path. Raises ConfigError for a kind of database that is not supported."""
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        folder = Path(parsed.database or ".").parent
        if not folder.is_dir():
            raise ConfigError(f"{parsed.database}: the folder {folder} does not exist; make it first")
        options: dict[str, Any] = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        file = Path(parsed.database or "")
        if file.exists() and not os.access(file, os.W_OK):
            engine = sa.create_engine(parsed, creator=lambda: sqlite3.connect(read_only(file), uri=True, **options))
            sa.event.listen(engine, "connect", _prepare_reading)
        else:
            engine = sa.create_engine(parsed, connect_args=options)
            sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = sa.create_engine(parsed, pool_pre_ping=True, pool_size=16, max_overflow=32)
    sa.event.listen(engine, "connect", _prepare_postgresql)
    return engine


def parse(url: str) -> sa.URL:
    """`sqlite:///FILE`, `postgresql://...`, or the path of an SQLite file; a `study` in the query is left to the caller."""
    if "://" not in url:
        return sa.URL.create("sqlite", database=str(Path(url)))
    try:
        parsed = sa.make_url(url).difference_update_query(["study"])
    except sa.exc.ArgumentError:
        raise ConfigError(
            f"{url}: is no database URL; write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from None
    name = parsed.get_backend_name()
    if name == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError(f"{url}: a database in memory loses every judgement; name a file: sqlite:///study.db")
        return parsed
    if name not in ("postgresql", "postgres"):
        raise ConfigError(f"{url}: {name} is not supported; use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
    return parsed.set(drivername="postgresql+psycopg")


def public(url: sa.URL) -> str:
    """The URL as it may be shown: without the password."""
    return url.render_as_string(hide_password=True)


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"busy_timeout = {BUSY_SECONDS * 1000}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_reading(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("guerdon_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgresql(connection: Any, _: ConnectionPoolEntry) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit TO on")
        cursor.execute("SET lock_timeout TO '30s'")
    connection.commit()
