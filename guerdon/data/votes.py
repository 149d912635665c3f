"""Judgements as columns: one row for each pair of candidates that one judgement orders. Every rater statistic starts here.

In: judgements. Out: numpy columns, sorted by pair and rater. A question is known by its text, not by its id, so that
hidden repeats and files of several exports fall together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from guerdon.types import Conversation, Judgement, Question

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Votes:
    """Aligned columns; `V` rows of votes, `P` pairs of candidates, `Q` questions.

    raters     names, in the order of their first vote
    questions  (Q,) one `Question` each
    rater      (V,) index into `raters`
    pair       (V,) index into the pairs, rising
    outcome    (V,) 1 where the first candidate of the pair was ranked better, -1 where the second, 0 for a tie
    side       (V,) how many places the first candidate was shown before (left of, above) the second, over K - 1: for two
               candidates 1 or -1; 0 when the order was not recorded
    judgement  (V,) position of the judgement among those given
    question, first, second  (P,) index into `questions`, and the two candidates of the pair, first < second
    size       (P,) K, the number of candidates of the question
    """

    raters: tuple[str, ...]
    questions: tuple[Question, ...]
    rater: Ints
    pair: Ints
    outcome: Ints
    side: Floats
    judgement: Ints
    question: Ints
    first: Ints
    second: Ints
    size: Ints

    def __len__(self) -> int:
        return len(self.rater)

    @property
    def starts(self) -> Ints:
        """(P + 1,) first row of each pair, and the number of rows at the end."""
        return np.searchsorted(self.pair, np.arange(len(self.question) + 1)).astype(np.int64)


def votes_of(judgements: Iterable[Judgement]) -> Votes:
    """The votes of all ranked judgements; answers without ranks have none."""
    raters: dict[str, int] = {}
    questions: dict[bytes, tuple[int, int]] = {}  # -> index, first pair
    asked: list[Question] = []
    known: dict[int, tuple[int, int]] = {}
    held: list[Question] = []  # keeps the objects alive whose ids are in `known`
    pairs: list[tuple[int, int, int, int]] = []
    rows: list[tuple[int, int, int, float, int]] = []
    for position, judgement in enumerate(judgements):
        if not judgement.ranks:
            continue
        question = judgement.question
        found = known.get(id(question))
        if found is None:
            key = question_key(question)
            if key not in questions:
                questions[key] = (len(asked), len(pairs))
                k = len(question.completions)
                pairs += [(len(asked), i, j, k) for i, j in combinations(range(k), 2)]
                asked.append(question)
            found = known[id(question)] = questions[key]
            held.append(question)
        rater = raters.setdefault(judgement.rater, len(raters))
        ranks, places = judgement.ranks, _places(judgement.order)
        for offset, (i, j) in enumerate(combinations(range(len(ranks)), 2)):
            outcome = (ranks[i] < ranks[j]) - (ranks[i] > ranks[j])
            side = (places[j] - places[i]) / (len(ranks) - 1) if places else 0.0
            rows.append((found[1] + offset, rater, outcome, side, position))
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    table = table[np.lexsort((table[:, 4], table[:, 1], table[:, 0]))]
    pair_of, rater_of, outcomes, _, position_of = table.T.astype(np.int64)
    about = np.array(pairs, dtype=np.int64).reshape(-1, 4)
    return Votes(
        tuple(raters), tuple(asked), rater_of, pair_of, outcomes, table[:, 3], position_of,
        about[:, 0], about[:, 1], about[:, 2], about[:, 3],
    )  # fmt: skip


def _places(order: Sequence[int]) -> list[int]:
    """Where each candidate was shown: the inverse of `order`."""
    places = [0] * len(order)
    for place, candidate in enumerate(order):
        places[candidate] = place
    return places


def question_key(question: Question) -> bytes:
    """16 bytes that are equal for questions with the same prompt and the same candidates in the same order."""
    found = blake2b(digest_size=16)
    for conversation in (question.prompt, *question.completions):
        found.update(_text(conversation))
        found.update(b"\x1d")
    return found.digest()


def _text(messages: Conversation) -> bytes:
    joined = "\x1e".join(f"{message['role']}\x1f{message['content']}" for message in messages)
    return joined.encode("utf-8", "surrogatepass")


def couples_of(starts: Ints) -> tuple[Ints, Ints]:
    """Rows (a, b), a < b, of all couples of votes on the same pair, by the first rows of the pairs; no order promised."""
    sizes = np.diff(starts)
    first, second = [], []
    for size in np.unique(sizes[sizes > 1]):
        origin = starts[:-1][sizes == size][:, None]
        i, j = np.triu_indices(int(size), 1)
        first.append((origin + i).ravel())
        second.append((origin + j).ravel())
    if not first:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(first).astype(np.int64), np.concatenate(second).astype(np.int64)
