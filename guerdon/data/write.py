"""Comparisons out: our own JSON Lines, which `read` gives back exactly.

In: comparisons. Out: one JSON object per line, UTF-8, gzipped when the name ends in .gz. Only whole files appear.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from guerdon.data.messages import Messages, is_stringified
from guerdon.files import replacing
from guerdon.types import Comparison, DataError


def write_jsonl(path: str | Path, comparisons: Iterable[Comparison]) -> int:
    """Write comparisons, replacing the file; returns how many. Nothing is left behind when one cannot be written.

    Raises DataError for a value that JSON cannot hold (NaN, infinity, half a surrogate pair), naming the comparison.
    """
    target = Path(path)
    count = 0
    with replacing(target) as temporary, opened(temporary, target.suffix == ".gz") as file:
        for comparison in comparisons:
            file.write(_line(comparison))
            count += 1
    return count


def to_row(comparison: Comparison) -> dict[str, Any]:
    """The JSON object of a comparison. One user message is written as text, and so is one assistant message."""
    row: dict[str, Any] = {
        "prompt": compact(comparison.prompt, "user"),
        "completions": [compact(answer, "assistant") for answer in comparison.completions],
        "ranks": list(comparison.ranks),
    }
    if comparison.strength is not None:
        row["strength"] = comparison.strength
    if comparison.annotator is not None:
        row["annotator"] = comparison.annotator
    if comparison.weight != 1.0:
        row["weight"] = comparison.weight
    if comparison.probabilities:
        row["probabilities"] = list(comparison.probabilities)
    return row | {"source": comparison.source, "id": comparison.id}


def compact(messages: Messages, role: str) -> str | list[Any]:
    """One message of this role as its text, anything else as a list; what `read` would take for more stays a list."""
    if len(messages) == 1 and messages[0]["role"] == role:
        text = messages[0]["content"]
        if text.strip() and not is_stringified(text):
            return text
    return list(messages)


def _line(comparison: Comparison) -> bytes:
    try:
        return json.dumps(to_row(comparison), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError as error:  # UnicodeEncodeError is one too
        cause = "half a surrogate pair" if isinstance(error, UnicodeEncodeError) else "a number that is not finite"
        raise DataError(f"{comparison.id or 'comparison'}: holds {cause}, which cannot be written; remove it") from None


@contextmanager
def opened(path: Path, is_gzip: bool) -> Iterator[IO[bytes]]:
    """The file at `path`, compressed if asked: without name and time in the header, so that equal rows give equal bytes."""
    with path.open("wb") as raw:
        if is_gzip:
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
                yield file  # type: ignore[misc]  # GzipFile is an IO[bytes] in all but its declaration
        else:
            yield raw
