"""Databases to test on: a new SQLite file, and a schema of a private PostgreSQL server where there is one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="guerdon collect is an extra")

import sqlalchemy as sa

from benchmarks.collect_raters import postgresql
from guerdon.collect.store import Store


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    try:
        with postgresql() as url:
            yield url
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def new_postgresql(postgresql_server: str) -> Callable[[], str]:
    """Makes an empty database on the private server and returns its URL."""
    numbers = itertools.count()

    def make() -> str:
        name = f"test{next(numbers)}"
        url = sa.make_url(postgresql_server).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return postgresql_server.replace("/postgres?", f"/{name}?")

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    made: str = request.getfixturevalue("new_postgresql")()
    return made


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    with Store.open(url) as opened:
        opened.clock = clock
        yield opened


@pytest.fixture
def light(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """A store on SQLite that does not wait for the disk, for what is not about the database's own behaviour."""
    with Store.open(f"sqlite:///{tmp_path}/light.db") as opened:
        opened.clock = clock
        engine = opened.database.engine
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        engine.dispose()  # the next connections are new ones
        yield opened
