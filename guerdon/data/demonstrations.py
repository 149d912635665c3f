"""Answers to learn from: of comparisons the chosen ones, of other rows what `rows` finds in them.

In: files, folders or hub sets. Out: one `Demonstration` per answer, in order. Rows without one are counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guerdon.data.containers import Row, stream
from guerdon.data.formats import Format, named, recognise
from guerdon.data.messages import Unusable
from guerdon.data.rows import conversations_of
from guerdon.types import Conversation, DataError

_ANSWERS = ("completion", "response", "completions", "responses", "messages", "conversation")


@dataclass(frozen=True)
class Demonstration:
    """A prompt (at least one message), the text of the assistant's turn that answers it, and where it was read."""

    prompt: Conversation
    answer: str
    place: str = ""


@dataclass(frozen=True)
class Demonstrations:
    """What was read. `rows` counts raw rows, `dropped` answers and rows that were left out, by reason."""

    answers: list[Demonstration]
    rows: int
    dropped: dict[str, int]


def load_demonstrations(paths: Sequence[str | Path], *, format: str | None = None) -> Demonstrations:
    """Read the answers of some paths into memory.

    Of a row with a preference those of the best rank are taken, tied ones all; of a row with `completions` and no ranks all;
    of `messages` the last turn, which must be the assistant's. `format` reads every row as a comparison of that format.
    Raises DataError, with file and line, for a row of another shape, and when no answer is left.
    """
    form = None if format is None else named(format)
    answers: list[Demonstration] = []
    dropped: Counter[str] = Counter()
    rows = 0
    for path in paths:
        for row in stream(path):
            rows += 1
            try:
                found = list(_conversations(row, form))
            except Unusable as reason:
                dropped[str(reason)] += 1
                continue
            except DataError as error:
                raise DataError(f"{row.place}: {error}") from error
            for conversation in found:
                if problem := _problem(conversation):
                    dropped[problem] += 1
                else:
                    answers.append(Demonstration(conversation[:-1], conversation[-1]["content"], row.place))
    if not answers:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items()) or "no row"
        raise DataError(f"{', '.join(map(str, paths)) or 'no file'}: holds no answer to learn from ({reasons})")
    return Demonstrations(answers, rows, dict(dropped))


def _conversations(row: Row, form: Format | None) -> Iterator[Conversation]:
    """The conversations of a row that end in an answer to learn from."""
    form = form or _preference(row)
    if form is None:
        if any(name in row.data for name in _ANSWERS) and all(row.data.get(name) is None for name in _ANSWERS):
            raise Unusable("no answer")  # `guerdon optimize best-of-n` writes null where nothing could be scored
        picked = isinstance(row.data.get("completion"), str)  # a row with the candidates it was picked from
        yield from conversations_of(row._replace(data=_without(row.data, "completions")) if picked else row)
        return
    comparison = form.convert(_without(row.data, "margin"))
    best = min(comparison.ranks)
    for conversation, rank in zip(comparison.conversations(), comparison.ranks, strict=True):
        if rank == best:
            yield conversation


def _without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def _preference(row: Row) -> Format | None:
    """The format of a row that holds a preference, None for any other row."""
    data: dict[str, Any] = row.data
    try:
        return named(recognise([row])) if "ranks" in data or not isinstance(data.get("completion"), str) else None
    except DataError:
        return None


def _problem(conversation: Conversation) -> str | None:
    if conversation[-1]["role"] != "assistant":
        return "does not end with the assistant"
    if len(conversation) < 2:
        return "no prompt"
    return None if conversation[-1]["content"].strip() else "empty answer"
