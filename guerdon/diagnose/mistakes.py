"""The pairs a model gets most wrong, with their texts: what to read first when a number disappoints.

In: a score table and the comparisons it was built from. Out: the worst pairs, at most one for each prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guerdon.evaluate.table import ScoreTable
from guerdon.types import Comparison, Message


@dataclass(frozen=True)
class Mistake:
    """A decided pair whose rejected completion scores higher; `margin` is chosen minus rejected, so it is negative."""

    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    margin: float
    source: str
    id: str


def worst_mistakes(table: ScoreTable, comparisons: Sequence[Comparison], n: int = 10) -> list[Mistake]:
    """Up to `n` mistakes, lowest margin first, one per prompt so that one odd prompt cannot fill the list.

    `comparisons` are those `ScoreTable.build` was given, in the same order. Raises ValueError if the numbers differ.
    """
    pairs = table.pairs()
    if len(table.starts()) - 1 != len(comparisons):
        raise ValueError(f"the table has {len(table.starts()) - 1} comparisons, but {len(comparisons)} were given")
    wrong = pairs.where(pairs.is_decided & (pairs.margin < 0))
    wrong = wrong.where(np.argsort(wrong.margin, kind="stable"))
    _, first = np.unique(wrong.group, return_index=True)
    found = []
    for row in np.sort(first)[:n]:
        comparison = comparisons[wrong.comparison[row]]
        chosen, rejected = int(wrong.chosen[row]), int(wrong.rejected[row])
        found.append(
            Mistake(
                prompt=_text(comparison.prompt),
                chosen=_text(comparison.completions[table.completion[chosen]]),
                rejected=_text(comparison.completions[table.completion[rejected]]),
                chosen_score=float(table.score[chosen]),
                rejected_score=float(table.score[rejected]),
                margin=float(wrong.margin[row]),
                source=comparison.source,
                id=comparison.id,
            )
        )
    return found


def _text(messages: Sequence[Message]) -> str:
    """One message is its content; several are told apart by their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
