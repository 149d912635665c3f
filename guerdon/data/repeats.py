"""Repeated and contradicting pairs among millions, in 16 bytes a pair.

In: comparisons with their places. Out: counts and the first few places. A pair is kept as a 61-bit hash of its prompt
and its two answers in either order, with its label and its order in the three bits below; two different pairs out of a
million share a hash with a chance of about 2e-7.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from guerdon.types import Comparison, Conversation

_LINE_BITS = 40
EXAMPLES = 5


@dataclass(frozen=True)
class RepeatCounts:
    """duplicates     pairs that occurred before with the same label and the same order of answers
    swapped        pairs that also occur with their answers in the other order and the same label
    contradicting  different pairs that have more than one label
    places         for each of these with a count, the places of the first few, those of one pair joined by ` = `
    """

    duplicates: int
    swapped: int
    contradicting: int
    places: dict[str, list[str]]


@dataclass
class Repeats:
    """Collects pairs by `add` and compares them all in `count`."""

    codes: array[int] = field(default_factory=lambda: array("Q"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    files: list[str] = field(default_factory=list)

    def add(self, comparison: Comparison, file: str, line: int) -> None:
        """Take in the pairs of a comparison that was read from `line` of `file`: 16 bytes each."""
        if not self.files or self.files[-1] != file:
            self.files.append(file)
        place = (len(self.files) - 1) << _LINE_BITS | line
        prompt = _digest(comparison.prompt)
        answers = [_digest(answer) for answer in comparison.completions]
        for pair in comparison.pairs():
            chosen, rejected = answers[pair.chosen], answers[pair.rejected]
            low, high = min(chosen, rejected), max(chosen, rejected)
            label = 0 if pair.target == 0.5 else 1 if chosen == low else 2
            order = int(answers[min(pair.chosen, pair.rejected)] == high)
            key = int.from_bytes(blake2b(prompt + low + high, digest_size=8).digest(), "little")
            self.codes.append(key & ~7 | label << 1 | order)
            self.places.append(place)

    def count(self) -> RepeatCounts:
        """Compare all pairs that were added."""
        codes = np.frombuffer(self.codes, dtype=np.uint64) if self.codes else np.zeros(0, np.uint64)
        distinct, first, times = np.unique(codes, return_index=True, return_counts=True)
        labelled, orders = np.unique(distinct >> np.uint64(1), return_counts=True)
        pairs, labels = np.unique(labelled >> np.uint64(2), return_counts=True)
        repeated = distinct[times > 1][np.argsort(first[times > 1])]
        places = {
            "duplicates": [self._places(codes == code) for code in repeated[:EXAMPLES]],
            "swapped": [self._places(codes >> np.uint64(1) == code) for code in labelled[orders > 1][:EXAMPLES]],
            "contradicting": [self._places(codes >> np.uint64(3) == code) for code in pairs[labels > 1][:EXAMPLES]],
        }
        return RepeatCounts(
            duplicates=int((times - 1).sum()),
            swapped=int((orders > 1).sum()),
            contradicting=int((labels > 1).sum()),
            places={name: found for name, found in places.items() if found},
        )

    def _places(self, chosen: NDArray[np.bool_]) -> str:
        found = [self.places[i] for i in np.flatnonzero(chosen)[:3]]
        return " = ".join(f"{self.files[place >> _LINE_BITS]}:{place & (1 << _LINE_BITS) - 1}" for place in found)


def _digest(messages: Conversation) -> bytes:
    text = "\x1e".join(f"{message['role']}\x1f{message['content']}" for message in messages)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
