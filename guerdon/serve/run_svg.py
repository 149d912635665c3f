"""Line charts as inline SVG, written by hand: a live page is drawn anew every few seconds, beside a model that needs the CPU.

Colours are the page's own variables, so dark and light are the page's choice. Without a script, and nothing is fetched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from guerdon.diagnose.run_charts import smoothed
from guerdon.evaluate.columns import Floats

WIDE, HALF = 840, 410  # CSS pixels
MOST_POINTS = 300  # of a line; more are drawn as means of neighbours
LEFT, RIGHT, TOP, BOTTOM = 52, 78, 14, 34


@dataclass(frozen=True)
class Line:
    """A curve: values by x, NaN where there are none; drawn light as it is and bold smoothed."""

    name: str
    x: Floats
    values: Floats
    color: str


@dataclass(frozen=True)
class Mark:
    """An upright line with a name above the chart."""

    x: float
    name: str
    color: str


def chart(
    spoken: str,
    lines: Sequence[Line],
    *,
    width: int = HALF,
    height: int = 220,
    xlabel: str = "step",
    percent: bool = False,
    marks: Sequence[Mark] = (),
    zero: str = "",
) -> str:
    """One picture. `zero` names a dashed line at 0; `percent` writes shares as per cent; `spoken` is read to the blind."""
    frame = _Frame(lines, width, height, TOP + 13 * len(marks), bool(zero))
    parts = [*frame.grid(percent), *frame.steps(xlabel)]
    ends = []
    if zero:
        y = frame.y(0.0)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{width - RIGHT}" stroke="var(--muted)" stroke-dasharray="3 3"/>')
        ends.append((y, zero, "muted"))
    for line in lines:
        raw, bold = frame.path(line.x, line.values), frame.path(line.x, smoothed(line.values))
        color = f'fill="none" stroke="var(--{line.color})"'
        parts.append(
            f'<path d="{raw}" {color} stroke-width="1" opacity=".3"/><path d="{bold}" {color} stroke-width="2"/>'
        )
        parts += frame.dot(line)
        known = smoothed(line.values)[np.isfinite(line.values)]
        if len(known):
            ends.append((frame.y(float(known[-1])), line.name, line.color))
    parts += frame.flags(marks)
    parts += _names(ends, width - RIGHT + 7)
    label = escape(spoken, quote=True)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}" font-size="12" '
        f'style="font-family:var(--font)"><title>{label}</title>{"".join(parts)}</svg>'
    )


def strip(said: Sequence[str], width: int = WIDE) -> str:
    """What was said after each step, as one band of colours under the chart above it."""
    colors = {"ok": "accent", "warn": "band", "stop": "warm"}
    room, parts, begin = width - LEFT - RIGHT, [], 0
    for i in range(1, len(said) + 1):
        if i == len(said) or said[i] != said[begin]:
            x, w = LEFT + room * begin / len(said), room * (i - begin) / len(said)
            parts.append(f'<rect x="{x:.1f}" width="{w:.1f}" height="8" fill="var(--{colors[said[begin]]})"/>')
            begin = i
    spoken = escape(f"verdicts: {', '.join(f'{said.count(one)} {one}' for one in colors if one in said)}", quote=True)
    return (
        f'<svg viewBox="0 0 {width} 8" role="img" aria-label="{spoken}"><title>{spoken}</title>{"".join(parts)}</svg>'
    )


class _Frame:
    """Where numbers lie in the picture."""

    def __init__(self, lines: Sequence[Line], width: int, height: int, top: int, has_zero: bool) -> None:
        self.width, self.height, self.top = width, height, top
        x = np.concatenate([line.x[np.isfinite(line.x) & np.isfinite(line.values)] for line in lines])
        values = np.concatenate([line.values[np.isfinite(line.values)] for line in lines])
        self.x_low, self.x_high = (float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        if has_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if abs(high) > 1e-9 else (0.0, 1.0)
        self.ticks = _ticks(low, high, 5)
        self.low, self.high = min(low, self.ticks[0]), max(high, self.ticks[-1])

    def x(self, value: float) -> float:
        span = self.x_high - self.x_low
        return LEFT + (self.width - LEFT - RIGHT) * ((value - self.x_low) / span if span > 0 else 0.5)

    def y(self, value: float) -> float:
        bottom = self.height - BOTTOM
        return bottom - (bottom - self.top) * (value - self.low) / (self.high - self.low)

    def grid(self, percent: bool) -> list[str]:
        parts = []
        for tick in self.ticks:
            y = self.y(tick)
            text = f"{100 * tick:.3g} %" if percent else f"{tick:,.6g}".replace("-", "−")
            parts.append(f'<path d="M{LEFT} {y:.1f}H{self.width - RIGHT}" stroke="var(--line)"/>')
            parts.append(_text(LEFT - 7, y + 4, text, "muted", "end"))
        return parts

    def steps(self, label: str) -> list[str]:
        ticks = [tick for tick in _ticks(self.x_low, self.x_high, 6) if self.x_low <= tick <= self.x_high]
        whole = [tick for tick in ticks if label != "step" or tick == int(tick)] or [self.x_high]
        y = self.height - BOTTOM
        parts = [_text(self.x(tick), y + 16, f"{tick:,.6g}", "muted", "middle") for tick in whole]
        return [*parts, _text((LEFT + self.width - RIGHT) / 2, y + 31, label, "muted", "middle")]

    def path(self, x: Floats, values: Floats) -> str:
        """Through the points that are known; more than fit are drawn as means of neighbours."""
        known = np.isfinite(x) & np.isfinite(values)
        x, values = x[known], values[known]
        if len(x) > MOST_POINTS:
            edges = np.linspace(0, len(x), MOST_POINTS + 1).astype(int)[:-1]
            size = np.diff(np.append(edges, len(x)))
            x, values = np.add.reduceat(x, edges) / size, np.add.reduceat(values, edges) / size
        points = [f"{self.x(float(a)):.1f} {self.y(float(b)):.1f}" for a, b in zip(x, values, strict=True)]
        return "M" + "L".join(points) if points else ""

    def dot(self, line: Line) -> list[str]:
        """A line of one point is no line."""
        known = np.flatnonzero(np.isfinite(line.values))
        if len(known) != 1:
            return []
        x, y = self.x(float(line.x[known[0]])), self.y(float(line.values[known[0]]))
        return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--{line.color})"/>']

    def flags(self, marks: Sequence[Mark]) -> list[str]:
        """From the right, each name in the lowest row where neither it nor the lines of those to its right are in the way."""
        parts: list[str] = []
        placed: list[tuple[int, float]] = []  # row and left edge
        for mark in sorted(marks, key=lambda mark: -mark.x):
            x, size = self.x(mark.x), 6.5 * len(mark.name) + 5
            is_late = x > self.width - RIGHT - size
            end = x if is_late else x + size
            row = next(r for r in range(len(marks)) if all(left >= end for higher, left in placed if higher >= r))
            placed.append((row, x - size if is_late else x))
            y = self.top - 5 - 13 * row
            parts.append(
                f'<path d="M{x:.1f} {y + 3}V{self.height - BOTTOM}" stroke="var(--{mark.color})" stroke-dasharray="3 2"/>'
            )
            parts.append(_text(x + (-3 if is_late else 3), y, mark.name, mark.color, "end" if is_late else "start"))
        return parts


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, in steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    return [step * i for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _names(ends: Sequence[tuple[float, str, str]], x: float) -> list[str]:
    """Names at the ends of their lines, pushed apart where they would touch."""
    parts, placed = [], -math.inf
    for y, name, color in sorted(ends):
        placed = max(y, placed + 14)
        parts.append(_text(x, placed + 4, name, color, "start"))
    return parts


def _text(x: float, y: float, text: str, color: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="var(--{color})" text-anchor="{anchor}">{escape(text)}</text>'
