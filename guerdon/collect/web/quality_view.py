"""What stands on the quality page: tiles with the numbers of the study, then the raters, then what else is known.

Everything here turns a `Quality` into words and cells; docs/judgements.md defines the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from guerdon.collect.chat_api import money
from guerdon.collect.quality import Quality, RaterQuality, Share
from guerdon.collect.selection import SelectionReport
from guerdon.collect.spending import Spent
from guerdon.collect.web import charts
from guerdon.collect.web.filters import count, moment, number, share
from guerdon.data.raters import Interval
from guerdon.types import Judgement

Cell = str | tuple[str, str]  # what stands in a table; of two the second is small, below: the interval

DRAWN, LISTED = 30, 200  # raters in the picture and in the table: those with most judgements


@dataclass(frozen=True, slots=True)
class Tile:
    """One number with the words it needs."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A rater, or a couple, on the review list, and everything that put them there."""

    raters: tuple[str, ...]
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class Seen:
    """A judgement as its rater saw it: the question and the answers, shortened, with their places in the order shown."""

    asked: str
    answers: list[tuple[str, str]]
    said: str
    note: str
    reason: str


@dataclass(frozen=True, slots=True)
class Section:
    """A picture and a table under a title; either may be missing."""

    title: str
    note: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    chart: Any = ""


def tiles_of(found: Quality) -> list[Tile]:
    """The numbers of the whole study."""
    agreement, ceiling = found.agreement, found.ceiling
    return [
        Tile("Two raters agree", share(agreement.share) if agreement else "–",
             f"{_range(agreement.low, agreement.high)} on {count(agreement.pairs)} pairs" if agreement
             else "not known below 20 prompts that two raters decided"),
        Tile("Krippendorff’s alpha", f"{found.alpha.value:.2f}",
             f"{found.alpha.low:.2f} to {found.alpha.high:.2f}; 1 is perfect, 0 is chance")
        if found.raters > 1 and found.alpha.value == found.alpha.value
        else Tile("Krippendorff’s alpha", "–", "not known before two raters judge the same questions"),
        Tile("Ceiling", _range(*ceiling) if ceiling else "–",
             "best accuracy a reward model can show on these labels: the low end if pairs are either clear or a coin flip, the "
             "high end if all are equally hard"),
        Tile("Same answer again", share(found.consistency.value),
             f"{_of(found.consistency)} repeats with sides swapped" if found.consistency.n else "no repeats with sides swapped yet"),
        Tile("Side bias", _points(found.swapped_side_bias), f"how much oftener the first shown wins, from {count(found.consistency.n)} repeats"),
        Tile("Gold items right", share(found.gold.value),
             f"{_of(found.gold) if found.gold.n else 'none answered'}; {count(found.attention_failures)} attention checks failed"),
        Tile("Speed", f"{number(found.seconds)} s", f"median time of a judgement; {count(found.per_hour)} an hour of work, "
             f"{count(found.per_day)} a day"),
        Tile("From the random arm", share(1 - found.share_not_random), "or given without a choice; the rest counts neither for agreement nor for alpha"),
    ]  # fmt: skip


def doubts_of(found: Quality) -> list[Doubt]:
    """The review list, one entry for each rater or couple."""
    reasons: dict[tuple[str, ...], list[str]] = {}
    for item in found.review:
        reasons.setdefault((item.rater, item.other) if item.other else (item.rater,), []).append(item.reason)
    return [Doubt(raters, why) for raters, why in reasons.items()]


def seen(judgement: Judgement) -> Seen:
    """A judgement for the page of a rater."""
    order = judgement.order or tuple(range(len(judgement.question.completions)))
    answers = [judgement.question.completions[candidate][-1]["content"] for candidate in order]
    ranks = [_place(judgement.ranks, candidate) if judgement.ranks else "" for candidate in order]
    seconds = judgement.submitted_at - judgement.shown_at
    note = [moment(judgement.submitted_at), f"{number(seconds)} s", f"asked as: {judgement.arm}"]
    said = "" if judgement.ranks else judgement.answer.replace("_", " ")
    if judgement.strength is not None:
        said = f"strength {judgement.strength:g}"
    note += ["replaces an earlier answer"] if judgement.replaces else []
    asked = judgement.question.prompt[-1]["content"] if judgement.question.prompt else ""
    shown = list(zip(map(_short, answers), ranks, strict=True))
    return Seen(_short(asked), shown, said, ", ".join(note), judgement.rationale)


def _place(ranks: Sequence[float], candidate: int) -> str:
    """1st, 2nd, ...; `tie` where all are equal, and `2nd, tied` where some are."""
    own = ranks[candidate]
    better, equal = sum(rank < own for rank in ranks), sum(rank == own for rank in ranks)
    if equal == len(ranks):
        return "tie"
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(better + 1, f"{better + 1}th") + (", tied" if equal > 1 else "")


def _short(text: str, most: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}…"


def sections_of(found: Quality) -> list[Section]:
    """Raters, couples of raters and versions of the guidelines."""
    parts = [_raters(found.table)] if found.table else []
    if found.couples:
        rows = [
            [c.first, c.second, count(c.common), share(c.agreement), share(c.expected), number(c.z)]
            for c in found.couples
        ]
        note = "They agree more than the rater model expects of two independent people."
        parts.append(
            Section("Couples", note, ["first", "second", "common pairs", "agree", "expected", "standard errors"], rows)
        )
    if len(found.guidelines) > 1:
        note = "A jump says that a new version changed the task."
        parts.append(
            Section("Guidelines", note, ["version", "judgements", "ties", "no ranking", "median s"],
                    [[str(version), count(row["judgements"]), share(row["ties"]), share(row["unranked"]), number(row["seconds"])]
                     for version, row in found.guidelines.items()])
        )  # fmt: skip
    return parts


def selection_of(report: tuple[float, str, SelectionReport]) -> Section:
    """Whether active selection earns its keep, as the last `guerdon collect prioritise` found."""
    at, model, found = report
    rows = [
        ["accuracy after training on the random arm", share(found.random)],
        ["accuracy after training on the active arms", share(found.active)],
        ["gain", f"{_points(found.gain)} ({_points(found.low)} to {_points(found.high)})"],
        ["judgements in each", count(found.labels)],
        ["reward model, and when", f"{model}, {moment(at)}"],
    ]
    return Section("Does active selection earn its keep?", found.sentence, (), rows)


def cost_of(bills: Sequence[Spent]) -> Section:
    """What AI raters and generators have cost so far."""
    rows = [
        [b.rater, {"rate": "ratings", "generate": "answers"}[b.purpose], count(b.requests), count(b.prompt_tokens),
         count(b.completion_tokens), "no price given" if b.cost is None else money(b.cost)]
        for b in bills
    ]  # fmt: skip
    return Section("Cost of models", "In the currency of the prices that were given.",
                   ["model", "for", "calls", "tokens in", "tokens out", "cost"], rows)  # fmt: skip


def _raters(table: Sequence[RaterQuality]) -> Section:
    drawn = [row for row in table[:DRAWN] if row.model or row.left.n]
    skills = [row.skill for row in drawn]
    shown = [
        charts.Panel(
            "Skill",
            *_ends([skill.value for skill in skills if skill], 0, 2),
            1,
            [_span(skill) if skill else None for skill in skills],
        ),
        charts.Panel("Side bias", -0.5, 0.5, 0, [_span(row.side) if row.side else None for row in drawn]),
        charts.Panel("Longer answer wins", 0, 1, 0.5, [_span(row.longer) for row in drawn]),
        charts.Panel("Gold items right", 0, 1, 0.7, [_span(row.gold) for row in drawn]),
    ]
    note = ("Skill 1 is the typical rater, 0 is guessing. Side bias is how much oftener than not the first shown wins an even pair. "
            "The skill of a rater with few votes in common with others is not known. Formatted: with lists, headings, code or bold. Very fast: in "
            "less than a fifth of the study’s median time. Lines and small print are 95 % intervals; an arrow says that one goes on.")  # fmt: skip
    if len(table) > LISTED:
        note += f" The {LISTED} with most judgements of {count(len(table))}."
    header = ["rater", "judgements", "median s", "skill", "side bias", "first shown wins", "longer wins", "formatted wins",
              "very fast", "gold right", "same again", "attention failed"]  # fmt: skip
    picture = charts.panels([row.rater for row in drawn], shown, "Raters") if len(drawn) > 1 else ""
    return Section("Raters", note, header, [_rater(row) for row in table[:LISTED]], picture)


def _rater(row: RaterQuality) -> list[Cell]:
    skill, side = _cell(row.skill, ".2f"), _cell(row.side, "+.2f")
    parts = (row.left, row.longer, row.formatted, row.fast, row.gold, row.consistent)
    shares: list[Cell] = [
        (f"{100 * part.value:.0f}\u202f%", f"{100 * part.low:.0f} to {100 * part.high:.0f}") if part.n else "–"
        for part in parts
    ]
    return [row.rater, count(row.judgements), number(row.seconds), skill, side, *shares, count(row.attention_failures)]


def _cell(found: Interval | None, form: str) -> Cell:
    return (f"{found.value:{form}}", f"{found.low:{form}} to {found.high:{form}}") if found else "–"


def _ends(values: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """An axis in whole numbers that holds all values, at least from low to high."""
    return float(min([low, *map(math.floor, values)])), float(max([high, *map(math.ceil, values)]))


def _span(found: Share | Interval) -> tuple[float, float, float] | None:
    return None if found.value != found.value else (found.value, found.low, found.high)


def _of(found: Share) -> str:
    return f"{_range(found.low, found.high)} of {count(found.n)}"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {share(high)}" if low == low else "–"


def _points(value: float) -> str:
    return "–" if value != value else f"{100 * value:+.1f} points"
