"""The pictures of the evaluation report: numbers in, one `<svg>` per function out, with a text for those who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.diagnose.draw import ACCENT, BAND, HALF, INK, MUTED, WARM, WIDE, draw, end_labels, whole_numbers
from guerdon.evaluate.calibration import Reliability
from guerdon.evaluate.columns import Floats


@dataclass(frozen=True)
class Bar:
    """One row of the accuracy chart; `kind` is `model`, `baseline` or `heading`. What is not known is NaN."""

    label: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    kind: str = "model"


def accuracy_bars(bars: Sequence[Bar], ceiling: tuple[float, float] | None) -> str:
    """Accuracies with their intervals on one axis, beside chance and the ceiling."""
    values = [x for bar in bars for x in (bar.value, bar.low, bar.high) if math.isfinite(x)] + list(ceiling or ())
    left, right = min([0.44, *(x - 0.03 for x in values)]), min(1.005, max([0.7, *(x + 0.03 for x in values)]))
    rows = np.arange(len(bars))[::-1]

    def paint(axes: Any) -> None:
        axes.set(xlim=(left, right), ylim=(-0.7, len(bars) - 0.3), yticks=[])
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.axvline(0.5, color=MUTED, linewidth=1, dashes=(3, 3))
        axes.text(0.5, len(bars) - 0.2, "chance ", ha="right", va="bottom", color=MUTED, fontsize=11.5)
        if ceiling is not None:
            axes.axvspan(*ceiling, color=BAND, alpha=0.16, linewidth=0)
            axes.axvline(ceiling[1], color=BAND, linewidth=1.2)
            text = f" ceiling {_span(*ceiling)} %"
            axes.text(ceiling[0], len(bars) - 0.2, text, ha="left", va="bottom", color=BAND, fontsize=11.5)
        axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")
        across = axes.get_yaxis_transform()
        for y, bar in zip(rows, bars, strict=True):
            if bar.kind == "heading":
                axes.annotate(bar.label[:44], (0, y), (-188, 0), across, "offset pixels", va="center", weight="bold")
                continue
            color = ACCENT if bar.kind == "model" else MUTED
            if math.isfinite(bar.low):
                axes.plot([bar.low, bar.high], [y, y], color=color, linewidth=5, alpha=0.35)
            axes.plot([bar.value], [y], "o", color=color, markersize=8 if bar.kind == "model" else 6)
            ink = INK if bar.kind == "model" else MUTED
            axes.annotate(bar.label, (0, y), (-12, 0), across, "offset pixels", ha="right", va="center", color=ink)
            value = f"{100 * bar.value:.1f} %" + (f"  ({_span(bar.low, bar.high)})" if math.isfinite(bar.low) else "")
            axes.annotate(value, (1, y), (12, 0), across, "offset pixels", va="center", color=ink)

    spoken = "; ".join(bar.label if bar.kind == "heading" else f"{bar.label} {100 * bar.value:.1f} %" for bar in bars)
    bound = f"; ceiling {_span(*ceiling)} %" if ceiling else ""
    return draw(f"Accuracy: {spoken}{bound}", WIDE, 66 + 30 * len(bars), (200, 150, 28, 32), paint)


def training_curve(
    metrics: Sequence[Mapping[str, Any]], name: str, evaluated: str, coin: float, percent: bool = False
) -> str:
    """A training metric by step (`name`), its held-out twin (`evaluated`), and what a coin would score."""
    train, held = _series(metrics, name), _series(metrics, evaluated)

    def paint(axes: Any) -> None:
        axes.grid(axis="y")
        axes.axhline(coin, color=MUTED, linewidth=1, dashes=(3, 3))
        ends = [(coin, "coin", MUTED)]
        if len(train):
            smooth = _smoothed(train[:, 1])
            axes.plot(train[:, 0], train[:, 1], color=ACCENT, linewidth=1, alpha=0.28)
            axes.plot(train[:, 0], smooth, color=ACCENT, linewidth=1.8)
            ends.append((smooth[-1], "train", ACCENT))
        if len(held):
            axes.plot(held[:, 0], held[:, 1], "o-", color=WARM, linewidth=1.6, markersize=4.5)
            ends.append((held[-1, 1], "held out", WARM))
        axes.set_ylim(*_limits(coin, train[:, 1], held[:, 1]))
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(whole_numbers())
        axes.set_xlabel("step")
        if percent:
            axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
        end_labels(axes, ends)

    title = "Accuracy" if percent else "Loss in nats"
    spoken = f"{title} by training step: " + ", ".join(
        f"{what} from {series[0, 1]:.3f} to {series[-1, 1]:.3f}"
        for what, series in (("training", train), ("held-out", held))
        if len(series)
    )
    return draw(spoken, HALF, 250, (46, 66, 12, 44), paint)


def reliability_diagram(curve: Reliability) -> str:
    """How often the model is right, by how sure it says it is, with Wilson bands."""

    def paint(axes: Any) -> None:
        right = min(1.0, max(0.65, float(curve.confidence.max()) + 0.03))
        bottom = min(0.45, float(curve.low.min()) - 0.02)
        axes.set(xlim=(0.5, right), ylim=(bottom, 1.01), xlabel="confidence of the model", ylabel="share right")
        axes.grid()
        axes.plot([0.5, 1], [0.5, 1], color=MUTED, linewidth=1, dashes=(3, 3))
        if len(curve.n) > 1:
            axes.fill_between(curve.confidence, curve.low, curve.high, color=ACCENT, alpha=0.16, linewidth=0)
        else:
            axes.vlines(curve.confidence, curve.low, curve.high, color=ACCENT, alpha=0.35, linewidth=5)
        axes.plot(curve.confidence, curve.accuracy, "o-", color=ACCENT, linewidth=1.6, markersize=5.5, clip_on=False)
        for x, y, text, side in ((0.03, 0.95, "too timid", "left"), (0.97, 0.04, "too sure", "right")):
            axes.text(x, y, text, transform=axes.transAxes, ha=side, va="center", color=MUTED, fontsize=11.5)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")

    points = ", ".join(
        f"{100 * c:.0f} % sure and {100 * a:.0f} % right" for c, a in zip(curve.confidence, curve.accuracy, strict=True)
    )
    return draw(f"Reliability: {points}", HALF, 330, (62, 16, 12, 48), paint)


def reward_histogram(chosen: Floats, rejected: Floats) -> str:
    """The rewards of preferred and of rejected completions on one axis."""
    edges = _edges(np.concatenate([chosen, rejected]))

    def paint(axes: Any) -> None:
        top = 0.0
        for values, color in ((chosen, ACCENT), (rejected, WARM)):
            counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
            top = max(top, counts.max())
            axes.stairs(counts, edges, fill=True, color=color, alpha=0.22, linewidth=0)
            axes.stairs(counts, edges, color=color, linewidth=1.5)
        _histogram_frame(axes, top, "reward", "completions")
        _corner_labels(axes, f"rejected, mean {rejected.mean():+.2f}", f"chosen, mean {chosen.mean():+.2f}")

    spoken = f"Rewards: chosen mean {chosen.mean():.2f}, rejected mean {rejected.mean():.2f}"
    return draw(spoken, HALF, 270, (62, 16, 12, 44), paint)


def margin_histogram(margin: Floats) -> str:
    """Chosen minus rejected reward; what lies left of zero is wrong."""
    edges = _edges(margin, anchor=0.0)
    wrong = float((margin < 0).mean() + (margin == 0).mean() / 2)

    def paint(axes: Any) -> None:
        counts, _ = np.histogram(np.clip(margin, edges[0], edges[-1]), edges)
        for side, color in ((edges[1:] <= 0, WARM), (edges[:-1] >= 0, ACCENT)):
            axes.stairs(np.where(side, counts, 0), edges, fill=True, color=color, alpha=0.55, linewidth=0)
        axes.axvline(0, color=INK, linewidth=1)
        _histogram_frame(axes, counts.max(), "margin, chosen minus rejected", "pairs")
        _corner_labels(axes, f"wrong {100 * wrong:.1f} %", f"right {100 * (1 - wrong):.1f} %")

    spoken = f"Margins: {100 * wrong:.1f} % of the pairs lie on the wrong side of zero, median {np.median(margin):.2f}"
    return draw(spoken, HALF, 270, (62, 16, 12, 44), paint)


def _series(metrics: Sequence[Mapping[str, Any]], name: str) -> Floats:
    """(step, value) rows of one metric, in order of step, without the rows that lack it."""
    points = [(row["step"], row[name]) for row in metrics if row.get(name) is not None and row.get("step") is not None]
    finite = [(float(step), float(value)) for step, value in points if math.isfinite(value)]
    return np.array(sorted(finite), dtype=np.float64).reshape(-1, 2)


def _smoothed(values: Floats) -> Floats:
    """Running mean over a tenth of the points; shorter at the ends, so that they do not bend."""
    half = len(values) // 20
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    mean: Floats = (total[high] - total[low]) / (high - low)
    return mean


def _limits(coin: float, *series: Floats) -> tuple[float, float]:
    """Room for all but the wildest hundredth of the values, and for the coin."""
    values = np.concatenate(series)
    low, high = np.quantile(values, [0.01, 0.99]) if len(values) else (coin, coin)
    low, high = min(low, coin), max(high, coin)
    pad = max(0.06 * (high - low), 1e-3)
    return float(low - pad), float(high + pad)


def _corner_labels(axes: Any, left: str, right: str) -> None:
    for x, text, side, color in ((0.0, left, "left", WARM), (1.0, right, "right", ACCENT)):
        axes.text(x, 0.99, text, transform=axes.transAxes, ha=side, va="top", color=color)


def _histogram_frame(axes: Any, top: float, label: str, unit: str) -> None:
    axes.set(ylim=(0, max(top, 1) * 1.18), xlabel=label, ylabel=unit)
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(whole_numbers())


def _edges(values: Floats, anchor: float | None = None) -> Floats:
    """Bins over all but the outer thousandths (which fall into the end bins), one edge at `anchor`."""
    low, high = np.quantile(values, [0.001, 0.999])
    if anchor is not None:
        low, high = min(low, anchor), max(high, anchor)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    width = (high - low) / min(44, max(12, round(2 * len(values) ** (1 / 3))))
    start = math.floor(low / width) if anchor is not None else low / width
    count = math.ceil(high / width - start)
    edges: Floats = (start + np.arange(count + 1)) * width
    return edges


def _span(low: float, high: float) -> str:
    return f"{100 * low:.1f}" if low == high else f"{100 * low:.1f} to {100 * high:.1f}"
