"""From judgements to the comparisons that a reward model learns from: raw, by majority, or soft by the rater model.

In: judgements as they happened. Out: `Comparison`s with the ids of the judgements behind each, and a count of what was
left out and why. Judgements are never changed; a label is one view of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from guerdon.data.posterior import better, ranks_of
from guerdon.data.raters import RaterModel, fit_raters
from guerdon.data.votes import question_key
from guerdon.types import Comparison, Judgement, Message, Question

How = Literal["raw", "majority", "soft"]
Raters = Literal["human", "model", "both"]
NOT_LABELS = ("gold", "attention", "training")  # arms whose answers were known before


class Label(NamedTuple):
    """A comparison and the ids of the judgements it is made of."""

    comparison: Comparison
    judgements: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """The labels, and how many judgements were left out by reason; `raters` is the fitted model of soft labels."""

    labels: list[Label]
    left_out: dict[str, int]
    raters: RaterModel | None = None

    @property
    def comparisons(self) -> list[Comparison]:
        return [label.comparison for label in self.labels]


def current(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Those that no later judgement replaces, in the order given. The last of a chain of replacements stands."""
    every = list(judgements)
    replaced = {judgement.replaces for judgement in every if judgement.replaces}
    return [judgement for judgement in every if judgement.id not in replaced] if replaced else every


def usable(judgements: Iterable[Judgement], raters: Raters = "human") -> tuple[list[Judgement], dict[str, int]]:
    """The judgements that can become labels, and the number of the others by reason.

    Left out are those that were replaced, repeated deliveries of one id, judgements by the other kind of rater, items whose
    answer was known (gold, attention, training), and answers that order nothing (all bad, skip, flag).
    """
    every, kept, left_out, seen = list(judgements), [], Counter[str](), set[str]()
    replaced = {judgement.replaces for judgement in every if judgement.replaces}
    for judgement in every:
        reason = _reason(judgement, raters, replaced, seen)
        seen.add(judgement.id)
        if reason:
            left_out[reason] += 1
        else:
            kept.append(judgement)
    return kept, dict(left_out)


def _reason(judgement: Judgement, raters: Raters, replaced: set[str], seen: set[str]) -> str:
    if judgement.id in seen:
        return "delivered twice"
    if judgement.id in replaced:
        return "replaced"
    if raters != "both" and judgement.kind != raters:
        return f"judged by a {judgement.kind}"
    if judgement.arm in NOT_LABELS:
        return f"{judgement.arm} item"
    return "" if judgement.answer == "ranked" else judgement.answer.replace("_", " ")


def labels_of(judgements: Iterable[Judgement], how: How = "raw", raters: Raters = "human") -> Labels:
    """The comparisons that these judgements say.

    `raw`: one for each judgement, by its rater. `majority`: one for each question, its candidates ranked by their mean rank
    over raters (for two candidates the majority vote; even votes tie). `soft`: one for each question, with p(better) of the
    rater model as probabilities. An edited winner is one more completion, ranked first, in raw labels; in the others it
    makes a comparison of its own with what it was edited from, since nobody else has seen it.
    """
    kept, left_out = usable(judgements, raters)
    if how == "raw":
        return Labels([Label(_raw(judgement), (judgement.id,)) for judgement in kept], left_out)
    model = fit_raters(kept) if how == "soft" else None
    soft = _soft(model) if model else {}
    groups: dict[bytes, list[Judgement]] = {}
    for judgement in kept:
        groups.setdefault(question_key(judgement.question), []).append(judgement)
    labels = []
    for key, group in groups.items():
        ranks, probabilities = soft[key] if soft else (_majority(group), ())
        labels.append(_joined(group, ranks, probabilities))
        labels += [Label(edit, (judgement.id,)) for judgement in group if (edit := _edit(judgement))]
    return Labels(labels, left_out, model)


def _raw(judgement: Judgement) -> Comparison:
    question, ranks = judgement.question, judgement.ranks
    completions = question.completions
    edited = edited_answer(judgement)
    if edited:
        completions, ranks = (*completions, edited), (*ranks, min(ranks) - 1)
    return Comparison(
        question.prompt, completions, ranks, judgement.strength, judgement.rater, 1.0, question.source, judgement.id
    )


def edited_answer(judgement: Judgement) -> tuple[Message, ...]:
    """The winner with its last message as the rater rewrote it; () when it was not, or equals a candidate."""
    if not judgement.edited.strip() or not judgement.ranks:
        return ()
    winner = judgement.question.completions[winner_of(judgement)]
    edited = (*winner[:-1], Message(role=winner[-1]["role"], content=judgement.edited))
    return () if edited in judgement.question.completions else edited


def winner_of(judgement: Judgement) -> int:
    """The candidate ranked first; of several, the one that was shown first."""
    order = judgement.order or range(len(judgement.ranks))
    return min(order, key=lambda candidate: judgement.ranks[candidate])


def _edit(judgement: Judgement) -> Comparison | None:
    edited = edited_answer(judgement)
    if not edited:
        return None
    question = judgement.question
    return Comparison(
        question.prompt, (edited, question.completions[winner_of(judgement)]), (0.0, 1.0), None, judgement.rater, 1.0,
        question.source, f"{judgement.id} edited",
    )  # fmt: skip


def _joined(group: Sequence[Judgement], ranks: tuple[float, ...], probabilities: tuple[float, ...]) -> Label:
    question = group[0].question
    raters = {judgement.rater for judgement in group}
    comparison = Comparison(
        question.prompt, question.completions, ranks, _strength(group, ranks), raters.pop() if len(raters) == 1 else None,
        1.0, question.source, question.id or group[0].id, probabilities,
    )  # fmt: skip
    return Label(comparison, tuple(judgement.id for judgement in group))


def _majority(group: Sequence[Judgement]) -> tuple[float, ...]:
    """Ranks by mean rank: first over each rater's own judgements, so that a repeat is not a second vote, then over raters."""
    by_rater: dict[str, list[list[float]]] = {}
    for judgement in group:
        by_rater.setdefault(judgement.rater, []).append(fractional(judgement.ranks))
    means = [[math.fsum(column) / len(own) for column in zip(*own, strict=True)] for own in by_rater.values()]
    total = [round(math.fsum(column) / len(means), 9) for column in zip(*means, strict=True)]
    values = sorted(set(total))
    return tuple(float(values.index(value)) for value in total)


def fractional(ranks: Sequence[float]) -> list[float]:
    """Ranks from 1, where equal ones share the mean of the places they take."""
    return [sum(r < rank for r in ranks) + (1 + sum(r == rank for r in ranks)) / 2 for rank in ranks]


def _strength(group: Sequence[Judgement], ranks: Sequence[float]) -> float | None:
    """Mean strength of the judgements that say one, negative where they prefer the other of two; never below 0."""
    given = [(judgement, judgement.strength) for judgement in group if judgement.strength is not None]
    if not given:
        return None
    if len(ranks) > 2:
        return math.fsum(strength for _, strength in given) / len(given)
    sign = _sign(ranks)
    if sign == 0:
        return 0.0
    return max(0.0, math.fsum(strength * _sign(j.ranks) * sign for j, strength in given) / len(given))


def _sign(ranks: Sequence[float]) -> int:
    return (ranks[0] < ranks[1]) - (ranks[0] > ranks[1])


def _soft(model: RaterModel) -> dict[bytes, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Ranks and probabilities of each question."""
    p, votes = better(model), model.votes
    starts = np.searchsorted(votes.question, np.arange(len(votes.questions) + 1))
    found = {}
    for number, question in enumerate(votes.questions):
        span = slice(int(starts[number]), int(starts[number + 1]))
        k = len(question.completions)
        found[question_key(question)] = ranks_of(k, votes.first[span], votes.second[span], p[span])
    return found


def questions_of(judgements: Iterable[Judgement]) -> list[Question]:
    """The different questions of some judgements, in order."""
    return list({question_key(judgement.question): judgement.question for judgement in judgements}.values())
