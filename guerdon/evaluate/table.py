"""Score tables: one row per scored completion, and the pairs that follow from them. Every metric starts here.

In: comparisons and their scores (`ScoreTable.build`), or a file of any model's scores (`ScoreTable.read`).
Out: numpy columns, the same table as a file, and `pairs()`, one row for each pair of completions of one comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.evaluate.columns import Floats, Ints, Texts, floats, read_rows, texts, write_columns
from guerdon.types import Comparison, DataError, Score

TEXTS = ("prompt", "comparison", "status", "source")
REQUIRED = ("comparison", "completion", "rank", "score")


@dataclass(frozen=True, eq=False)
class PairTable:
    """One row per pair of completions of one comparison, the better-ranked one first; aligned columns.

    chosen, rejected  rows of the score table
    comparison        position of the comparison in the table, 0, 1, ...
    group             number of the prompt; pairs of one prompt are not independent, so intervals resample these
    margin            score(chosen) - score(rejected); NaN when either could not be scored
    target            1.0, or 0.5 where the label is a tie
    chars             length(chosen) - length(rejected), characters; NaN when unknown
    weight            the comparison's weight over its number of pairs
    strength          the label's own strength, for the pair of first and last rank; NaN otherwise
    gold              gold(chosen) - gold(rejected); NaN when the table has no gold
    source            name of the set
    """

    chosen: Ints
    rejected: Ints
    comparison: Ints
    group: Ints
    margin: Floats
    target: Floats
    chars: Floats
    weight: Floats
    strength: Floats
    gold: Floats
    source: Texts

    def __len__(self) -> int:
        return len(self.margin)

    def where(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> PairTable:
        """The rows for which `keep` is true, or the rows that it numbers."""
        return PairTable(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})

    @property
    def is_scored(self) -> NDArray[np.bool_]:
        return np.isfinite(self.margin)

    @property
    def is_decided(self) -> NDArray[np.bool_]:
        is_decided: NDArray[np.bool_] = self.target != 0.5
        return is_decided


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """One row per completion; the rows of a comparison stand together, `completion` rising.

    prompt      key of the prompt; rows that share it are resampled together
    comparison  id of the comparison
    completion  index of the completion within its comparison
    rank        the label: lower is better, equal is a tie
    score       the reward, NaN unless `status` is `ok`
    status      `ok`, `masked` or `error`
    chars       length of the completion in characters, NaN when unknown
    source      name of the set
    strength    how much better first is than last, in the source's units; NaN when not given
    weight      weight of the comparison
    gold        a reward held to be true, NaN where unknown; None when there is none at all
    """

    prompt: Texts
    comparison: Texts
    completion: Ints
    rank: Floats
    score: Floats
    status: Texts
    chars: Floats
    source: Texts
    strength: Floats
    weight: Floats
    gold: Floats | None = None

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def build(
        cls,
        comparisons: Sequence[Comparison],
        scores: Sequence[Sequence[float]],
        *,
        prompt_keys: Sequence[str],
        gold: Sequence[Sequence[float]] | None = None,
    ) -> ScoreTable:
        """Line up comparisons with their scores: `scores[i][j]` is the reward of completion j of comparison i.

        Plain floats count as scored when they are finite. Raises ValueError when the lengths do not agree.
        """
        _check_aligned(comparisons, scores, "scores")
        if len(prompt_keys) != len(comparisons):
            raise ValueError(f"{len(comparisons)} comparisons but {len(prompt_keys)} prompt keys")
        sizes = [len(comparison.completions) for comparison in comparisons]
        flat = [score if isinstance(score, Score) else Score(score) for row in scores for score in row]
        answers = (completion for comparison in comparisons for completion in comparison.completions)
        strengths = [math.nan if c.strength is None else c.strength for c in comparisons]
        if gold is not None:
            _check_aligned(comparisons, gold, "gold")
        return cls(
            prompt=np.repeat(texts(prompt_keys), sizes),
            comparison=np.repeat(texts([comparison.id for comparison in comparisons]), sizes),
            completion=np.array([j for size in sizes for j in range(size)], dtype=np.int64),
            rank=floats([rank for comparison in comparisons for rank in comparison.ranks]),
            score=floats(flat),
            status=texts([score.status for score in flat]),
            chars=floats([sum(len(message["content"]) for message in completion) for completion in answers]),
            source=np.repeat(texts([comparison.source for comparison in comparisons]), sizes),
            strength=np.repeat(floats(strengths), sizes),
            weight=np.repeat(floats([comparison.weight for comparison in comparisons]), sizes),
            gold=None if gold is None else floats([value for row in gold for value in row]),
        )

    def starts(self) -> Ints:
        """First row of each comparison, and the number of rows at the end: comparison i is rows starts[i]:starts[i+1].

        A comparison begins where the id changes or the completion index stops rising, so ids need not be unique.
        """
        if not len(self):
            return np.zeros(1, dtype=np.int64)
        begins = (self.comparison[1:] != self.comparison[:-1]) | (self.completion[1:] <= self.completion[:-1])
        return np.concatenate(([0], np.flatnonzero(begins) + 1, [len(self)])).astype(np.int64)

    def pairs(self) -> PairTable:
        """All C(K,2) pairs of every comparison, in the order of the table.

        Raises DataError when a comparison has a single row: its rows are not together, or one is missing.
        """
        starts = self.starts()
        sizes = np.diff(starts)
        if (sizes < 2).any():
            row = int(starts[np.flatnonzero(sizes < 2)[0]])
            raise DataError(
                f"score table row {row + 1}: comparison '{self.comparison[row]}' has one completion here; "
                "put all rows of a comparison together, at least two, with rising completion numbers"
            )
        first, second, owner = _pair_rows(starts, sizes)
        swap = self.rank[first] > self.rank[second]
        chosen, rejected = np.where(swap, second, first), np.where(swap, first, second)
        ends = _is_first_against_last(self.rank, chosen, rejected, starts, owner)
        _, group = np.unique(self.prompt, return_inverse=True)
        gold = self.gold if self.gold is not None else np.full(len(self), math.nan)
        return PairTable(
            chosen=chosen,
            rejected=rejected,
            comparison=owner,
            group=group.reshape(-1).astype(np.int64)[chosen],
            margin=self.score[chosen] - self.score[rejected],
            target=np.where(self.rank[chosen] == self.rank[rejected], 0.5, 1.0),
            chars=self.chars[chosen] - self.chars[rejected],
            weight=self.weight[chosen] / (sizes * (sizes - 1) // 2)[owner],
            strength=np.where(ends, self.strength[chosen], math.nan),
            gold=gold[chosen] - gold[rejected],
            source=self.source[chosen],
        )

    def with_gold(self, gold: Sequence[float] | Floats) -> ScoreTable:
        """The same table with a gold reward for each row."""
        if len(gold) != len(self):
            raise ValueError(f"{len(self)} rows but {len(gold)} gold rewards")
        return replace(self, gold=np.asarray(gold, dtype=np.float64))

    def write(self, path: Path | str) -> None:
        """Write `.jsonl`, `.jsonl.gz` or `.parquet`, NaN as null; an old file is replaced once the new one is whole."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        write_columns(Path(path), columns)

    @classmethod
    def read(cls, path: Path | str) -> ScoreTable:
        """Read what `write` wrote, or any table that has at least comparison, completion, rank and score.

        A missing prompt column means that every comparison has a prompt of its own; a null score is an `error` row.
        Raises DataError naming file and row, or the missing column.
        """
        path = Path(path)
        rows = read_rows(path)
        for number, row in enumerate(rows, 1):
            _check_row(path, number, row)
        column = {name: [row.get(name) for row in rows] for name in (f.name for f in fields(cls))}
        score = floats(column["score"])
        is_ok = np.isfinite(score) & np.array([status in (None, "ok") for status in column["status"]], dtype=np.bool_)
        status = [known if known in ("masked", "error") else "error" for known in column["status"]]
        return cls(
            prompt=texts(
                [own if own is not None else c for own, c in zip(column["prompt"], column["comparison"], strict=True)]
            ),
            comparison=texts(column["comparison"]),
            completion=np.array(column["completion"], dtype=np.int64),
            rank=floats(column["rank"]),
            score=np.where(is_ok, score, math.nan),
            status=np.where(is_ok, "ok", texts(status)).astype(object),
            chars=floats(column["chars"]),
            source=texts([name or "" for name in column["source"]]),
            strength=floats(column["strength"]),
            weight=floats([1.0 if weight is None else weight for weight in column["weight"]]),
            gold=None if all(value is None for value in column["gold"]) else floats(column["gold"]),
        )


def _check_aligned(comparisons: Sequence[Comparison], rows: Sequence[Sequence[float]], what: str) -> None:
    if len(rows) != len(comparisons):
        raise ValueError(f"{len(comparisons)} comparisons but {len(rows)} rows of {what}")
    for comparison, row in zip(comparisons, rows, strict=True):
        if len(row) != len(comparison.completions):
            raise ValueError(f"{comparison.id}: {len(comparison.completions)} completions but {len(row)} {what}")


def _pair_rows(starts: Ints, sizes: Ints) -> tuple[Ints, Ints, Ints]:
    """Rows (first, second) of all pairs and the comparison each belongs to; one vectorised block per ranking size."""
    blocks: list[tuple[Ints, Ints, Ints]] = []
    for size in np.unique(sizes):
        owners = np.flatnonzero(sizes == size)
        i, j = np.triu_indices(size, 1)
        origin = starts[owners][:, None]
        blocks.append(((origin + i).ravel(), (origin + j).ravel(), np.repeat(owners, len(i))))
    if not blocks:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    first, second, owner = (np.concatenate(parts).astype(np.int64) for parts in zip(*blocks, strict=True))
    order = np.argsort(owner, kind="stable")
    return first[order], second[order], owner[order]


def _is_first_against_last(rank: Floats, chosen: Ints, rejected: Ints, starts: Ints, owner: Ints) -> NDArray[np.bool_]:
    if not len(owner):
        return np.zeros(0, dtype=np.bool_)
    best, worst = np.minimum.reduceat(rank, starts[:-1]), np.maximum.reduceat(rank, starts[:-1])
    is_ends: NDArray[np.bool_] = (rank[chosen] == best[owner]) & (rank[rejected] == worst[owner])
    return is_ends


def _check_row(path: Path, number: int, row: dict[str, Any]) -> None:
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        raise DataError(f"{path} row {number}: no '{missing[0]}'; a score table needs {', '.join(REQUIRED)}")
    for name, value in row.items():
        if name in TEXTS or (value is None and name not in ("completion", "rank")):
            continue
        if name in ScoreTable.__dataclass_fields__ and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise DataError(
                f"{path} row {number}: '{name}' is {value!r}; write a number there, or null for a missing score"
            )
    if not math.isfinite(row["rank"]) or row["completion"] != int(row["completion"]):
        raise DataError(f"{path} row {number}: 'rank' must be finite and 'completion' a whole number")
