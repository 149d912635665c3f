"""Samples for the drift check: drawn from files by prompt, then scored, or taken from tables that carry scores.

In: a file of comparisons or of rows to score, with a model; or a score or candidate table, without one. Out: `Sample`.
The same seed draws the same prompts from every file, so that two files over one set of prompts stay paired.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from guerdon.data.containers import stream
from guerdon.data.formats import recognise
from guerdon.data.quality import answer_texts
from guerdon.data.read import explain_empty, read
from guerdon.data.rows import stream_conversations
from guerdon.data.split import prompt_key
from guerdon.diagnose.drift import Sample
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.columns import Floats, texts
from guerdon.evaluate.table import ScoreTable
from guerdon.types import Comparison, Conversation, DataError, Score

PER_PROMPT = 2  # answers drawn from a row of many without labels
BLOCK = 128  # conversations handed over at once
LOOK = 8  # rows from which a file's kind is told

Unit = TypeVar("Unit")
Draw = tuple[str, int, Unit]  # key of the prompt, number of answers, what holds them


class Featurizer(Protocol):
    """A reward model that also shows what its head reads, (n, width), NaN where it cannot score."""

    def score_with_features(self, conversations: Sequence[Conversation]) -> tuple[list[Score], NDArray[np.float32]]: ...


@dataclass(frozen=True, eq=False)
class Drawn:
    """Answers to be scored: whole conversations with the keys of their prompts, and the comparisons they came from."""

    conversations: list[Conversation]
    prompt: list[str]
    text: list[str]
    comparisons: list[Comparison] | None
    dropped: dict[str, int]


def draw(path: str, limit: int, seed: int, *, needs_labels: bool = False) -> Drawn:
    """Draw prompts until about `limit` answers are together: comparisons whole, of other rows at most two answers.

    Raises DataError when the file cannot be read, holds nothing to score, or, with `needs_labels`, no comparisons.
    """
    first = list(islice(stream(path), LOOK))
    try:
        recognise(first)
    except DataError:
        if needs_labels:
            raise
        return _draw_conversations(path, limit, seed)
    reader = read(path)
    chosen = _sample(((prompt_key(c), len(c.completions), c) for c in reader), limit, seed)
    if not chosen:
        raise DataError(f"{path}: {explain_empty(reader)}")
    return Drawn(
        [conversation for c in chosen for conversation in c.conversations()],
        [prompt_key(c) for c in chosen for _ in c.completions],
        [text for c in chosen for text in answer_texts(c)],
        chosen,
        dict(reader.dropped),
    )


def score_sample(model: Featurizer, drawn: Drawn, advance: Callable[[int], None] = lambda count: None) -> Sample:
    """Score what was drawn and look up its features; `advance` is told how many more conversations are done."""
    scores: list[Score] = []
    features: list[NDArray[np.float32]] = []
    for start in range(0, len(drawn.conversations), BLOCK):
        block = drawn.conversations[start : start + BLOCK]
        found, states = model.score_with_features(block)
        scores += found
        features.append(states)
        advance(len(block))
    pairs = None
    if drawn.comparisons is not None:
        parts = iter(scores)
        rows = [[next(parts) for _ in c.completions] for c in drawn.comparisons]
        keys = [prompt_key(c) for c in drawn.comparisons]
        pairs = ScoreTable.build(drawn.comparisons, rows, prompt_keys=keys).pairs()
    return Sample(
        features=np.concatenate(features).astype(np.float64),
        reward=np.array(scores, dtype=np.float64),
        prompt=texts(drawn.prompt),
        text=texts(drawn.text),
        chars=np.array([len(text) for text in drawn.text], dtype=np.float64),
        members=_members(scores),
        pairs=pairs,
        dropped=tuple(drawn.dropped.items()),
    )


def _members(scores: Sequence[Score]) -> Floats:
    """Rewards of the members of an ensemble, (rows, M), NaN where an answer could not be scored; M = 0 for one model."""
    count = max((len(score.members) for score in scores), default=0)
    return np.array([score.members or (math.nan,) * count for score in scores], dtype=np.float64).reshape(
        len(scores), count
    )


def read_table(path: str, limit: int, seed: int, *, needs_labels: bool = False) -> Sample:
    """A sample from a candidate table (`prompt_id`, `completion_id`, `score`) or a score table, as they were scored.

    Raises DataError when it is neither, is empty, or, with `needs_labels`, carries no ranks.
    """
    row = next(stream(path)).data
    if "prompt_id" in row and not needs_labels:
        candidates = CandidateTable.read(path)
        chosen = _units(candidates.starts(), [str(key) for key in candidates.prompt], limit, seed, PER_PROMPT)
        c = candidates.where(chosen)
        return Sample(np.zeros((len(c), 0)), c.score, c.prompt, c.text, c.chars, c.members)
    if "comparison" not in row:
        raise DataError(
            f"{path}: neither a score table (comparison, completion, rank, score) nor a candidate table "
            "(prompt_id, completion_id, score); give --model to score comparisons or prompts with answers"
        )
    table = ScoreTable.read(path)
    chosen = _units(table.starts(), [str(key) for key in table.prompt], limit, seed)
    columns = {f.name: getattr(table, f.name) for f in fields(table) if getattr(table, f.name) is not None}
    t = replace(table, **{name: values[chosen] for name, values in columns.items()})
    empty = np.zeros((len(t), 0))
    return Sample(empty, t.score, t.prompt, texts([""] * len(t)), t.chars, empty, pairs=t.pairs())


def _draw_conversations(path: str, limit: int, seed: int) -> Drawn:
    dropped: Counter[str] = Counter()

    def units() -> Iterator[Draw[tuple[str, list[Conversation]]]]:
        for row in stream_conversations(path):
            if row.problem or not row.conversations:
                dropped[row.problem or "nothing to score"] += 1
                continue
            key = _key(row.conversations[0])
            rng = np.random.default_rng([seed, row.index])
            some = rng.permutation(len(row.conversations))[:PER_PROMPT]
            yield key, len(some), (key, [row.conversations[i] for i in sorted(some)])

    chosen = _sample(units(), limit, seed)
    if not chosen:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in dropped.most_common(3))
        raise DataError(f"{path}: no row can be scored ({reasons})")
    conversations = [conversation for _, some in chosen for conversation in some]
    return Drawn(
        conversations,
        [key for key, some in chosen for _ in some],
        [conversation[-1]["content"] for conversation in conversations],
        None,
        dict(dropped),
    )


def _key(conversation: Conversation) -> str:
    """The key that a comparison over the same prompt has."""
    *prompt, answer = conversation
    return prompt_key(Comparison(tuple(prompt), ((answer,), (answer,)), (0.0, 1.0)))


def _sample(units: Iterable[Draw[Unit]], limit: int, seed: int) -> list[Unit]:
    """Units of the first prompts in an order drawn by the seed, up to `limit` answers, at least one; constant memory."""
    heap: list[tuple[int, int, int, Unit]] = []  # the largest key on top, so that it can be given up
    total = 0
    for number, (key, size, unit) in enumerate(units):
        place = int.from_bytes(sha256(f"{seed}:{key}".encode("utf-8", "replace")).digest()[:8])
        if total >= limit and place > -heap[0][0]:
            continue
        heapq.heappush(heap, (-place, -number, size, unit))
        total += size
        while len(heap) > 1 and total - heap[0][2] >= limit:
            total -= heapq.heappop(heap)[2]
    return [unit for *_, unit in sorted(heap, key=lambda entry: (-entry[0], -entry[1]))]


def _units(
    starts: NDArray[np.int64], keys: list[str], limit: int, seed: int, most: int | None = None
) -> NDArray[np.int64]:
    """Rows of the drawn runs of a table, at most `most` of each, drawn by the seed."""

    def units() -> Iterator[Draw[NDArray[np.int64]]]:
        for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            rows = np.arange(first, end)
            if most is not None:
                rows = np.sort(np.random.default_rng([seed, first]).permutation(rows)[:most])
            yield keys[first], len(rows), rows

    return np.concatenate(_sample(units(), limit, seed))
