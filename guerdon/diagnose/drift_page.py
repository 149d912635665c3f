"""The drift check for people: a table at the terminal, and one HTML page with pictures, verdict first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guerdon.diagnose.drift import Drift
from guerdon.diagnose.drift_charts import accuracy_by_distance, forest, reward_histograms, shift_forest
from guerdon.diagnose.drift_measures import POOLED_SD, RATIO, REFERENCE_SD, Measure
from guerdon.diagnose.drift_verdict import INSIDE
from guerdon.diagnose.page import Html, document, element, figure, findings, grid, measured, wrap

HEAD = ("", "reference", "current", "difference", "95 %", "p (Holm)")
UNITS = {REFERENCE_SD: " SD", POOLED_SD: " SD", RATIO: " ×"}
PARTS = {"features": "What the answers are like", "reward": "What reward they get", "answers": "How they look"}


def render(drift: Drift, title: str) -> RenderableType:
    """All measures by part, the accuracy at stake, the verdict and what to do."""
    table = Table(title=Text(f"{title}: {_counts(drift)}"), title_justify="left", title_style="bold", box=None)
    table.padding = (0, 1)
    for number, name in enumerate(HEAD):
        table.add_column(name, justify="right" if number else "left", no_wrap=True, header_style="dim")
    for part in PARTS:
        lines = [m for m in drift.measures if m.part == part]
        for m in lines:
            table.add_row(*_cells(m), style="yellow" if m.is_significant else "")
        if lines:
            table.add_row()
    style = "green" if drift.verdict == INSIDE else "yellow"
    parts: list[RenderableType] = [table, Padding(Text(f"verdict: {drift.verdict}", style=f"bold {style}"), (0, 1))]
    for advice in drift.advice:
        mark = "! " if advice.is_warning else "  "
        parts.append(Padding(Text(mark + advice.text, style="yellow" if advice.is_warning else ""), (0, 1)))
    return Group(*parts, *(Padding(Text(line, style="dim"), (0, 1)) for line in _left_out(drift)))


def page(drift: Drift, title: str, facts: Mapping[str, str]) -> str:
    """The same as one self-contained HTML file. Raises ConfigError when matplotlib is missing."""
    return document(title, [*_head(drift, title), *_pictures(drift), *_tables(drift), *_facts(drift, facts)])


def _head(drift: Drift, title: str) -> Iterator[Html]:
    yield element("p", f"Drift check · {_counts(drift)}", "kicker")
    yield element("h1", title)
    yield element("p", drift.verdict[:1].upper() + drift.verdict[1:] + ".", "lead")
    yield from findings([(a.text, a.is_warning) for a in drift.advice])


def _pictures(drift: Drift) -> Iterator[Html]:
    reference, current = drift.rewards
    pictures = []
    if len(reference) and len(current):
        pictures.append(
            figure(
                reward_histograms(reference, current),
                "Rewards of both sides; dashed lines are means. A current side that lies right of all reference "
                "rewards earns what the model never saw judged: read those answers before believing the gain.",
            )
        )
    if drift.curve is not None:
        pictures.append(
            figure(
                accuracy_by_distance(drift.curve),
                "Share of labelled pairs in the right order, by the mean Mahalanobis distance of their answers, in "
                "six bins of equal size with 95 % bands. Where it falls towards chance, collect comparisons.",
            )
        )
    yield element("h2", "Is the reward still at home?")
    if pictures:
        yield wrap("div", pictures, "pair")
    if forest(drift.measures):
        yield figure(
            shift_forest(drift.measures),
            "How far the mean of each quantity has moved, with 95 % intervals over prompts; orange ones survive the "
            "correction for all tests. A shift the policy was not asked for, such as length, is a likely exploit: "
            "probe the reward for it.",
            wide=True,
        )


def _tables(drift: Drift) -> Iterator[Html]:
    for part, heading in PARTS.items():
        rows = [_cells(m) for m in drift.measures if m.part == part]
        if rows:
            yield element("h2", heading)
            yield wrap("div", [grid(HEAD, rows)], "scroll")
    rows = [
        (
            a.road,
            *(_share(x) for x in (a.reference, a.current, a.loss)),
            f"{_share(a.low)} to {_share(a.high)}",
            f"{a.pairs:,.0f}",
            _p(a.p_holm),
        )
        for a in drift.accuracy
        if not a.refused
    ]
    if rows:
        yield element("h2", "What accuracy is lost")
        head = ("known from", "reference", "current", "lost", "95 %", "pairs", "p (Holm)")
        yield wrap("div", [grid(head, rows)], "scroll")


def _facts(drift: Drift, facts: Mapping[str, str]) -> Iterator[Html]:
    yield from measured({"compared by": drift.compared, **facts, **dict.fromkeys(_left_out(drift), "")})


def _counts(drift: Drift) -> str:
    (before, now), (old, new) = drift.answers, drift.prompts
    shared = f", {drift.shared_prompts:,} prompts in both" if drift.shared_prompts else ""
    return f"{before:,} reference answers to {old:,} prompts, {now:,} current ones to {new:,}{shared}"


def _left_out(drift: Drift) -> Iterator[str]:
    yield f"compared by {drift.compared}, at most {drift.per_prompt} answers per prompt"
    for side, count in zip(("reference", "current"), drift.unscored, strict=True):
        if count:
            yield f"{count:,} {side} answers have no reward"
    for side, reasons in drift.dropped.items():
        for reason, count in reasons.items():
            yield f"{count:,} {side} rows left out: {reason}"


def _cells(m: Measure) -> tuple[str, ...]:
    interval = "–" if math.isnan(m.low) else f"{_number(m.low)} to {_number(m.high)}"
    size = _number(m.value) + UNITS.get(m.unit, "")
    return (m.name, _number(m.reference), _number(m.current), size, interval, _p(m.p_holm))


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"
