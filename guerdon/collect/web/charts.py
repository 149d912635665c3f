"""Small pictures as inline SVG: attributes only, no style, so that the strictest policy lets them through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 640, 140
PANELS = 1000  # width of a picture of panels


def columns(values: Sequence[tuple[str, float]], title: str) -> Markup:
    """One column a value, the first and last named, the highest marked with its number."""
    top = max([value for _, value in values] + [1.0])
    step = WIDTH / max(len(values), 1)
    parts = []
    for index, (name, value) in enumerate(values):
        height = 104 * value / top
        x, width = index * step + step * 0.14, step * 0.72
        parts.append(
            f'<rect class="bar-fill" x="{x:.1f}" y="{118 - height:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5">'
            f"<title>{escape(name)}: {value:g}</title></rect>"
        )
    parts.append(f'<line class="axis" x1="0" x2="{WIDTH}" y1="118.5" y2="118.5"/>')
    if values:
        parts.append(f'<text x="0" y="134">{escape(values[0][0])}</text>')
        parts.append(f'<text x="{WIDTH}" y="134" text-anchor="end">{escape(values[-1][0])}</text>')
    parts.append(f'<text x="{WIDTH}" y="10" text-anchor="end">most: {top:g}</text>')
    total = sum(value for _, value in values)
    return svg(f"{title}: {total:g} in all, at most {top:g}", parts, HEIGHT)


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity of many rows on an axis from `low` to `high`: (value, its low, its high) or None for each row; `middle` is
    a dashed line."""

    title: str
    low: float
    high: float
    middle: float
    rows: Sequence[tuple[float, float, float] | None]


def panels(names: Sequence[str], shown: Sequence[Panel], title: str) -> Markup:
    """Panels side by side over the same rows: dots with whiskers, which end in an arrow where the axis ends."""
    left, gap = 150, 26
    width = (PANELS - left) / max(len(shown), 1) - gap
    height = 26 * len(names) + 50
    parts = [
        f'<text x="{left - 12}" y="{44 + 26 * i}" text-anchor="end">{escape(name[:20])}</text>'
        for i, name in enumerate(names)
    ]
    for number, panel in enumerate(shown):
        parts += _panel(panel, left + gap / 2 + number * (width + gap), width, height)
    spoken = "; ".join(f"{panel.title}: {_spoken(names, panel)}" for panel in shown)
    return svg(f"{title}. {spoken}", parts, height, PANELS)


def _panel(panel: Panel, left: float, width: float, height: int) -> list[str]:
    def x(value: float) -> float:
        return left + width * min(1.0, max(0.0, (value - panel.low) / (panel.high - panel.low)))

    middle = x(panel.middle)
    parts = [
        f'<text class="head" x="{left:.1f}" y="14">{escape(panel.title)}</text>',
        f'<line class="half" x1="{middle:.1f}" x2="{middle:.1f}" y1="24" y2="{height - 20}"/>',
        f'<text x="{left:.1f}" y="{height - 6}">{panel.low:g}</text>',
        f'<text x="{middle:.1f}" y="{height - 6}" text-anchor="middle">{panel.middle:g}</text>',
        f'<text x="{left + width:.1f}" y="{height - 6}" text-anchor="end">{panel.high:g}</text>',
    ]
    for index, row in enumerate(panel.rows):
        y = 40 + 26 * index
        parts.append(f'<line class="axis" x1="{left:.1f}" x2="{left + width:.1f}" y1="{y}" y2="{y}"/>')
        if row is not None and math.isfinite(row[0]):
            value, low, high = row
            parts.append(f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>')
            parts += [
                f'<text x="{x(end) + shift:.1f}" y="{y + 4}" text-anchor="middle">{mark}</text>'
                for end, mark, shift, is_cut in ((low, "‹", -6, low < panel.low), (high, "›", 6, high > panel.high))
                if is_cut
            ]
            parts.append(f'<circle class="dot" cx="{x(value):.1f}" cy="{y}" r="4.5"><title>{value:.3g} ({low:.3g} to '
                         f"{high:.3g})</title></circle>")  # fmt: skip
    return parts


def _spoken(names: Sequence[str], panel: Panel) -> str:
    found = [
        f"{name} {row[0]:.2f}" for name, row in zip(names, panel.rows, strict=True) if row and math.isfinite(row[0])
    ]
    return ", ".join(found) or "nothing known"


def svg(spoken: str, parts: Sequence[str], height: int, width: int = WIDTH) -> Markup:
    """The frame, with a text for those who do not see it."""
    label = escape(spoken, quote=True)
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>')
