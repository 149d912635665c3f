"""Judgements straight out of the database of `guerdon collect`, by plain SQL: reading needs none of its code, only its tables.

In: `sqlite:///FILE?study=NAME` or `postgresql://USER:PASSWORD@HOST/DB?study=NAME`. Out: one row per judgement, in order of
arrival, in the shape of a judgement file. Judgements that were replaced are left out unless the URL says `all=1`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from guerdon.types import DataError

SCHEMES = ("sqlite", "postgresql", "postgres", "postgresql+psycopg")
CHUNK = 1000  # rows fetched at once
_COLUMNS = (
    "j.seq, j.id AS judgement, j.rater, j.kind, j.display, j.answer, j.ranks, j.strength, j.attributes, j.rationale, "
    "j.edited, j.shown_at, j.first_input_at, j.submitted_at, j.guideline, j.replaces, j.arm, j.probability, "
    "q.name, q.source, q.body, q.models"
)
_QUERY = (
    f"SELECT {_COLUMNS} FROM judgement j JOIN question q ON q.id = j.question JOIN study s ON s.id = j.study "
    "WHERE s.name = {study} AND j.seq > {since} {current} ORDER BY j.seq LIMIT {limit}"
)
_CURRENT = "AND NOT EXISTS (SELECT 1 FROM judgement n WHERE n.replaces = j.id)"
_OPTIONAL = ("strength", "rationale", "edited", "shown_at", "first_input_at", "submitted_at", "guideline", "replaces")


def is_database(path: str) -> bool:
    """True for the URL of a database."""
    return path.partition("://")[0] in SCHEMES and "://" in path


def stream_database(url: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of arrival, row) of each judgement of the study that the URL names; of the only study when it names none.

    Raises DataError when the database cannot be read, or which study is meant is not clear.
    """
    with _connected(url) as (connection, mark, options):
        study = _study(connection, url, options.get("study"))
        current = "" if options.get("all") in ("1", "true", "yes") else _CURRENT
        query = _QUERY.format(study=mark, since=mark, limit=mark, current=current)
        last, text = 0, ""
        body: dict[str, Any] = {}
        while True:
            cursor = connection.cursor()
            cursor.execute(query, (study, last, CHUNK))
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            for row in rows:
                if row["body"] != text:
                    text, body = row["body"], json.loads(row["body"])
                yield row["seq"], _judgement(row, body)
            if len(rows) < CHUNK:
                return
            last = rows[-1]["seq"]


def _judgement(row: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    question: dict[str, Any] = {"id": row["name"], **body}
    if row["source"]:
        question["source"] = row["source"]
    if models := json.loads(row["models"]):
        question["models"] = models
    found: dict[str, Any] = {name: row[name] for name in ("judgement", "rater", "kind")}
    found |= {"question": question, "order": json.loads(row["display"]), "answer": row["answer"]}
    if ranks := json.loads(row["ranks"]):
        found["ranks"] = ranks
    if attributes := json.loads(row["attributes"]):
        found["attributes"] = attributes
    found |= {name: row[name] for name in _OPTIONAL if row[name]}
    found["arm"] = row["arm"]
    if row["probability"] is not None:
        found["probability"] = row["probability"]
    return found


def _study(connection: Any, url: str, name: str | None) -> str:
    cursor = connection.cursor()
    cursor.execute("SELECT name FROM study ORDER BY id")
    names = [row[0] for row in cursor.fetchall()]
    if name is None and len(names) == 1:
        return str(names[0])
    if name in names:
        return str(name)
    known = ", ".join(names) or "none"
    asked = f"has no study {name!r}" if name else "holds several studies"
    raise DataError(f"{public(url)}: {asked} (there are: {known}); write ...?study=NAME")


@contextlib.contextmanager
def _connected(url: str) -> Iterator[tuple[Any, str, dict[str, str]]]:
    """A connection that only reads, the mark of a parameter in its SQL, and our own options out of the URL's query."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    ours: dict[str, str] = {name: options.pop(name) for name in ("study", "all") if name in options}
    try:
        if parts.scheme == "sqlite":
            with contextlib.closing(_sqlite(url, parts.path)) as connection:
                connection.execute("BEGIN")
                yield connection, "?", ours
        else:
            query = urlencode(options, safe="/")
            with contextlib.closing(
                _postgresql(urlunsplit(("postgresql", parts.netloc, parts.path, query, "")))
            ) as server:
                yield server, "%s", ours
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("sqlite3", "psycopg"):
            raise
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{public(url)}: cannot be read as a database of guerdon collect ({reason})") from None


def _sqlite(url: str, path: str) -> sqlite3.Connection:
    file = Path(unquote(path[1:]))
    if not file.is_file():
        raise DataError(
            f"{url}: there is no file {file}; write sqlite:///FILE, with a fourth slash for an absolute path"
        )
    return sqlite3.connect(read_only(file), uri=True, isolation_level=None)


def read_only(file: Path) -> str:
    """The URI by which SQLite reads a file and writes nothing. In a folder that takes no files it cannot keep the index of its
    log, and without a log it needs none: nobody writes there."""
    log = file.with_name(f"{file.name}-wal")
    sealed = not os.access(file.resolve().parent, os.W_OK) and not log.exists()
    return f"{file.resolve().as_uri()}?mode=ro{'&immutable=1' if sealed else ''}"


def _postgresql(url: str) -> Any:
    try:
        import psycopg
    except ImportError:
        raise DataError("reading PostgreSQL needs psycopg; install it: pip install 'guerdon[collect]'") from None
    connection = psycopg.connect(url)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def source_of(url: str) -> str:
    """What rows out of this database call their source: the study, or the URL without its password."""
    return dict(parse_qsl(urlsplit(url).query)).get("study") or public(url)


def public(url: str) -> str:
    """The URL without the password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")))
