"""The cells of a row, checked: numbers, labels, lists and answers, whatever the format. Errors name the column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.data.containers import columns, describe
from guerdon.data.messages import Messages, Unusable, answer_of
from guerdon.types import DataError

Data = Mapping[str, Any]


def number(value: object, name: str) -> float | None:
    """A number, also as text because CSV has nothing else; null and blank as None. NaN and infinities pass."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise DataError(f"{name!r} is {describe(value)}; write a number")
    try:
        return float(value)
    except ValueError:
        raise DataError(f"{name!r} is {str(value)[:40]!r}; write a number") from None
    except OverflowError:
        return math.inf


def label(value: object, name: str) -> float:
    """A finite number. Raises Unusable when there is none."""
    found = number(value, name)
    if found is None or not math.isfinite(found):
        raise Unusable("no label")
    return found


def strength_of(value: object, name: str) -> float | None:
    """A finite number or None. Raises Unusable for anything that is not finite."""
    strength = number(value, name)
    if strength is not None and not math.isfinite(strength):
        raise Unusable("margin not finite")
    return strength


def need(data: Data, name: str) -> Any:
    """The cell of a column that must be there."""
    if name not in data:
        raise DataError(f"no column {name!r} (it has {columns(dict(data))}); add it or remove the row")
    return data[name]


def need_list(data: Data, name: str) -> Sequence[Any]:
    """The list in a column that must be there. Raises Unusable for null."""
    value = need(data, name)
    if value is None:
        raise Unusable("no label" if name in ("ranks", "score") else "empty answer")
    if not isinstance(value, list | tuple):
        raise DataError(f"{name!r} is {describe(value)}; write a list")
    return value


def answers_of(values: Sequence[Any], name: str) -> tuple[Messages, ...]:
    """Two completions or more, each text or messages."""
    if len(values) < 2:
        raise Unusable("fewer than two answers")
    return tuple(answer_of(value, f"{name}[{i}]") for i, value in enumerate(values))
