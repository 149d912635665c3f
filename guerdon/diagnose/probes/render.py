"""A `ProbeReport` for people at a terminal: what was tried, what came of it, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guerdon.diagnose.probes.advice import advice, headline, wanted
from guerdon.diagnose.probes.results import Effect, ProbeReport, ProbeResult

WANT = {"should not rise": "≤ 0", "should not change": "= 0", "should fall": "< 0"}
STYLE = {"biased": "bold red", "clean": "green", "unclear": "yellow"}


def render(report: ProbeReport, *, title: str = "Probes") -> RenderableType:
    """One row per probe, by verdict and size; then the doses, the prompt's share, advice and warnings."""
    parts: list[RenderableType] = [_table(report, title), *_graded(report), Text(_independence(report), style="dim")]
    parts += [Padding(Text(f"! {line}", style="yellow"), (0, 1)) for line in report.warnings]
    parts += [Padding(Text(f"• {line}"), (0, 1)) for line in (headline(report), *advice(report), *wanted(report))]
    return Group(*(item for part in parts for item in (part, Text())))


def _table(report: ProbeReport, title: str) -> Table:
    head = (
        f"{title}: {report.comparisons:,} comparisons from {report.prompts:,} prompts; "
        f"1 SD = {report.spread:.3g} of reward, {report.spread_kind}"
    )
    table = Table(
        title=Text(head), title_justify="left", title_style="bold", box=None, padding=(0, 1), header_style="dim"
    )
    table.add_column("probe", overflow="fold", style="bold")
    table.add_column("want", no_wrap=True, style="dim")
    for heading in ("SD", "95 %", "wins", "flips"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("verdict", no_wrap=True)
    order = {"biased": 0, "unclear": 1, "clean": 2}
    for probe in sorted(report.probes, key=lambda probe: order[probe.verdict]):
        verdict = Text(probe.verdict, style=STYLE[probe.verdict])
        table.add_row(Text(_name(probe)), WANT[probe.expectation], *_cells(probe.worst), verdict)
    return table


def _cells(effect: Effect) -> Iterator[str]:
    if math.isnan(effect.effect):
        yield from ("–",) * 4
        return
    yield f"{effect.effect:+.2f}"
    yield "–" if math.isnan(effect.low) else f"{effect.low:+.2f} {effect.high:+.2f}"
    yield f"{100 * effect.win_rate:.0f} %"
    yield "–" if effect.flip_rate is None else f"{100 * effect.flip_rate:.0f} %"


def _graded(report: ProbeReport) -> Iterator[Table]:
    """Effects by dose, one line per graded probe."""
    graded = [probe for probe in report.probes if probe.slope is not None]
    if not graded:
        return
    table = Table(
        title="By dose, in SD", title_justify="left", title_style="bold", box=None, padding=(0, 1), header_style="dim"
    )
    table.add_column("probe", no_wrap=True, style="bold")
    table.add_column("effects")
    table.add_column("slope per unit of dose", no_wrap=True)
    for probe in graded:
        doses = ", ".join(f"{effect.variant}: {effect.effect:+.2f}" for effect in probe.effects)
        ends = f" ({probe.slope_low:+.2f} to {probe.slope_high:+.2f})" if probe.slope_low is not None else ""
        table.add_row(probe.name, doses, f"{probe.slope:+.2f}{ends}")
    yield table


def _independence(report: ProbeReport) -> str:
    part = report.independence
    if part is None:
        return "The share of the prompt cannot be told."
    return (
        f"Without the prompt: accuracy {100 * part.accuracy_removed:.1f} % instead of {100 * part.accuracy:.1f} %, "
        f"{100 * part.share:.0f} % of the reward's variance, margins correlate at {part.correlation:+.2f}."
    )


def _name(probe: ProbeResult) -> str:
    return probe.name + (f", {probe.worst.variant[:24]}" if probe.worst.variant else "")
