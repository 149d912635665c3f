"""A check as tables for the terminal, and as findings with one line of advice each.

In: a `Check`. Out: a rich renderable, and `Finding`s in the order of their harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from guerdon.data.check import Check

LONGER_WINS = (0.35, 0.65)  # beyond these, length alone is a better judge than most raters are consistent


@dataclass(frozen=True)
class Finding:
    """One thing that needs action: what, how often, what to do, and the first places where it occurs."""

    what: str
    count: int
    advice: str
    places: tuple[str, ...] = ()


_DROPPED = {
    "empty answer": "kept out; collect these answers again, or delete the rows to silence this",
    "identical answers": "kept out, because the same text twice holds no preference",
    "answer too long": "kept out; such rows are mostly logs or a broken export",
    "no label": "kept out; label them or delete the rows",
    "margin not finite": "kept out; write the margin as a finite number, or leave it out",
    "fewer than two answers": "kept out; a comparison needs two",
    "skip": "kept out; read the reasons, many skips mean an unclear task",
    "flag": "kept out; look at what the raters found wrong with these questions",
    "all bad": "kept out, because they order nothing; collect better candidates",
    "replaced": "kept out; the rater took these back and judged again",
    "delivered twice": "kept out; the same judgement is in the data already",
    "judged by a model": "kept out; models count only when they are asked for, and the reverse for humans",
    "judged by a human": "kept out; humans are not asked for",
    "gold item": "kept out; the answer was known before",
    "attention item": "kept out; the answer was known before",
    "training item": "kept out; the answer was known before",
}


def findings(check: Check) -> list[Finding]:
    """What needs action, the most serious first."""
    return list(_findings(check))


def _findings(check: Check) -> Iterator[Finding]:
    def found(what: str, count: int, advice: str, key: str) -> Iterator[Finding]:
        if count:
            yield Finding(what, count, advice, tuple(check.examples.get(key, ())))

    if not check.comparisons:
        yield Finding("no usable comparisons", 0, "nothing can be trained on; see the reasons below")
    for reason, count in sorted(check.dropped.items(), key=lambda item: -item[1]):
        yield from found(f"rows with {reason}", count, _DROPPED.get(reason, "kept out"), reason)
    yield from found(
        "pairs with contradicting labels",
        check.contradicting,
        "decide each, or merge them into one tie; left alone they teach noise",
        "contradicting",
    )
    repeats = "keep one of each, unless several annotators judged the same pair"
    yield from found("repeated pairs", check.duplicates, repeats, "duplicates")
    yield from found("repeated pairs in the other order", check.swapped, repeats, "swapped")
    yield from found(
        "comparisons the chat template refuses",
        check.refused,
        "use a model whose template takes these roles in this order, or remove the rows",
        "refused",
    )
    yield from found(
        "comparisons that differ only in what is cut",
        check.cut_identical,
        "they teach nothing at this limit; raise --max-length or remove them",
        "cut_identical",
    )
    yield from found(
        f"comparisons over the limit of {check.max_length}",
        check.cut,
        "they lose one end; raise --max-length if the memory allows",
        "cut",
    )
    yield from found(
        f"comparisons with template markers ({_some(check.leftovers)})",
        max(check.leftovers.values(), default=0),
        "remove the markers, the model's own template writes them",
        "leftovers",
    )
    yield from found(
        f"comparisons with odd characters ({_some(check.odd_characters)})",
        max(check.odd_characters.values(), default=0),
        "look at the source's encoding; a model can learn them as a sign of quality",
        "odd_characters",
    )
    yield from _length_bias(check)


def _length_bias(check: Check) -> Iterator[Finding]:
    if check.longer_wins is None or check.pairs - check.ties < 50:
        return
    low, high = LONGER_WINS
    if not low <= check.longer_wins <= high:
        side = "longer" if check.longer_wins > high else "shorter"
        share = max(check.longer_wins, 1 - check.longer_wins)
        yield Finding(
            f"the {side} answer wins {share:.0%} of the decided pairs",
            round(share * (check.pairs - check.ties)),
            "compare every accuracy with this number, and test the model for length bias",
        )


def _some(counts: Mapping[str, int], most: int = 3) -> str:
    names = sorted(counts, key=lambda name: -counts[name])
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def render(check: Check) -> RenderableType:
    """Three tables: what there is, how long it is, and what needs action."""
    parts: list[RenderableType] = [Text(check.path, style="bold"), _contents(check)]
    if check.comparisons:
        parts += [Text("\nLengths", style="bold"), _lengths(check)]
    needed = findings(check)
    if needed:
        parts += [Text("\nNeeds action", style="bold"), _advice(needed, _folder(check.path))]
    else:
        parts.append(Text("\nNothing found that needs action.", style="green"))
    return Group(*parts)


def _folder(path: str) -> str:
    """What all places start with, which would only fill the lines."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    return "" if folder == Path() else f"{folder}{os.sep}"


def _contents(check: Check) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in _facts(check):
        table.add_row(name, escape(value))
    return table


def _facts(check: Check) -> Iterator[tuple[str, str]]:
    kept_out = sum(check.dropped.values())
    whose = "of their judgements" if kept_out + check.comparisons > check.rows else "of which"  # a row may hold several
    yield "format", f"{check.format} in {_plural(check.files, 'file')}"
    yield "rows", f"{check.rows:,}" + (f", {whose} {kept_out:,} are kept out" if kept_out else ", all usable")
    yield "comparisons", f"{check.comparisons:,} over {_plural(check.prompts, 'different prompt')}"
    if not check.comparisons:
        return
    yield "answers", _histogram(check.completions, "each")
    yield "pairs", f"{check.pairs:,}, {check.ties:,} of them ties"
    yield "prompt turns", _histogram(check.turns, "turns")
    if check.longer_wins is not None:
        equal = f" ({check.equal_lengths:,} of equal length count half)" if check.equal_lengths else ""
        yield "longer wins", f"{check.longer_wins:.1%} of decided pairs{equal}"
    if check.strength:
        yield "strength", "  ".join(f"{name} {value:g}" for name, value in check.strength.items())
    if check.annotators:
        name, most = next(iter(check.annotators.items()))
        yield "annotators", f"{check.annotator_count:,}; most active: {name}, {most:,} comparisons"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _histogram(counts: Mapping[int, int], noun: str, most: int = 6) -> str:
    shown = sorted(sorted(counts, key=lambda key: -counts[key])[:most])
    parts = [f"{key} {noun}: {counts[key]:,}" for key in shown]
    rest = sum(counts.values()) - sum(counts[key] for key in shown)
    return ", ".join(parts) + (f", other: {rest:,}" if rest else "")


def _lengths(check: Check) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(check.length_unit)
    for name in ("median", "95 %", "max"):
        table.add_column(name, justify="right")
    for name, spread in check.lengths.items():
        table.add_row(name, f"{spread.median:,}", f"{spread.p95:,}", f"{spread.max:,}")
    return table


def _advice(needed: list[Finding], folder: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("count", justify="right", style="yellow")
    table.add_column("what")
    table.add_column("what to do, and where", overflow="fold")
    for finding in needed:
        table.add_row(f"{finding.count:,}", escape(finding.what), escape(finding.advice + _where(finding, folder)))
    return table


def _where(finding: Finding, folder: str) -> str:
    if not finding.places:
        return ""
    places = [place.replace(folder, "") if folder else place for place in finding.places[:2]]
    return f" ({', '.join(places)}{', ...' if finding.count > len(places) else ''})"
