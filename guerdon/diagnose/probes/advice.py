"""What the probes found, in sentences: shared by the terminal and the page."""

from __future__ import annotations

from guerdon.diagnose.probes.catalog import PROBES
from guerdon.diagnose.probes.results import ProbeReport, ProbeResult
from guerdon.diagnose.probes.statistics import MARGIN

_BY_NAME = {probe.name: probe for probe in PROBES}


def headline(report: ProbeReport) -> str:
    """One sentence with the three counts."""
    biased, clean, unclear = (len(report.named(verdict)) for verdict in ("biased", "clean", "unclear"))
    return (
        f"Of {len(report.probes)} probes {biased} find a fault, {clean} are shown to be clean (to {MARGIN:g} SD), "
        f"and {unclear} are unclear."
    )


def advice(report: ProbeReport) -> list[str]:
    """For every probe that was failed: what was found and what to do."""
    return [finding(probe) for probe in report.named("biased")]


def wanted(report: ProbeReport) -> list[str]:
    """What would settle the unclear probes, if anything."""
    unclear = [probe for probe in report.named("unclear") if any(effect.prompts for effect in probe.effects)]
    open_ones = [(probe.name, probe.prompts_needed) for probe in unclear]
    countable = [f"{name} about {needed:,} prompts" for name, needed in open_ones if needed is not None]
    hopeless = [name for name, needed in open_ones if needed is None]
    lines = [f"Unclear, and what would settle it: {', '.join(countable)} (--limit)."] if countable else []
    if hopeless:
        lines.append(
            f"Unclear, and more prompts would not settle it: {', '.join(hopeless)}. The effect lies near the bound, or it "
            "depends on the phrase."
        )
    return lines


def finding(probe: ProbeResult) -> str:
    """One failed probe: its effect, its flips, and the remedy."""
    worst, known = probe.worst, _BY_NAME.get(probe.name)
    what = f"{probe.name}{f' ({worst.variant})' if worst.variant else ''}"
    effect = f"{worst.effect:+.2f} SD ({worst.low:+.2f} to {worst.high:+.2f}), and it {probe.expectation}"
    flips = ""
    if worst.flip_rate is not None and worst.placebo_flip_rate is not None:
        flips = (
            f"; {100 * worst.flip_rate:.0f} % of right orders are turned round, "
            f"{100 * worst.placebo_flip_rate:.0f} % by the reference"
        )
    return f"{what}: {effect}{flips}." + (f" {known.meaning} {known.remedy}" if known else "")
