"""How long conversations are, in a model's tokens or estimated, and what a context limit would cut off.

In: batches of comparisons with their places. Out: spreads of lengths, and counts of what is cut. Lengths are kept as
counts by value, so percentiles are exact and memory does not grow with the rows.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from guerdon.data.quality import estimated_length
from guerdon.data.read import EXAMPLES
from guerdon.types import Comparison, Conversation, GuerdonError, Message

Measure = Callable[[list[Conversation]], list[int]]
Placed = tuple[Comparison, str]  # with its `file:line`


@dataclass(frozen=True)
class Spread:
    """Median, 95th percentile and maximum of a count; all 0 when nothing was counted."""

    median: int
    p95: int
    max: int


@dataclass
class Lengths:
    """Collects lengths by `add`. `measure` gives tokens of whole conversations; None estimates words and marks.

    cut, cut_identical   comparisons with a conversation over `max_length`, and those whose answers are then the same
    refused              comparisons with a conversation that the chat template refuses
    """

    measure: Measure | None
    max_length: int | None
    truncation: str
    cut: int = 0
    cut_identical: int = 0
    refused: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, Counter[int]] = field(
        default_factory=lambda: {name: Counter() for name in ("prompt", "chosen", "rejected", "whole")}
    )

    def spreads(self) -> dict[str, Spread]:
        return {name: _spread(counts) for name, counts in self.counts.items()}

    def add(self, batch: Sequence[Placed]) -> None:
        """Measure a batch in one call per kind of text, because tokenizers are fast only in batches."""
        prompts = self._measure([comparison.prompt for comparison, _ in batch])
        answers = iter(self._measure_answers([comparison for comparison, _ in batch]))
        for (comparison, place), prompt in zip(batch, prompts, strict=True):
            wholes = list(itertools.islice(answers, len(comparison.completions)))
            known = [whole for whole in wholes if whole is not None]
            if len(known) < len(wholes):
                self.refused += 1
                note(self.examples, "refused", place)
                continue
            if self.measure is None:
                known = [(prompt or 0) + answer for answer in known]
            self._add_one(comparison, prompt or 0, known, place)

    def _add_one(self, comparison: Comparison, prompt: int, wholes: Sequence[int], place: str) -> None:
        self.counts["prompt"][prompt] += 1
        self.counts["whole"][max(wholes)] += 1
        best, worst = comparison.ranks.index(min(comparison.ranks)), comparison.ranks.index(max(comparison.ranks))
        if best != worst:
            self.counts["chosen"][max(0, wholes[best] - prompt)] += 1
            self.counts["rejected"][max(0, wholes[worst] - prompt)] += 1
        if self.max_length is not None and max(wholes) > self.max_length:
            self.cut += 1
            note(self.examples, "cut", place)
            if self._same_when_cut(comparison, wholes, self.max_length):
                self.cut_identical += 1
                note(self.examples, "cut_identical", place)

    def _same_when_cut(self, comparison: Comparison, wholes: Sequence[int], limit: int) -> bool:
        """Two answers, both cut, that have `limit` or more in common at the end that is kept."""
        long = [conversation for conversation, n in zip(comparison.conversations(), wholes, strict=True) if n > limit]
        kept = (_shared(first, second, self.truncation) for first, second in itertools.combinations(long, 2))
        return any((self._measure([shared])[0] or 0) >= limit for shared in kept)

    def _measure_answers(self, comparisons: Iterable[Comparison]) -> list[int | None]:
        """Whole conversations for a tokenizer, since templates write round them; answers alone for the estimate."""
        if self.measure is None:
            return [estimated_length(answer) for comparison in comparisons for answer in comparison.completions]
        return self._measure([whole for comparison in comparisons for whole in comparison.conversations()])

    def _measure(self, conversations: Sequence[Conversation]) -> list[int | None]:
        """Lengths; 0 for no messages, None where the chat template refuses a conversation."""
        if self.measure is None:
            return [estimated_length(tuple(conversation)) for conversation in conversations]
        given = [conversation for conversation in conversations if conversation]
        try:
            measured: list[int | None] = list(self.measure(given)) if given else []
        except GuerdonError:
            measured = [_measure_one(self.measure, conversation) for conversation in given]
        found = iter(measured)
        return [next(found) if conversation else 0 for conversation in conversations]


def note(examples: dict[str, list[str]], problem: str, place: str) -> None:
    """Keep the first few places of a problem."""
    places = examples.setdefault(problem, [])
    if len(places) < EXAMPLES:
        places.append(place)


def _measure_one(measure: Measure, conversation: Conversation) -> int | None:
    try:
        return measure([conversation])[0]
    except GuerdonError:
        return None


def _shared(first: Conversation, second: Conversation, truncation: str) -> Conversation:
    """What two conversations have in common at the end that is kept: the start, or the end, up to the difference."""
    if truncation == "left":
        return [
            _reversed(message)
            for message in _shared(
                [_reversed(m) for m in reversed(first)], [_reversed(m) for m in reversed(second)], "right"
            )
        ][::-1]
    shared: list[Message] = []
    for one, two in zip(first, second, strict=False):
        if one["role"] != two["role"]:
            return shared
        if one != two:
            common = next(
                (n for n, (a, b) in enumerate(zip(one["content"], two["content"], strict=False)) if a != b),
                min(len(one["content"]), len(two["content"])),
            )
            return [*shared, Message(role=one["role"], content=one["content"][:common])]
        shared.append(one)
    return shared


def _reversed(message: Message) -> Message:
    return Message(role=message["role"], content=message["content"][::-1])


def _spread(counts: Counter[int]) -> Spread:
    """Exact nearest-rank percentiles: the smallest value that at least that share of all does not exceed."""
    if not counts:
        return Spread(0, 0, 0)
    values = sorted(counts)
    reached = np.cumsum([counts[value] for value in values])
    at = [int(np.searchsorted(reached, share * reached[-1])) for share in (0.5, 0.95)]
    return Spread(values[at[0]], values[at[1]], values[-1])
