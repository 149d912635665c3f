"""The probes as a section of an HTML report, and as a page of its own. Needs the extra `report`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from guerdon.diagnose.page import Html, document, element, figure, findings, grid, measured
from guerdon.diagnose.probe_charts import forest
from guerdon.diagnose.probes.advice import advice, headline, wanted
from guerdon.diagnose.probes.results import Effect, ProbeReport, ProbeResult
from guerdon.files import write_text


def write_page(path: Path | str, report: ProbeReport, *, title: str, facts: Mapping[str, str] | None = None) -> None:
    """Write a self-contained page; an old one is replaced once the new one is whole."""
    body = [
        element("p", "Reward model probes", "kicker"),
        element("h1", title),
        *section(report),
        *measured(facts or {}),
    ]
    write_text(Path(path), document(title, body))


def section(report: ProbeReport) -> Iterator[Html]:
    """Findings, the chart, every number, and the share of the prompt."""
    yield element("h2", "How can it be gamed?")
    yield element("p", headline(report), "lead")
    faults = [(line, True) for line in (*report.warnings, *advice(report))]
    yield from findings([*faults, *((line, False) for line in wanted(report))])
    if any(math.isfinite(probe.worst.effect) for probe in report.probes):
        yield figure(
            forest(report.probes),
            "Each row changes one thing in an answer or its prompt; the dot is what that does to the reward beside the "
            "original or neutral text of equal length, the bar its 95 % interval. Inside the shaded band an effect does "
            "not matter. Orange probes fail, blue ones are shown to be clean, grey ones need more data. What should fall "
            "has to lie left of the band.",
            wide=True,
        )
    yield from _numbers(report)
    yield from _independence(report)


def _numbers(report: ProbeReport) -> Iterator[Html]:
    yield element("h3", "Every variant")
    head = ("probe", "SD", "95 % interval", "wins", "flips", "by reference", "p (Holm)", "verdict", "cut")
    yield grid(head, [_row(probe, effect) for probe in report.probes for effect in probe.effects])
    yield element(
        "p",
        f"One standard deviation is {report.spread:.4g} of reward, {report.spread_kind}, over {report.comparisons:,} comparisons "
        f"from {report.prompts:,} prompts; {report.left_out:,} others were left out. The chance of any false alarm in this "
        "table is at most 5 %.",
        "note",
    )


def _row(probe: ProbeResult, effect: Effect) -> tuple[str, ...]:
    name = f"{probe.name}, {effect.variant}" if effect.variant else probe.name
    interval = "–" if math.isnan(effect.low) else f"{effect.low:+.2f} to {effect.high:+.2f}"
    value = "–" if math.isnan(effect.effect) else f"{effect.effect:+.2f}"
    rates = (effect.win_rate, effect.flip_rate, effect.placebo_flip_rate)
    return name, value, interval, *map(_percent, rates), f"{effect.p_holm:.3f}", effect.verdict, f"{effect.truncated:,}"


def _independence(report: ProbeReport) -> Iterator[Html]:
    part = report.independence
    if part is None:
        return
    yield element("h3", "Does it read the prompt?")
    yield grid(
        ("", "with the prompt", "without"),
        [
            ("accuracy", _percent(part.accuracy), _percent(part.accuracy_removed)),
            ("95 % interval", *(f"{100 * low:.1f} to {100 * high:.1f}" for low, high in _intervals(report))),
            ("variance of the reward", "100 %", _percent(part.share)),
            ("correlation of margins", "1", f"{part.correlation:.2f}"),
        ],
    )
    yield element(
        "p",
        "What is left of accuracy without the prompt comes from the answers alone: style, fluency, length. A reward that "
        "loses nothing does not read the question.",
        "note",
    )


def _intervals(report: ProbeReport) -> Iterator[tuple[float, float]]:
    part = report.independence
    assert part is not None
    yield part.accuracy_low, part.accuracy_high
    yield part.accuracy_removed_low, part.accuracy_removed_high


def _percent(share: float | None) -> str:
    return "–" if share is None or math.isnan(share) else f"{100 * share:.0f}\u00a0%"
