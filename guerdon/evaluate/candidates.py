"""Candidate tables: many scored answers to each prompt, with a gold value where one is known. Best-of-n starts here.

In: a file, or aligned columns. Out: numpy columns whose rows of one prompt stand together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.evaluate.columns import Floats, Ints, Texts, floats, read_rows, texts, write_columns
from guerdon.types import DataError

REQUIRED = ("prompt_id", "completion_id", "score")


@dataclass(frozen=True, eq=False)
class CandidateTable:
    """One row per candidate answer; the rows of a prompt stand together.

    prompt      id of the prompt
    completion  id of the answer within its prompt
    score       the reward (proxy), NaN where it is missing
    gold        a reward held to be true, NaN where unknown
    chars       length of the answer in characters, NaN when unknown
    source      who wrote the answer (a policy, a model, a person); "" when unknown
    members     rewards of the members of an ensemble, (rows, M); M = 0 for a single reward
    text        the answer itself, "" when unknown
    """

    prompt: Texts
    completion: Texts
    score: Floats
    gold: Floats
    chars: Floats
    source: Texts
    members: Floats
    text: Texts

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def build(
        cls,
        prompt: Sequence[Any],
        score: Sequence[Any],
        *,
        completion: Sequence[Any] | None = None,
        gold: Sequence[Any] | None = None,
        chars: Sequence[Any] | None = None,
        source: Sequence[Any] | None = None,
        members: Sequence[Any] | None = None,
        text: Sequence[Any] | None = None,
    ) -> CandidateTable:
        """A table from aligned columns in any order; rows are sorted so that those of a prompt stand together.

        Raises ValueError when the columns do not have the same length.
        """
        n = len(prompt)
        unknown = [math.nan] * n
        lengths = chars if chars is not None else unknown if text is None else [len(answer) for answer in text]
        columns = (score, completion, gold, lengths, source, members, text)
        if any(column is not None and len(column) != n for column in columns):
            raise ValueError(f"{n} prompts, but a column of another length")
        table = cls(
            prompt=texts(prompt),
            completion=texts(completion if completion is not None else range(n)),
            score=floats(score),
            gold=floats(gold if gold is not None else unknown),
            chars=floats(lengths),
            source=texts(source if source is not None else [""] * n),
            members=np.array(members, dtype=np.float64).reshape(n, -1) if members is not None else np.zeros((n, 0)),
            text=texts(text if text is not None else [""] * n),
        )
        _, first, inverse = np.unique(table.prompt, return_index=True, return_inverse=True)
        return table.where(np.argsort(first[inverse.reshape(-1)], kind="stable"))

    def where(self, rows: Any) -> CandidateTable:
        """The rows that a mask keeps or an index names, in that order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def with_score(self, score: Floats) -> CandidateTable:
        """The same candidates under another reward."""
        return replace(self, score=np.asarray(score, dtype=np.float64))

    def starts(self) -> Ints:
        """First row of each prompt, and the number of rows at the end: prompt i is rows starts[i]:starts[i+1]."""
        if not len(self):
            return np.zeros(1, dtype=np.int64)
        begins = np.flatnonzero(self.prompt[1:] != self.prompt[:-1]) + 1
        return np.concatenate(([0], begins, [len(self)])).astype(np.int64)

    def write(self, path: Path | str) -> None:
        """Write `.jsonl`, `.jsonl.gz` or `.parquet`, one row per candidate, NaN as null; whole or not at all."""
        columns = {"prompt_id": self.prompt, "completion_id": self.completion, "score": self.score, "gold": self.gold}
        columns |= {"chars": self.chars, "source": self.source}
        if self.members.shape[1]:
            columns["members"] = self.members
        if any(self.text):
            columns["text"] = self.text
        write_columns(Path(path), columns)

    @classmethod
    def read(cls, path: Path | str) -> CandidateTable:
        """Read a table with at least `prompt_id`, `completion_id` and `score`; gold, chars, source, members, text if present.

        Raises DataError naming file and row.
        """
        path = Path(path)
        rows = read_rows(path)
        for number, row in enumerate(rows, 1):
            _check_row(path, number, row, rows[0])
        has = set().union(*rows) if rows else set()
        column = {name: [row.get(name) for row in rows] for name in has}
        return cls.build(
            column.get("prompt_id", []),
            column.get("score", []),
            completion=column.get("completion_id", []),
            gold=column.get("gold"),
            chars=column.get("chars"),
            source=[name or "" for name in column["source"]] if "source" in has else None,
            members=column.get("members"),
            text=[text or "" for text in column["text"]] if "text" in has else None,
        )


def _check_row(path: Path, number: int, row: dict[str, Any], first: dict[str, Any]) -> None:
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        raise DataError(f"{path} row {number}: no '{missing[0]}'; a candidate table needs {', '.join(REQUIRED)}")
    for name in ("score", "gold", "chars"):
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise DataError(f"{path} row {number}: '{name}' is {value!r}; write a number, or null where there is none")
    members, expected = row.get("members"), first.get("members")
    if (members is None) != (expected is None) or (members is not None and len(members) != len(expected or ())):
        raise DataError(f"{path} row {number}: 'members' differs in length from row 1; give every row one per member")
