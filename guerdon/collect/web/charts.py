"""Small pictures as inline SVG: attributes only, no style, so that the strictest policy lets them through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 640, 140


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


def intervals(rows: Sequence[tuple[str, float, float, float]], title: str, middle: float | None = None) -> Markup:
    """(name, value, low, high) as dots with whiskers on the axis from 0 to 1; `middle` is a dashed line."""
    parts, left, width = [], 190, WIDTH - 190 - 60
    height = 26 * len(rows) + 30

    def x(value: float) -> float:
        return left + width * min(1.0, max(0.0, value))

    if middle is not None:
        parts.append(f'<line class="half" x1="{x(middle):.1f}" x2="{x(middle):.1f}" y1="4" y2="{height - 22}"/>')
    for index, (name, value, low, high) in enumerate(rows):
        y = 18 + 26 * index
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(name[:26])}</text>')
        parts.append(f'<line class="axis" x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>')
        if not math.isfinite(value):
            continue
        if math.isfinite(low) and math.isfinite(high):
            parts.append(f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{x(value):.1f}" cy="{y}" r="4.5"/>')
        parts.append(f'<text x="{left + width + 12}" y="{y + 4}">{value:.2f}</text>')
    parts.append(f'<text x="{left}" y="{height - 6}">0</text>')
    parts.append(f'<text x="{left + width}" y="{height - 6}" text-anchor="end">1</text>')
    spoken = "; ".join(f"{name} {value:.2f}" for name, value, _, _ in rows if math.isfinite(value))
    return svg(f"{title}: {spoken}", parts, height)


def svg(spoken: str, parts: Sequence[str], height: int) -> Markup:
    """The frame, with a text for those who do not see it."""
    label = escape(spoken, quote=True)
    return Markup(f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>')
