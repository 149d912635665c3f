"""The quality page and the review list: numbers that take long are computed aside and kept, with the time they are of."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from guerdon.collect.prioritise import last_report
from guerdon.collect.quality import quality as numbers_of
from guerdon.collect.spending import spent
from guerdon.collect.web import charts
from guerdon.collect.web.gate import Visit

FRESH = 300.0  # seconds for which numbers are shown without being computed anew
PATIENCE = 1.0  # seconds a page waits for numbers that are being computed


@dataclass(frozen=True, slots=True)
class Kept:
    """A result, the judgements it was computed from, and when."""

    value: Any
    judgements: int
    at: float
    problem: str = ""


class Caches:
    """Results by name. Whoever asks gets the last one at once, and starts a new computation when it is old."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock, self._kept, self._running = clock, dict[str, Kept](), dict[str, threading.Thread]()
        self._lock = threading.Lock()

    def get(self, name: str, judgements: int, work: Callable[[], Any]) -> Kept | None:
        """The result of `work`, perhaps of a while ago; None when the first is still being computed."""
        with self._lock:
            kept, running = self._kept.get(name), self._running.get(name)
            old = kept is None or (kept.judgements != judgements and self.clock() - kept.at > FRESH)
            if old and running is None:
                running = threading.Thread(target=self._compute, args=(name, judgements, work), daemon=True)
                self._running[name] = running
                running.start()
        if kept is None and running is not None:
            running.join(PATIENCE)
            kept = self._kept.get(name)
        return kept

    def _compute(self, name: str, judgements: int, work: Callable[[], Any]) -> None:
        value, problem = None, ""
        try:
            value = work()
        except Exception as error:  # shown on the page: numbers that fail must not take the page with them
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            self._kept[name] = Kept(value, judgements, self.clock(), problem)
            self._running.pop(name, None)


def quality(visit: Visit) -> Response:
    kept = _quality(visit)
    sections = sections_of(kept.value) if kept is not None and kept.value is not None else []
    sections += _choice_and_cost(visit)
    return visit.page("quality.html", kept=kept, sections=sections, counts=visit.store.counts(visit.study))


def _choice_and_cost(visit: Visit) -> list[Section]:
    """Whether active selection earns its keep, and what AI raters and generators cost: kept by their commands."""
    found, parts = last_report(visit.store, visit.study), []
    if found is not None:
        values = [("model", found[1]), *row_of(found[2]).items()]
        parts.append(Section("does active selection earn its keep", values, [], []))
    bills = spent(visit.store, visit.study)
    return [*parts, _table("cost of models", [row_of(bill) for bill in bills])] if bills else parts


def review(visit: Visit) -> Response:
    """Raters in doubt, with what raised the doubt; a person decides."""
    kept = _quality(visit)
    found = getattr(kept.value, "review", ()) if kept is not None else ()
    rows = [row_of(entry) for entry in found or ()]
    return visit.page("review.html", kept=kept, rows=rows, known=kept is not None and hasattr(kept.value, "review"))


def _quality(visit: Visit) -> Kept | None:
    """The numbers of the judgements that stand, computed aside."""
    study, store = visit.study, visit.store
    caches: Caches = visit.site.caches
    return caches.get(
        f"quality:{study}",
        store.counts(study).judgements,
        lambda: numbers_of(store.judgements(study), gold=store.gold(study)),
    )


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the quality page: single values, or a table with a chart of the columns that carry intervals."""

    title: str
    values: list[tuple[str, Any]]
    header: list[str]
    rows: list[list[Any]]
    chart: Any = ""


def sections_of(value: Any) -> list[Section]:
    """Any dataclass as sections: plain fields first, then one for each field that is a table or a record of its own."""
    if not dataclasses.is_dataclass(value):
        return []
    plain: list[tuple[str, Any]] = []
    parts: list[Section] = []
    for field in dataclasses.fields(value):
        name, found = field.name, getattr(value, field.name)
        if name == "review":
            continue
        if dataclasses.is_dataclass(found):
            parts.append(Section(words(name), list(row_of(found).items()), [], []))
        elif isinstance(found, Mapping):
            parts.append(_table(name, [{"": key} | row_of(entry) for key, entry in found.items()]))
        elif (
            isinstance(found, Sequence) and not isinstance(found, str) and found and dataclasses.is_dataclass(found[0])
        ):
            parts.append(_table(name, [row_of(entry) for entry in found]))
        else:
            plain.append((words(name), cell(found)))
    return [*([Section("", plain, [], [])] if plain else []), *parts]


def _table(name: str, rows: list[dict[str, Any]]) -> Section:
    header = list(dict.fromkeys(key for row in rows for key in row))
    body = [[row.get(key, "") for key in header] for row in rows[:200]]
    bars = [bar for row in rows[:30] if (bar := _bar(row)) is not None]
    chart = charts.intervals(bars, words(name)) if len(bars) > 1 else ""
    return Section(words(name), [], header, body, chart)


def _bar(row: Mapping[str, Any]) -> tuple[str, float, float, float] | None:
    """(name, value, low, high) where a row holds exactly that."""
    low, high = row.get("low"), row.get("high")
    value = row.get("value", row.get("rate", row.get("estimate")))
    if isinstance(value, float) and isinstance(low, float) and isinstance(high, float):
        return str(next(iter(row.values()))), value, low, high
    return None


def row_of(entry: Any) -> dict[str, Any]:
    """A record as cells by name."""
    if dataclasses.is_dataclass(entry):
        return {words(field.name): cell(getattr(entry, field.name)) for field in dataclasses.fields(entry)}
    if isinstance(entry, Mapping):
        return {words(str(key)): cell(value) for key, value in entry.items()}
    return {"value": cell(entry)}


def cell(value: Any) -> Any:
    """A value as it stands in a table: estimates with their interval, numbers short, the rest as words."""
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        names = value._fields if hasattr(value, "_fields") else [field.name for field in dataclasses.fields(value)]
        inner = {name: getattr(value, name) for name in names}
        low, high = inner.get("low"), inner.get("high")
        centre = inner.get("value", inner.get("rate", inner.get("estimate", inner.get("mean"))))
        if isinstance(centre, int | float) and isinstance(low, int | float) and isinstance(high, int | float):
            return f"{centre:.3g} ({low:.3g} to {high:.3g})"
        return "; ".join(f"{words(name)} {cell(part)}" for name, part in inner.items())
    if isinstance(value, float):
        return f"{value:.3g}" if value == value else "–"
    if isinstance(value, tuple | list):
        return ", ".join(str(cell(part)) for part in value)
    return "–" if value is None else value


def words(name: str) -> str:
    return name.replace("_", " ")
