"""The picture of the probes: every effect with its interval on one axis, and the band of effects that do not matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from guerdon.diagnose.draw import ACCENT, BAND, MUTED, WARM, WIDE, draw
from guerdon.diagnose.probes.results import ProbeResult
from guerdon.diagnose.probes.statistics import MARGIN

COLOR = {"biased": WARM, "clean": ACCENT, "unclear": MUTED}
REACH = 1.5  # standard deviations shown; longer effects end in an arrow
EXPECTED = {"should not rise": "should not rise", "should not change": "should stay", "should fall": "should fall"}


def forest(probes: Sequence[ProbeResult], margin: float = MARGIN) -> str:
    """One row per probe: the effect of its worst variant and the 95 % interval, in SD of the reward, by verdict."""
    shown = [probe for probe in probes if math.isfinite(probe.worst.effect)]
    reach = max([2 * margin, *(min(REACH, abs(x)) * 1.08 for p in shown for x in _ends(p))])

    def paint(axes: Any) -> None:
        axes.set(xlim=(-reach, reach), ylim=(-0.7, len(shown) - 0.3), yticks=[])
        axes.set_xlabel("effect on the reward, standard deviations")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.axvspan(-margin, margin, color=BAND, alpha=0.16, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        for y, probe in zip(range(len(shown) - 1, -1, -1), shown, strict=True):
            _row(axes, y, probe, reach)

    spoken = "; ".join(f"{probe.name} {probe.worst.effect:+.2f}, {probe.verdict}" for probe in shown)
    head = f"Effect of each probe in standard deviations of the reward, band of ±{margin:g}"
    return draw(f"{head}: {spoken}", WIDE, 70 + 24 * len(shown), (250, 170, 10, 48), paint)


def _row(axes: Any, y: int, probe: ProbeResult, reach: float) -> None:
    across, color, worst = axes.get_yaxis_transform(), COLOR[probe.verdict], probe.worst
    low, high = (min(max(x, -reach), reach) for x in _ends(probe))
    at = min(max(worst.effect, -reach), reach)
    axes.plot([low, high], [y, y], color=color, linewidth=5, alpha=0.35)
    mark = "o" if abs(worst.effect) <= reach else "<" if worst.effect < 0 else ">"
    axes.plot([at], [y], mark, color=color, markersize=7.5, clip_on=False)
    label = probe.name + (f", {worst.variant[:18]}" if worst.variant else "")
    axes.annotate(label, (0, y), (-12, 0), across, "offset pixels", ha="right", va="center", color=color)
    told = f"{worst.effect:+.2f}  {EXPECTED[probe.expectation]}"
    axes.annotate(told, (1, y), (12, 0), across, "offset pixels", va="center", color=color)


def _ends(probe: ProbeResult) -> tuple[float, float]:
    """Ends of the interval; the effect itself where there is none."""
    worst = probe.worst
    return (worst.low, worst.high) if math.isfinite(worst.low) else (worst.effect, worst.effect)
