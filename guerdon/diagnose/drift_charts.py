"""The pictures of the drift check: rewards of both sides, all shifts on one axis, accuracy by distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.diagnose.draw import ACCENT, HALF, INK, MUTED, WARM, WIDE, draw
from guerdon.diagnose.drift import Curve
from guerdon.diagnose.drift_measures import POOLED_SD, REFERENCE_SD, Measure
from guerdon.evaluate.columns import Floats


def reward_histograms(reference: Floats, current: Floats) -> str:
    """Rewards of reference and current answers, each side as shares of its own answers."""
    both = np.concatenate([reference, current])
    low, high = np.quantile(both, [0.001, 0.999])
    low, high = (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, min(40, max(12, round(2 * len(both) ** (1 / 3)))) + 1)

    def paint(axes: Any) -> None:
        top = 0.0
        for values, color in ((reference, ACCENT), (current, WARM)):
            shares = np.histogram(np.clip(values, low, high), edges)[0] / len(values)
            top = max(top, float(shares.max()))
            axes.stairs(shares, edges, fill=True, color=color, alpha=0.22, linewidth=0)
            axes.stairs(shares, edges, color=color, linewidth=1.5)
            axes.axvline(values.mean(), ymax=0.88, color=color, linewidth=1, dashes=(3, 3))
        axes.set(ylim=(0, top * 1.22), xlabel="reward", ylabel="share of answers")
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
        axes.grid(axis="y")
        labels = ((0.0, "reference", reference, "left", ACCENT), (1.0, "current", current, "right", WARM))
        for x, name, values, side, color in labels:
            text = f"{name}, mean {values.mean():+.2f}"
            axes.text(x, 0.99, text, transform=axes.transAxes, ha=side, va="top", color=color)

    spoken = f"Rewards: reference mean {reference.mean():.2f}, current mean {current.mean():.2f}"
    return draw(spoken, HALF, 280, (62, 16, 12, 44), paint)


def shift_forest(measures: Sequence[Measure]) -> str:
    """Measures in standard deviations with their intervals; those that survive correction are coloured."""
    shown = forest(measures)
    ends = [x for m in shown for x in (m.value, m.low, m.high) if math.isfinite(x)]
    reach = min(max([0.5, *(abs(x) for x in ends)]) * 1.08, 6.0)
    rows = np.arange(len(shown))[::-1]

    def paint(axes: Any) -> None:
        left = -reach if min([0.0, *ends]) < -0.02 else -0.12 * reach
        axes.set(xlim=(left, reach), ylim=(-0.7, len(shown) - 0.3), yticks=[], xlabel="shift, in standard deviations")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.axvline(0, color=MUTED, linewidth=1)
        across = axes.get_yaxis_transform()
        for y, m in zip(rows, shown, strict=True):
            color = WARM if m.is_significant else ACCENT
            axes.plot(np.clip([m.low, m.high], left, reach), [y, y], color=color, linewidth=5, alpha=0.35)
            axes.plot([min(max(m.value, left), reach)], [y], "o", color=color, markersize=7)
            axes.annotate(m.name, (0, y), (-12, 0), across, "offset pixels", ha="right", va="center", color=INK)
            text = f"{m.value:+.2f}  ({m.low:+.2f} to {m.high:+.2f})"
            axes.annotate(text, (1, y), (12, 0), across, "offset pixels", va="center", color=INK)

    spoken = "; ".join(f"{m.name} {m.value:+.2f} SD" for m in shown)
    return draw(f"Shifts: {spoken}", WIDE, 66 + 28 * len(shown), (150, 170, 12, 46), paint)


def forest(measures: Sequence[Measure]) -> list[Measure]:
    """The measures that share an axis: shifts in standard deviations that have an interval and somewhere to go."""
    return [m for m in measures if m.unit in (REFERENCE_SD, POOLED_SD) and m.high > m.low]


def accuracy_by_distance(curve: Curve) -> str:
    """Share of pairs put in the right order, by how far their answers lie from the reference."""

    def paint(axes: Any) -> None:
        axes.set(xlabel="distance from the reference", ylabel="accuracy")
        axes.set_ylim(min(0.45, float(curve.low.min()) - 0.02), 1.01)
        axes.grid(axis="y")
        axes.axhline(0.5, color=MUTED, linewidth=1, dashes=(3, 3))
        axes.fill_between(curve.distance, curve.low, curve.high, color=ACCENT, alpha=0.16, linewidth=0)
        axes.plot(curve.distance, curve.accuracy, "o-", color=ACCENT, linewidth=1.6, markersize=5.5, clip_on=False)
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")

    points = ", ".join(f"{100 * a:.0f} % at {d:.1f}" for d, a in zip(curve.distance, curve.accuracy, strict=True))
    return draw(f"Accuracy by distance: {points}", HALF, 280, (62, 16, 12, 44), paint)
