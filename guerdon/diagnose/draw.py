"""The frame of every picture: matplotlib in, SVG that stands inside the page out, in the page's own colours and fonts.

Only this file imports matplotlib, which comes with the extra `report`. A chart is a function `paint(axes)` given to `draw`.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from hashlib import sha256
from html import escape
from typing import Any

from guerdon.types import ConfigError

# Each colour is replaced by the page's variable of that name, so that dark and light are the page's choice.
COLORS = {
    "ink": "#1c2127",
    "muted": "#646c76",
    "line": "#dfe2e6",
    "accent": "#17697f",
    "warm": "#b9552a",
    "band": "#8f7a2e",
}
INK, MUTED, LINE, ACCENT, WARM, BAND = COLORS.values()
WIDE, HALF = 840, 410  # CSS pixels
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "guerdon",
    "text.parse_math": False,
    "font.size": 12.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12.5,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 11.5,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 11.5,
    "lines.solid_capstyle": "round",
}


def draw(spoken: str, width: int, height: int, edge: tuple[int, int, int, int], paint: Callable[[Any], None]) -> str:
    """One picture of `width` x `height` CSS pixels whose axes leave `edge` free: left, right, top, bottom."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("the report needs matplotlib; install it with: pip install 'guerdon[report]'") from None
    left, right, top, bottom = edge
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the measuring font lacks; the page's own fonts draw the text
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height))
        axes.patch.set_visible(False)
        axes.tick_params(length=0, pad=5)
        paint(axes)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), spoken)


def _inline(svg: str, spoken: str) -> str:
    """Bare SVG for the page: no prolog, no metadata, no addresses, ids of its own, the page's colours and font."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None
    body = body[body.index(">") + 1 :]
    body = body.replace("xlink:href", "href")
    own = "c" + sha256(body.encode()).hexdigest()[:10]
    body = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{own}-", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--font)", body)
    for variable, color in COLORS.items():
        body = body.replace(color, f"var(--{variable})")
    label = escape(spoken, quote=True)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{label}"><title>{escape(spoken)}</title>{body}'


def whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, integer=True)


def end_labels(axes: Any, labels: Sequence[tuple[float, str, str]], apart: float = 15.0) -> None:
    """Names at the right end of their lines, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height
    placed = -math.inf
    for value, text, color in sorted(labels):
        at = (min(max(value, low), high) - low) / (high - low) * height
        placed = max(at, placed + apart)
        axes.annotate(
            text, (1, 0), (6, placed), "axes fraction", "offset pixels", va="center", color=color, fontsize=12
        )
