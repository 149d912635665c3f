"""The quality page and the review list: numbers that take long are computed aside and kept, with the time they are of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from guerdon.collect.prioritise import last_report
from guerdon.collect.quality import Quality
from guerdon.collect.quality import quality as numbers_of
from guerdon.collect.spending import spent
from guerdon.collect.web import quality_view
from guerdon.collect.web.gate import Visit
from guerdon.data.labels import Raters

FRESH = 300.0  # seconds for which numbers are shown without being computed anew
LATEST = 50  # judgements on the page of a rater
PATIENCE = 1.0  # seconds a page waits for numbers that are being computed


@dataclass(frozen=True, slots=True)
class Kept:
    """A result, the judgements it was computed from, and when."""

    value: Any
    judgements: int
    at: float
    problem: str = ""


class Caches:
    """Results by name. Whoever asks gets the last one at once, and starts a new computation when it is old; it is at once where
    judgements are twice as many by now, so that the first few do not stand for the many that follow."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock, self._kept, self._running = clock, dict[str, Kept](), dict[str, threading.Thread]()
        self._lock = threading.Lock()

    def get(self, name: str, judgements: int, work: Callable[[], Any]) -> Kept | None:
        """The result of `work`, perhaps of a while ago; None when the first is still being computed."""
        with self._lock:
            kept, running = self._kept.get(name), self._running.get(name)
            is_outgrown = kept is None or judgements >= 2 * kept.judgements != judgements
            old = kept is None or is_outgrown or (kept.judgements != judgements and self.clock() - kept.at > FRESH)
            if old and running is None:
                running = threading.Thread(target=self._compute, args=(name, judgements, work), daemon=True)
                self._running[name] = running
                running.start()
        if is_outgrown and running is not None:
            running.join(PATIENCE)
            kept = self._kept.get(name)
        return kept if kept is not None and (kept.judgements or not judgements) else None

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
    """The numbers of people's judgements, or of models' with `?raters=model`, or of both."""
    whose = _whose(visit)
    kept = _quality(visit, whose)
    found: Quality | None = kept.value if kept is not None else None
    sections = quality_view.sections_of(found) if found else []
    report, bills = last_report(visit.store, visit.study), spent(visit.store, visit.study)
    sections += [quality_view.selection_of(report)] if report else []
    sections += [quality_view.cost_of(bills)] if bills else []
    return visit.page(
        "quality.html",
        kept=kept,
        found=found,
        tiles=quality_view.tiles_of(found) if found and found.judgements else [],
        sections=sections,
        whose=whose,
        has_models=whose != "human" or any(bill.purpose == "rate" for bill in bills),
        doubts=len(quality_view.doubts_of(found)) if found and whose == "human" else 0,
        counts=visit.store.counts(visit.study),
    )


def review(visit: Visit) -> Response:
    """Raters in doubt, with all that raised the doubt; a person decides."""
    kept = _quality(visit, "human")
    found: Quality | None = kept.value if kept is not None else None
    rows = quality_view.doubts_of(found) if found else []
    return visit.page("review.html", kept=kept, rows=rows, known=found is not None)


def judgements(visit: Visit) -> Response:
    """The last judgements of one rater, as that rater saw the questions."""
    rater = visit.request.query_params.get("rater", "")
    rows = [quality_view.seen(stored.judgement) for stored in visit.store.latest(visit.study, rater, LATEST)]
    return visit.page("judgements.html", rater=rater, rows=rows, is_all=len(rows) < LATEST)


def _whose(visit: Visit) -> Raters:
    asked = visit.request.query_params.get("raters", "human")
    return {"model": "model", "both": "both"}.get(asked, "human")  # type: ignore[return-value]


def _quality(visit: Visit, whose: Raters) -> Kept | None:
    """The numbers of the judgements that stand, computed aside."""
    study, store = visit.study, visit.store
    caches: Caches = visit.site.caches
    return caches.get(
        f"quality:{study}:{whose}",
        store.counts(study).judgements,
        lambda: numbers_of(store.judgements(study), gold=store.gold(study), raters=whose),
    )
