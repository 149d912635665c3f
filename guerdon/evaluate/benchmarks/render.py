"""A benchmark report for people at a terminal: models and trivial rows, further numbers, and the protocol record."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guerdon.evaluate.benchmarks.estimate import Estimate
from guerdon.evaluate.benchmarks.protocol import Protocol
from guerdon.evaluate.benchmarks.run import Report, find

MOST_COLUMNS = 6
MOST_DETAILED = 6
MOST_BESIDE_TRIVIAL = 2


def render(report: Report) -> RenderableType:
    """Tables: the headline by category for every row, the details, the record, and what makes the numbers doubtful."""
    first = next(iter(report.rows.values()))
    what = f"{find(report.benchmark).title}: {first.metric}; {first.items:,} items, {first.prompts:,} prompts"
    parts: list[RenderableType] = [Group(Text(what, style="bold"), _headline(report))]
    if first.details and len(report.rows) <= MOST_DETAILED:
        parts.append(Group(Text("Further numbers", style="bold"), _details(report)))
    if first.curves and len(report.rows) <= MOST_BESIDE_TRIVIAL:
        parts.append(Group(Text("Curves", style="bold"), _curves(report)))
    parts.append(Group(Text("Protocol", style="bold"), _protocol(report.protocol)))
    notes = dict.fromkeys(note for row in report.rows.values() for note in row.notes)
    parts += [Padding(Text(f"! {line}", style="yellow"), (0, 1)) for line in (*notes, *report.protocol.warnings())]
    return Group(*(item for part in parts for item in (part, Text())))


def _table() -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", overflow="fold")
    return table


def _headline(report: Report) -> Table:
    first = next(iter(report.rows.values()))
    table = _table()
    names = list(first.categories) if len(first.categories) <= MOST_COLUMNS else []
    for heading in ("overall", "95 %", *names, "ties", "unscored"):
        table.add_column(Text(heading), justify="right")
    for rows, style in ((report.rows, ""), (report.trivial, "dim")):
        for name, row in rows.items():
            cells = [percent(row.overall.value), interval(row.overall)]
            cells += [percent(row.categories[c].value) if c in row.categories else "–" for c in names]
            table.add_row(Text(name), *cells, f"{row.ties:,}", f"{row.unscored:,}", style=style)
    return table


def _details(report: Report) -> Table:
    """One line per number; beside a few models also the trivial rows, without intervals."""
    table = _table()
    rows = dict(report.rows) | (dict(report.trivial) if len(report.rows) <= MOST_BESIDE_TRIVIAL else {})
    for name in rows:
        table.add_column(Text(name), justify="right")
    first = next(iter(rows.values()))
    wide = first.categories if len(first.categories) > MOST_COLUMNS else {}
    for name in (*wide, *first.details):
        found = [row.details.get(name) or row.categories.get(name) or Estimate(math.nan) for row in rows.values()]
        models = len(report.rows)
        cells = [*map(_cell, found[:models]), *(percent(estimate.value) for estimate in found[models:])]
        table.add_row(Text(name), *cells)
    return table


def _curves(report: Report) -> Table:
    table = _table()
    table.add_column("percent", overflow="fold")
    for name, row in report.rows.items():
        for curve, values in row.curves.items():
            table.add_row(Text(f"{name}: {curve}"), " ".join(f"{100 * value:.1f}" for value in values))
    return table


def _cell(estimate: Estimate) -> str:
    return percent(estimate.value) if math.isnan(estimate.low) else f"{percent(estimate.value)} ({interval(estimate)})"


def _protocol(protocol: Protocol) -> Table:
    table = _table()
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
