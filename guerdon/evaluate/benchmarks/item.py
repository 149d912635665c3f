"""What every benchmark is made of: a prompt, its candidate answers, and which of them are right.

In: rows of a file, folder or hub set. Out: frozen `Item`s; and, once there are scores, a `Sheet` of aligned arrays on
which each benchmark's rule is a few lines. Texts may be absent: then only files of scores can be measured.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.data.containers import Row, columns, find_files, kind_of, stream, stream_file
from guerdon.data.hub import is_hub_id
from guerdon.data.messages import Messages, messages_of, text_of
from guerdon.data.split import normalise
from guerdon.evaluate.columns import Floats, Ints, Texts, texts
from guerdon.types import Conversation, DataError, Message

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark.

    id           as the source names it
    category     subset, domain or section that results are broken down by
    correct      one per candidate: is it a right answer
    group        key of the prompt; items that share it are resampled together
    prompt       messages before the candidates; empty when only scores are known
    completions  one non-empty tuple of messages per candidate; empty when only scores are known
    chars        length of each candidate in characters; empty when unknown
    """

    id: str
    category: str
    correct: tuple[bool, ...]
    group: str
    prompt: Messages = ()
    completions: tuple[Messages, ...] = ()
    chars: tuple[float, ...] = ()

    def conversations(self) -> list[Conversation]:
        """The full conversations to be scored, in the order of the candidates."""
        return [self.prompt + completion for completion in self.completions]


def make_item(id: str, category: str, prompt: Any, answers: Sequence[Any], correct: Sequence[bool]) -> Item:
    """An item with texts. Prompt and answers are texts or message lists; DataError for anything else."""
    messages = _messages(prompt, "prompt", "user")
    completions = tuple(_messages(answer, "answer", "assistant") for answer in answers)
    opening = next((message["content"] for message in messages if message["role"] == "user"), "")
    lengths = tuple(float(sum(len(message["content"]) for message in answer)) for answer in completions)
    return Item(id, category, tuple(map(bool, correct)), prompt_group(opening), messages, completions, lengths)


def prompt_group(text: str) -> str:
    """16 hex digits, equal for prompts that are equal up to case, punctuation and white space."""
    return sha256(normalise(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _messages(value: Any, name: str, role: str) -> Messages:
    if isinstance(value, list | tuple):
        return messages_of(value, name)
    return (Message(role=role, content=text_of(value, name)),)


def rows_with(path: str | os.PathLike[str], needed: Sequence[str]) -> list[Row]:
    """Rows of a file, folder or hub set that have the columns `needed`; files of a folder without them are passed over.

    Raises DataError when no file has them, or when one row lacks a column that the first row of its file has.
    """
    if is_hub_id(os.fspath(path)):
        found = [list(stream(path))]
    else:
        found = [rows for file in find_files(path) if (rows := _rows_of(file, needed, Path(path).is_dir()))]
    if not any(found):
        raise DataError(f"{path}: no file here has rows with {', '.join(needed)}; give the benchmark's own files")
    for row in (row for rows in found for row in rows):
        need(row, *needed)
    return [row for rows in found for row in rows]


def _rows_of(file: Path, needed: Sequence[str], may_differ: bool) -> list[Row]:
    rows = stream_file(file)
    first = next(rows)
    if may_differ and any(name not in first.data for name in needed):
        return []
    return [first, *rows]


def need(row: Row, *names: str) -> None:
    """Raise DataError when the row lacks one of the columns."""
    for name in names:
        if name not in row.data:
            raise DataError(
                f"{row.place}: no column {name!r} (it has {columns(row.data)}); give the benchmark's own files"
            )


def score_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Rows of a score file: any format that is read elsewhere, or one JSON object of columns, as RewardBench writes.

    Columns of another length than the longest (the name of the model, say) are repeated in every row.
    """
    path = Path(path)
    if path.is_file() and kind_of(path) == "json" and not path.name.endswith(".gz"):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            value = None  # the reader below says what is wrong with the file
        if isinstance(value, dict) and "data" not in value:
            return list(_transposed(str(path), value))
    return list(stream(path))


def _transposed(name: str, table: Mapping[str, Any]) -> Iterator[Row]:
    size = max((len(column) for column in table.values() if isinstance(column, list)), default=1)
    for i in range(size):
        row = {
            key: column[i] if isinstance(column, list) and len(column) == size else column
            for key, column in table.items()
        }
        yield Row(name, i + 1, row)


def number(value: Any, place: str) -> float:
    """A score: a number, a list that holds one, or null for NaN. Raises DataError otherwise."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{place}: a score is {str(value)[:60]!r}; write a number, or null where there is none")
    return float(value)


def matrix(items: Sequence[Item], rows: Sequence[Sequence[float]]) -> Floats:
    """Scores as (items, most candidates), NaN behind the candidates. Raises ValueError when lengths do not agree."""
    if len(rows) != len(items):
        raise ValueError(f"{len(items)} items but {len(rows)} rows of scores")
    wide = np.full((len(items), max((len(item.correct) for item in items), default=0)), math.nan)
    for i, (item, row) in enumerate(zip(items, rows, strict=True)):
        if len(row) != len(item.correct):
            raise ValueError(f"{item.id}: {len(item.correct)} candidates but {len(row)} scores")
        wide[i, : len(row)] = row
    return wide


@dataclass(frozen=True, eq=False)
class Sheet:
    """The items whose candidates all have a score, as aligned arrays; `unscored` counts the others.

    scores    (n, K) float, NaN behind the candidates
    right     (n, K) bool: a candidate that is right; `wrong` likewise
    category  (n,) names
    group     (n,) number of the prompt
    """

    items: tuple[Item, ...]
    scores: Floats
    right: Bools
    wrong: Bools
    category: Texts
    group: Ints
    unscored: int

    @property
    def worst_right(self) -> Floats:
        lowest: Floats = np.where(self.right, self.scores, np.inf).min(axis=1, initial=np.inf)
        return lowest

    @property
    def best_right(self) -> Floats:
        highest: Floats = np.where(self.right, self.scores, -np.inf).max(axis=1, initial=-np.inf)
        return highest

    @property
    def best_wrong(self) -> Floats:
        highest: Floats = np.where(self.wrong, self.scores, -np.inf).max(axis=1, initial=-np.inf)
        return highest

    @property
    def wins(self) -> Floats:
        """1 where every right candidate scores strictly higher than every wrong one, else 0: a tie is wrong."""
        return (self.worst_right > self.best_wrong).astype(np.float64)

    @property
    def ties(self) -> int:
        """Items that are decided by an exactly equal score: the worst right and the best wrong candidate tie."""
        return int((self.worst_right == self.best_wrong).sum())

    @property
    def prompts(self) -> int:
        return len(np.unique(self.group))


def sheet(items: Sequence[Item], scores: Floats) -> Sheet:
    """Align items with their scores (`matrix`), leaving out and counting those with a candidate without a score."""
    width = scores.shape[1]
    sizes = np.array([len(item.correct) for item in items], dtype=np.int64)
    right = np.zeros((len(items), width), dtype=np.bool_)
    for i, item in enumerate(items):
        right[i, : len(item.correct)] = item.correct
    exists = np.arange(width) < sizes[:, None]
    is_scored: Bools = np.asarray((~np.isnan(scores) | ~exists).all(axis=1))
    kept = tuple(item for item, keep in zip(items, is_scored.tolist(), strict=True) if keep)
    _, group = np.unique(texts([item.group for item in kept]), return_inverse=True)
    return Sheet(
        items=kept,
        scores=scores[is_scored],
        right=right[is_scored],
        wrong=(exists & ~right)[is_scored],
        category=texts([item.category for item in kept]),
        group=group.reshape(-1).astype(np.int64),
        unscored=len(items) - len(kept),
    )
