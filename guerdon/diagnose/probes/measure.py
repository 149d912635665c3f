"""Probe a reward model: edit comparisons, score what the edits made, and judge the differences.

In: any `Scorer` and comparisons. Out: a `ProbeReport`. The only model that takes part is the one that is probed.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from guerdon.data.split import prompt_key
from guerdon.diagnose.probes.catalog import PROBES
from guerdon.diagnose.probes.edits import Contrast, Item, Messages, Probe
from guerdon.diagnose.probes.results import Independence, ProbeReport, ProbeResult, Rows, independence, judge
from guerdon.diagnose.probes.statistics import reward_spread
from guerdon.evaluate.columns import Floats, Ints
from guerdon.types import Comparison, Conversation, DataError, Message, Scorer

BLOCK = 16  # comparisons edited and scored together: about 70 conversations each
CUT = 0.01  # share of cut conversations above which the report warns
LIMIT = 200
_NO_PROMPT: Messages = (Message(role="user", content=""),)

Key = tuple[tuple[str, str], ...]


@dataclass
class _Scores:
    """Rewards of the conversations of one block by their text, each scored once."""

    scorer: Scorer
    known: dict[Key, tuple[float, bool]] = field(default_factory=dict)

    def add(self, conversations: Iterable[Conversation]) -> None:
        new = {key: c for c in conversations if (key := _key(c)) not in self.known}
        scores = self.scorer.score(list(new.values()))
        if len(scores) != len(new):
            raise DataError(
                f"the scorer returned {len(scores)} scores for {len(new)} conversations; it must give one each"
            )
        for key, score in zip(new, scores, strict=True):
            value = float(score)
            self.known[key] = value if math.isfinite(value) else math.nan, bool(getattr(score, "truncated", False))

    def reward(self, conversation: Conversation) -> float:
        return self.known[_key(conversation)][0]

    def is_cut(self, conversation: Conversation) -> bool:
        return self.known[_key(conversation)][1]


@dataclass
class _Columns:
    """What grows while blocks are scored; becomes `Rows`."""

    values: list[tuple[float, float, float, float, int, int, int, int]] = field(default_factory=list)
    skipped: int = 0

    def rows(self) -> Rows:
        table = np.array(self.values, dtype=np.float64).reshape(-1, 8).T
        edited, reference, rival, reference_rival = table[:4]
        is_right, prompts, wordings, truncated = table[4:].astype(np.int64)
        return Rows(edited, reference, rival, reference_rival, is_right, prompts, wordings, truncated, self.skipped)


def measure(
    scorer: Scorer,
    comparisons: Sequence[Comparison],
    *,
    limit: int | None = LIMIT,
    seed: int = 0,
    probes: Sequence[Probe] = PROBES,
    advance: Callable[[int], None] = lambda count: None,
) -> ProbeReport:
    """Run the probes on at most `limit` comparisons with a decided label, as many different prompts as there are.

    The choice of comparisons, wordings and placebos depends on the texts and the seed alone, so two models can be
    compared on the same edits. `advance` is told how many more of the `select(...)`ed comparisons are done.
    Raises DataError when no comparison has a decided label.
    """
    chosen = select(comparisons, limit, seed)
    items = _items(chosen, seed)
    names = {key: i for i, key in enumerate(dict.fromkeys(map(prompt_key, chosen)))}
    groups = [names[prompt_key(comparison)] for comparison in chosen]
    columns = {probe.name: [_Columns() for _ in probe.variants] for probe in probes}
    natural: list[tuple[int, float, float]] = []  # prompt, reward, reward without the prompt
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(chosen), BLOCK):
        numbers = range(start, min(start + BLOCK, len(chosen)))
        scores = _Scores(scorer)
        contrasts = {i: _contrasts(items[i], i, probes) for i in numbers}
        scores.add(_needed(chosen, contrasts))
        for i in numbers:
            first = len(natural)
            natural += [_natural(scores, chosen[i].prompt, answer, groups[i]) for answer in chosen[i].completions]
            best, worst = _ends(chosen[i])
            pairs.append((first + best, first + worst))
            is_right = natural[first + best][1] > natural[first + worst][1]
            _collect(columns, contrasts[i], probes, scores, items[i], (i, groups[i], is_right))
        advance(len(numbers))
    return _report(probes, columns, np.array(natural), np.array(pairs), len(comparisons) - len(chosen))


def select(comparisons: Sequence[Comparison], limit: int | None = LIMIT, seed: int = 0) -> list[Comparison]:
    """The comparisons that are probed: decided ones, every prompt once before any comes again, in a seeded order."""
    decided = [comparison for comparison in comparisons if len(set(comparison.ranks)) > 1]
    if not decided:
        raise DataError("no comparison has a decided label, so there is no worse answer to edit; give ranked pairs")
    seen: Counter[str] = Counter()
    order = []
    for number, comparison in enumerate(decided):
        key = prompt_key(comparison)
        order.append((seen[key], hashlib.sha256(f"{seed} {key}".encode()).hexdigest(), number))
        seen[key] += 1
    return [decided[number] for _, _, number in sorted(order)[:limit]]


def _key(conversation: Conversation) -> Key:
    return tuple((message["role"], message["content"]) for message in conversation)


def _items(chosen: Sequence[Comparison], seed: int) -> list[Item]:
    """One item per comparison; the prompt for the swap is that of the next one."""
    items = []
    for i, comparison in enumerate(chosen):
        best, worst = _ends(comparison)
        other = chosen[(i + 1) % len(chosen)].prompt
        better, worse = comparison.completions[best], comparison.completions[worst]
        items.append(Item(comparison.prompt, better, worse, other, f"{seed} {i} {prompt_key(comparison)}"))
    return items


def _ends(comparison: Comparison) -> tuple[int, int]:
    """The answers ranked first and last."""
    ranks = comparison.ranks
    return ranks.index(min(ranks)), ranks.index(max(ranks))


def _contrasts(item: Item, number: int, probes: Sequence[Probe]) -> list[list[Contrast | None]]:
    """For every probe and variant the contrast; wordings go round, so that each gets about equally many items."""
    return [
        [probe.edit(item, variant, number % max(probe.wordings, 1)) for variant in range(len(probe.variants))]
        for probe in probes
    ]


def _needed(
    chosen: Sequence[Comparison], contrasts: Mapping[int, list[list[Contrast | None]]]
) -> Iterable[Conversation]:
    """Every conversation of a block."""
    for i, of_probes in contrasts.items():
        yield from chosen[i].conversations()
        yield from (_NO_PROMPT + answer for answer in chosen[i].completions)
        for contrast in itertools.chain.from_iterable(of_probes):
            if contrast is not None:
                yield from (contrast.edited, *contrast.references, *(contrast.rivals or ()))


def _natural(scores: _Scores, prompt: Messages, answer: Messages, group: int) -> tuple[int, float, float]:
    return group, scores.reward(prompt + answer), scores.reward(_NO_PROMPT + answer)


def _collect(
    columns: Mapping[str, list[_Columns]],
    contrasts: list[list[Contrast | None]],
    probes: Sequence[Probe],
    scores: _Scores,
    item: Item,
    place: tuple[int, int, bool],
) -> None:
    """Add one item's rewards to the columns of every variant."""
    number, group, is_right = place
    for probe, of_variants in zip(probes, contrasts, strict=True):
        for column, contrast in zip(columns[probe.name], of_variants, strict=True):
            if contrast is None:
                column.skipped += 1
                continue
            better = item.prompt + item.better
            rivals = contrast.rivals or (better, better)
            rival, reference_rival = map(scores.reward, rivals) if probe.on_worse else (math.nan, math.nan)
            reference = sum(map(scores.reward, contrast.references)) / len(contrast.references)
            cut = any(map(scores.is_cut, (contrast.edited, *contrast.references)))
            wording = number % max(probe.wordings, 1)
            column.values.append(
                (scores.reward(contrast.edited), reference, rival, reference_rival, is_right, group, wording, cut)
            )


def _report(
    probes: Sequence[Probe],
    columns: Mapping[str, list[_Columns]],
    natural: Floats,
    pairs: Ints,
    left_out: int,
) -> ProbeReport:
    groups = natural[:, 0].astype(np.int64)
    spread, kind = reward_spread(natural[:, 1], groups)
    rows = {name: [column.rows() for column in of_variants] for name, of_variants in columns.items()}
    results = judge(probes, rows, spread)
    bare = independence(natural[:, 1], natural[:, 2], pairs, groups) if math.isfinite(spread) else None
    prompts = len(np.unique(groups))
    warnings = tuple(_warnings(spread, natural[:, 1], rows, results, bare))
    return ProbeReport(prompts, len(pairs), left_out, spread, kind, results, bare, warnings)


def _warnings(
    spread: float,
    rewards: Floats,
    rows: Mapping[str, list[Rows]],
    results: Sequence[ProbeResult],
    bare: Independence | None,
) -> Iterable[str]:
    if math.isnan(spread):
        yield "All natural answers to a prompt get the same reward, so effects have no unit; nothing can be judged."
    unscored = int((~np.isfinite(rewards)).sum())
    if unscored:
        yield f"{unscored:,} of {len(rewards):,} natural answers were not scored and are left out."
    cut = sum(int(part.truncated.sum()) for parts in rows.values() for part in parts)
    total = sum(len(part.edited) for parts in rows.values() for part in parts)
    if cut > CUT * max(total, 1):
        yield (
            f"{cut:,} of {total:,} edited texts were cut by the context, so part of the edit was not seen; "
            "use comparisons of shorter texts or a longer context."
        )
    ignores = any(result.name == "swapped prompt" and result.verdict == "biased" for result in results)
    if bare is not None and ignores and bare.accuracy_removed >= bare.accuracy - 0.02:
        yield "Neither swapping nor removing the prompt costs anything: the reward judges answers without reading the question."
    idle = [result.name for result in results if not any(effect.prompts for effect in result.effects)]
    if idle:
        yield f"No comparison could be edited for: {', '.join(idle)}."
