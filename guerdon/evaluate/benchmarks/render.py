"""A benchmark report for people at a terminal: models and trivial rows, further numbers, and the protocol record."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guerdon.evaluate.benchmarks.estimate import Estimate
from guerdon.evaluate.benchmarks.protocol import Protocol
from guerdon.evaluate.benchmarks.run import Report, find

MOST_COLUMNS = 5
NAME = 34  # characters of a name on one line
MOST_DETAILED = 6
MOST_BESIDE_TRIVIAL = 2


def render(report: Report) -> RenderableType:
    """Tables: the headline by category for every row, the details, the record, and what makes the numbers doubtful."""
    first = next(iter(report.rows.values()))
    what = f"{find(report.benchmark).title}: {first.metric}; {first.items:,} items, {first.prompts:,} prompts"
    parts: list[RenderableType] = [Group(Text(what, style="bold"), _headline(report))]
    if report.groups:
        parts.append(Text(" Models that share a group letter cannot be told apart on these items.", style="dim"))
    if first.categories:
        parts.append(Group(Text("By category", style="bold"), _categories(report)))
    if first.details and len(report.rows) <= MOST_DETAILED:
        parts.append(Group(Text("Further numbers", style="bold"), _details(report)))
    if first.curves and len(report.rows) <= MOST_BESIDE_TRIVIAL:
        parts.append(Group(Text("Curves", style="bold"), _curves(report)))
    parts.append(Group(Text("Protocol", style="bold"), _protocol(report.protocol)))
    notes = dict.fromkeys(note for row in report.rows.values() for note in row.notes)
    parts += [Padding(Text(f"! {line}", style="yellow"), (0, 1)) for line in (*notes, *report.protocol.warnings())]
    return Group(*(item for part in parts for item in (part, Text())))


def _table(*headings: str) -> Table:
    """A column of names, folded at `NAME` characters, and columns of numbers that never break."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", overflow="fold", max_width=NAME)
    for heading in headings:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    return table


def _headline(report: Report) -> Table:
    table = _table("overall", "95 %", *(["group"] if report.groups else []), "ties", "unscored")
    for rows, style in ((report.rows, ""), (report.trivial, "dim")):
        for name, row in rows.items():
            groups = [report.groups.get(name, "")] if report.groups else []
            cells = (percent(row.overall.value), interval(row.overall), *groups, f"{row.ties:,}", f"{row.unscored:,}")
            table.add_row(_name(name), *cells, style=style)
    return table


def _categories(report: Report) -> Table:
    """Every row by category; where there are many, the categories stand below each other, for models alone."""
    first = next(iter(report.rows.values()))
    if len(first.categories) <= MOST_COLUMNS:
        table = _table(*first.categories)
        for rows, style in ((report.rows, ""), (report.trivial, "dim")):
            for name, row in rows.items():
                cells = (percent(row.categories[c].value) if c in row.categories else "–" for c in first.categories)
                table.add_row(_name(name), *cells, style=style)
        return table
    return _listed({name: row.categories for name, row in report.rows.items()})


def _details(report: Report) -> Table:
    rows = dict(report.rows) | (dict(report.trivial) if len(report.rows) <= MOST_BESIDE_TRIVIAL else {})
    return _listed({name: row.details for name, row in rows.items()})


def _listed(numbers: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """One line per number and row: what it is, whose, and its interval."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", overflow="fold", max_width=NAME)
    table.add_column("", overflow="fold", max_width=NAME, style="dim")
    for heading in ("value", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number in dict.fromkeys(number for found in numbers.values() for number in found):
        label = number
        for name, found in numbers.items():
            if number in found:
                table.add_row(Text(label), _name(name), percent(found[number].value), interval(found[number]))
                label = ""
    return table


def _name(name: str) -> Text:
    """A model without its owner or folders."""
    return Text(name.rstrip("/").rpartition("/")[2] or name)


def _curves(report: Report) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", overflow="fold", max_width=NAME)
    table.add_column("percent", overflow="fold")
    for name, row in report.rows.items():
        for curve, values in row.curves.items():
            table.add_row(Text(f"{name}: {curve}"), " ".join(f"{100 * value:.1f}" for value in values))
    return table


def _protocol(protocol: Protocol) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, value in protocol.to_dict().items():
        if value is None:
            continue
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else _fact(value)
        table.add_row(Text(name.replace("_", " ")), Text(shown))
    return table


def _fact(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def percent(share: float) -> str:
    """A share in percent with two decimals, as benchmark tables are printed."""
    return "–" if math.isnan(share) else f"{100 * share:.2f}"


def interval(estimate: Estimate) -> str:
    """The 95 % interval in percent."""
    return "–" if math.isnan(estimate.low) else f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"
