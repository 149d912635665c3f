"""What a set of comparisons holds, and what is wrong with it: `guerdon check`.

In: a path. Out: a `Check`, which renders as tables and as JSON. The rows are streamed; what stays in memory is 32 bytes
or so for each pair, so that a million pairs fit beside anything else. `docs/check.md` defines every number.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import RenderableType

from guerdon.data.lengths import Lengths, Measure, Spread, note
from guerdon.data.quality import answer_texts, odd_characters, template_leftovers
from guerdon.data.read import Reader, read
from guerdon.data.render import Finding, findings, render
from guerdon.data.repeats import Repeats
from guerdon.data.split import prompt_key
from guerdon.types import Comparison

BATCH = 64  # comparisons whose lengths are asked for at once


@dataclass(frozen=True)
class Check:
    """Everything `check` found. Counts unless said; `examples` names places (`file:line`) for each problem.

    rows, comparisons, dropped   rows seen, rows usable, and rows kept out by reason
    pairs, ties                  C(K,2) pairs of all comparisons, and those of them with equal ranks
    prompts                      different prompts, by `prompt_key`
    completions, turns           comparisons by K, and by the number of messages in the prompt
    lengths                      prompt, chosen (ranked first), rejected (ranked last), whole (with the longest answer)
    length_unit                  `tokens`, or `words and marks (estimate)` when no tokenizer was given
    longer_wins                  share of decided pairs whose chosen answer has more characters, equal lengths as half
    cut, cut_identical           comparisons with a conversation over `max_length`, and those with answers that are the
                                 same once cut
    refused                      comparisons that the chat template refuses
    odd_characters, leftovers    comparisons with such characters in an answer, or template markers in any text, by kind
    strength                     minimum, quartiles and maximum of the strengths, None when no row has one
    annotators                   comparisons by annotator, most frequent first, the first 20 of `annotator_count`
    """

    path: str
    format: str
    files: int
    rows: int
    comparisons: int
    pairs: int
    ties: int
    prompts: int
    completions: dict[int, int]
    turns: dict[int, int]
    lengths: dict[str, Spread]
    length_unit: str
    longer_wins: float | None
    equal_lengths: int
    duplicates: int
    swapped: int
    contradicting: int
    identical: int
    empty: int
    dropped: dict[str, int]
    max_length: int | None
    cut: int
    cut_identical: int
    refused: int
    odd_characters: dict[str, int]
    leftovers: dict[str, int]
    strength: dict[str, float] | None
    annotator_count: int
    annotators: dict[str, int]
    examples: dict[str, list[str]]

    @property
    def findings(self) -> list[Finding]:
        """What needs action, the most serious first, each with one line of advice."""
        return findings(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, findings included."""
        plain = asdict(self) | {"findings": [asdict(finding) for finding in self.findings]}
        for name in ("completions", "turns"):  # JSON knows only text as a key
            plain[name] = {str(key): value for key, value in plain[name].items()}
        return plain

    def render(self) -> RenderableType:
        """Tables for the terminal."""
        return render(self)


def check(
    path: str | Path,
    *,
    format: str | None = None,
    lengths: Measure | None = None,
    max_length: int | None = None,
    truncation: Literal["left", "right"] = "left",
) -> Check:
    """Read everything once and count.

    `lengths` gives the number of tokens of whole conversations, as they are scored; without it lengths are estimated.
    With `max_length`, in that unit, `truncation` says which end a model would cut off.
    Raises DataError for files and rows that cannot be read; rows without a usable preference are counted.
    """
    reader = read(path, format=format)
    tally, measured = _Tally(), Lengths(lengths, max_length, truncation)
    comparisons = ((comparison, *reader.place) for comparison in reader)
    while batch := list(itertools.islice(comparisons, BATCH)):
        for comparison, file, line in batch:
            tally.add(comparison, file, line)
        measured.add([(comparison, f"{file}:{line}") for comparison, file, line in batch])
    return _report(str(path), reader, tally, measured)


@dataclass
class _Tally:
    """Running counts; everything in here is bounded or a few bytes a pair."""

    comparisons: int = 0
    pairs: int = 0
    ties: int = 0
    longer: float = 0.0
    equal: int = 0
    completions: Counter[int] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    annotators: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    leftovers: Counter[str] = field(default_factory=Counter)
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    strengths: array[float] = field(default_factory=lambda: array("d"))
    repeats: Repeats = field(default_factory=Repeats)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, comparison: Comparison, file: str, line: int) -> None:
        self.comparisons += 1
        self.completions[len(comparison.completions)] += 1
        self.turns[len(comparison.prompt)] += 1
        self.prompts.append(int(prompt_key(comparison), 16))
        self.repeats.add(comparison, file, line)
        if comparison.strength is not None:
            self.strengths.append(comparison.strength)
        if comparison.annotator is not None:
            self.annotators[comparison.annotator] += 1
        texts = answer_texts(comparison)
        self._add_pairs(comparison, [len(text) for text in texts])
        self._add_texts(comparison, texts, f"{file}:{line}")

    def _add_pairs(self, comparison: Comparison, characters: Sequence[int]) -> None:
        for pair in comparison.pairs():
            self.pairs += 1
            if pair.target == 0.5:
                self.ties += 1
                continue
            chosen, rejected = characters[pair.chosen], characters[pair.rejected]
            self.longer += 0.5 if chosen == rejected else float(chosen > rejected)
            self.equal += chosen == rejected

    def _add_texts(self, comparison: Comparison, texts: Sequence[str], place: str) -> None:
        odd = {name for text in texts for name in odd_characters(text)}
        messages = itertools.chain(comparison.prompt, *comparison.completions)
        left = {name for message in messages for name in template_leftovers(message["content"])}
        self.odd.update(odd)
        self.leftovers.update(left)
        if odd:
            note(self.examples, "odd_characters", place)
        if left:
            note(self.examples, "leftovers", place)


def _report(path: str, reader: Reader, tally: _Tally, measured: Lengths) -> Check:
    repeats = tally.repeats.count()
    decided = tally.pairs - tally.ties
    return Check(
        path=path,
        format=", ".join(dict.fromkeys(reader.formats.values())),
        files=len(reader.formats),
        rows=reader.rows,
        comparisons=tally.comparisons,
        pairs=tally.pairs,
        ties=tally.ties,
        prompts=len(np.unique(np.frombuffer(tally.prompts, dtype=np.uint64))) if tally.prompts else 0,
        completions=dict(sorted(tally.completions.items())),
        turns=dict(sorted(tally.turns.items())),
        lengths=measured.spreads(),
        length_unit="tokens" if measured.measure else "words and marks (estimate)",
        longer_wins=tally.longer / decided if decided else None,
        equal_lengths=tally.equal,
        duplicates=repeats.duplicates,
        swapped=repeats.swapped,
        contradicting=repeats.contradicting,
        identical=reader.dropped.get("identical answers", 0),
        empty=reader.dropped.get("empty answer", 0),
        dropped=dict(reader.dropped),
        max_length=measured.max_length,
        cut=measured.cut,
        cut_identical=measured.cut_identical,
        refused=measured.refused,
        odd_characters=dict(tally.odd),
        leftovers=dict(tally.leftovers.most_common()),
        strength=_quartiles(tally.strengths),
        annotator_count=len(tally.annotators),
        annotators=dict(tally.annotators.most_common(20)),
        examples=reader.examples | repeats.places | tally.examples | measured.examples,
    )


def _quartiles(values: array[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.quantile(np.frombuffer(values), [0, 0.25, 0.5, 0.75, 1])
    return dict(zip(("min", "q25", "median", "q75", "max"), found.tolist(), strict=True))
