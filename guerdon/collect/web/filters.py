"""How numbers and times are written on the pages."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any


def count(value: float | None) -> str:
    """A number of things, thousands apart."""
    return "–" if value is None or not math.isfinite(value) else f"{round(value):,}".replace(",", "\u202f")


def share(value: float | None) -> str:
    """A share as per cent."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}\u202f%"


def number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def moment(value: float | None) -> str:
    """A time, to the minute, UTC."""
    if value is None or not math.isfinite(value):
        return "–"
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M UTC")


FILTERS: dict[str, Callable[..., Any]] = {"count": count, "share": share, "number": number, "moment": moment}
