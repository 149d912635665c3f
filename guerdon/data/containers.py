"""Raw rows out of files: JSON Lines, JSON, CSV, Parquet, each also gzipped, folders of them, and hub sets.

In: a path or a hub dataset id. Out: a stream of `Row`, one dict per row with the place it came from, in constant memory
(only a single JSON array is read whole). What the columns mean is decided in `formats.py`.
Every way in which a file can be broken ends in one `DataError` sentence that names file, line and remedy.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from guerdon.data.database import is_database, public, stream_database
from guerdon.data.hub import is_hub_id, stream_hub
from guerdon.types import DataError

MAX_LINE = 64 * 2**20  # bytes; a longer line is a file without line ends, and reading on would only fill the memory
KINDS = ("jsonl", "json", "csv", "parquet")
_READ_ERRORS = (OSError, EOFError, zlib.error)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NOT_DATA = re.compile(r"(\.|_|readme|manifest|dataset_info)", re.IGNORECASE)  # file names, from their start


class Row(NamedTuple):
    """One raw row. `line` counts from 1: lines of JSON Lines and CSV, rows of JSON arrays, Parquet and hub sets."""

    file: str
    line: int
    data: dict[str, Any]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def stream(path: str | os.PathLike[str]) -> Iterator[Row]:
    """All rows of a file, of a folder (sorted, recursive), of a hub set `owner/name[/config][:split]` or of a study in a database.

    Raises DataError, with file and line, where the bytes cannot be read as rows.
    """
    name = os.fspath(path)
    if is_database(name):
        shown = public(name)
        for number, data in stream_database(name):
            yield Row(shown, number, data)
        return
    if is_hub_id(name):
        for number, data in stream_hub(name):
            yield Row(name, number, data)
        return
    for file in find_files(name):
        yield from stream_file(file)


def find_files(path: str | os.PathLike[str]) -> list[Path]:
    """The data files a path stands for: itself, or everything readable inside a folder.

    Hidden files and files whose name starts with `_`, README, MANIFEST or dataset_info are passed over in folders.
    """
    if not os.fspath(path):
        raise DataError("the path of the data is empty; give a file, a folder or a hub set")
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root}: no such file or folder; {_did_you_mean(root)}")
    if not root.is_dir():
        return [root]
    found = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        found += [Path(folder, name) for name in names if kind_of(Path(name)) and not _NOT_DATA.match(name)]
    if not found:
        raise DataError(f"{root}: the folder holds no data files; expected {_expected()}")
    return sorted(found)


def kind_of(path: Path) -> str | None:
    """`jsonl`, `json`, `csv` or `parquet` by the name, `.gz` set aside; None for anything else."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix.removeprefix(".")
    suffix = "jsonl" if suffix == "ndjson" else suffix
    return suffix if suffix in KINDS else None


def stream_file(path: Path) -> Iterator[Row]:
    """The rows of one file. A file without any row is an error, because nobody means to give one."""
    kind = kind_of(path)
    if kind is None and _begins(path, b"SQLite format 3\0"):
        raise DataError(f"{path}: this is a database; name a study in it: sqlite:///{path}?study=NAME")
    if kind is None:
        raise DataError(f"{path}: cannot tell what kind of file this is; expected {_expected()}")
    rows = 0
    with _open(path) as source:
        for line, data in _STREAMS[kind](path, source):
            rows += 1
            yield Row(str(path), line, data)
    if not rows:
        raise DataError(f"{path}: the file holds no rows; give a file with at least one row")


def _expected() -> str:
    return ", ".join(f".{kind}" for kind in KINDS) + ", each also with .gz"


def _did_you_mean(path: Path) -> str:
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    missing = path.absolute().relative_to(parent).parts[0]
    try:
        near = difflib.get_close_matches(missing, os.listdir(parent), n=1, cutoff=0.75)
    except OSError:
        near = []
    return f"did you mean {parent / near[0]}?" if near else f"check the spelling, {parent} holds no such name"


def _open(path: Path) -> IO[bytes]:
    """The bytes of a file, unzipped. The first bytes must agree with the name, so that no wrong parser sees them."""
    try:
        with path.open("rb") as raw:
            head = raw.read(4)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from None
    if not head:
        raise DataError(f"{path}: the file is empty (0 bytes); copy or export it again")
    zipped = path.name.lower().endswith(".gz")
    if zipped and head[:2] != b"\x1f\x8b":
        raise DataError(f"{path}: named .gz but it is not gzip data; remove .gz from its name or compress it")
    if not zipped:
        _check_magic(path, head)
    return cast(IO[bytes], gzip.open(path, "rb")) if zipped else path.open("rb")


def _begins(path: Path, head: bytes) -> bool:
    try:
        with path.open("rb") as raw:
            return raw.read(len(head)) == head
    except OSError:
        return False


def _check_magic(path: Path, head: bytes) -> None:
    if head[:2] == b"\x1f\x8b":
        raise DataError(f"{path}: this is gzip data; rename it to {path.name}.gz")
    if head == b"PAR1" and kind_of(path) != "parquet":
        raise DataError(f"{path}: this is Parquet data; rename it to {path.stem}.parquet")
    if head != b"PAR1" and kind_of(path) == "parquet":
        raise DataError(f"{path}: named .parquet but it is not Parquet data; give it the name of what it is")


def _broken(path: Path, line: int, error: Exception) -> DataError:
    cause = "is cut short" if isinstance(error, EOFError) else f"is damaged ({error})"
    return DataError(f"{path}:{line}: the file {cause}; copy or download it again")


# Text containers: bytes -> lines -> rows


def _decode(path: Path, line: int, raw: bytes) -> str:
    if line == 1:
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path}:1: the file is UTF-16; save it as UTF-8")
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in raw:
        raise DataError(f"{path}:{line}: holds a NUL byte, which no text has; export the file again")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)  # only a file read whole has line ends before the bad byte
        raise DataError(
            f"{path}:{line}: byte 0x{raw[error.start]:02x} at position {error.start} is not UTF-8; "
            "save the file as UTF-8"
        ) from None


def _lines(path: Path, source: IO[bytes]) -> Iterator[tuple[int, str]]:
    number = 1
    while True:
        try:
            raw = source.readline(MAX_LINE + 1)
        except _READ_ERRORS as error:
            raise _broken(path, number, error) from None
        if not raw:
            return
        if len(raw) > MAX_LINE:
            raise DataError(f"{path}:{number}: the line is over {MAX_LINE >> 20} MiB; write one row per line")
        yield number, _decode(path, number, raw)
        number += 1


def _jsonl(path: Path, source: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path, source):
        if line := line.strip():  # blank lines, mostly the last one, carry nothing
            yield number, _object(path, number, _parse(path, number, line), _SURROGATE.search(line) is not None)


def _parse(path: Path, number: int, text: str) -> Any:
    """`text` as JSON; errors name the line within the file when `text` starts at line `number`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{number + error.lineno - 1}"
        if number == 1 and text.lstrip()[:1] == "[":
            hint = "a file that holds one JSON list must be complete and be named .json"
        else:
            hint = "repair or remove it"
        raise DataError(f"{place}: not valid JSON ({error.msg} at column {error.colno}); {hint}") from None
    except (ValueError, RecursionError):  # numbers with thousands of digits, thousands of nested brackets
        raise DataError(f"{path}:{number}: JSON too deep or a number too long to read; remove the row") from None


def _object(path: Path, number: int, data: Any, may_hold_surrogates: bool) -> dict[str, Any]:
    if not isinstance(data, dict):
        hint = "; name the file .json if it is one JSON list" if isinstance(data, list) and number == 1 else ""
        raise DataError(f"{path}:{number}: the row is {describe(data)}; write an object with named columns{hint}")
    if may_hold_surrogates:
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{path}:{number}: holds half of a surrogate pair (\\ud800 to \\udfff), which is not a character; "
                "remove it or write the whole character"
            ) from None
    return data


def _json(path: Path, source: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        raw = source.read()
    except _READ_ERRORS as error:
        raise _broken(path, 1, error) from None
    text = _decode(path, 1, raw)
    if text.lstrip()[:1] == "{" and _is_lines(text):
        for number, line in enumerate(text.split("\n"), 1):
            if line := line.strip():
                yield number, _object(path, number, _parse(path, number, line), _SURROGATE.search(line) is not None)
        return
    if not text.strip():
        return
    rows = _parse(path, 1, text)
    if isinstance(rows, dict):
        if not isinstance(rows.get("data"), list):
            raise DataError(
                f"{path}:1: one JSON object without a list named 'data' (it has {columns(rows)}); "
                "write a list of rows, or one row per line"
            )
        rows = rows["data"]
    may_hold_surrogates = _SURROGATE.search(text) is not None
    for number, row in enumerate(rows, 1):
        yield number, _object(path, number, row, may_hold_surrogates)


def _is_lines(text: str) -> bool:
    """JSON Lines under the name .json is common: the first line is an object by itself and more follows."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        return isinstance(json.loads(first), dict) and bool(rest.strip())
    except (ValueError, RecursionError):
        return False


def _csv(path: Path, source: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(MAX_LINE)  # the default of 128 KiB is less than a long answer
    reader = csv.reader((line for _, line in _lines(path, source)), strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            if not cells:
                pass
            elif header is None:
                header = _header(path, cells)
            elif len(cells) != len(header):
                raise DataError(
                    f"{path}:{start}: {len(cells)} cells under {len(header)} columns; put text with commas, quotes or "
                    "line ends into double quotes"
                )
            else:
                yield start, dict(zip(header, cells, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{start}: not readable as CSV ({error}); close every double quote") from None


def _header(path: Path, cells: list[str]) -> list[str]:
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise DataError(f"{path}:1: the column {twice[0]!r} stands there twice; rename or remove one")
    return cells


def _parquet(path: Path, source: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow.parquet as parquet

    number = 0
    try:
        with tempfile.TemporaryFile() as seekable:
            if path.name.lower().endswith(".gz"):  # Parquet is read from its end, which gzip cannot do in place
                shutil.copyfileobj(source, seekable, 2**20)
                seekable.seek(0)
                source = seekable
            # A buffer makes the reader stream pages instead of holding a whole row group.
            file = parquet.ParquetFile(source, buffer_size=2**20, pre_buffer=False)
            for batch in file.iter_batches(batch_size=256, use_threads=False):
                for data in batch.to_pylist():
                    number += 1
                    yield number, data
    except (*_READ_ERRORS, ValueError, KeyError) as error:  # Arrow's errors are ValueErrors and OSErrors
        if isinstance(error, DataError):
            raise
        cause = str(error).partition("\n")[0].rstrip(". ") or type(error).__name__
        raise DataError(f"{path}:{number + 1}: not readable as Parquet ({cause}); write the file again") from None


_STREAMS: dict[str, Callable[[Path, IO[bytes]], Iterator[tuple[int, dict[str, Any]]]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
}


def describe(value: object) -> str:
    """What a value is, in words for an error message."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


def columns(data: dict[str, Any], most: int = 12) -> str:
    """Column names for an error message, cut when there are many."""
    names = [repr(str(name)) for name in data]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "no columns"
