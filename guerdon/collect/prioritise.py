"""The priorities of a study, computed from a reward model's scores and features, and what came of earlier ones."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from guerdon.collect import schema
from guerdon.collect.choose import softrank
from guerdon.collect.design import d_optimal, information, uncertainty
from guerdon.collect.selection import SelectionReport
from guerdon.collect.store import Store
from guerdon.types import Question

_ACTION = "prioritise"
WIDEST = (
    512  # features beyond so many are projected at random, which keeps their inner products to within a few percent
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reward model says of one question: `rewards` (K,), `features` (K, width), `members` (M, K) of an ensemble."""

    question: Question
    rewards: NDArray[np.float64]
    features: NDArray[np.float64]
    members: NDArray[np.float64] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every candidate could be scored."""
        return bool(np.isfinite(self.rewards).all() and np.isfinite(self.features).all())


def weights(
    candidates: Sequence[Seen], labelled: Sequence[Seen], batch: int = 200, diversity: float = 0.25
) -> dict[str, dict[str, float]]:
    """Weight by question id for each active arm; questions that could not be scored are left to the random arm."""
    usable, known = [s for s in candidates if s.is_whole], [s for s in labelled if s.is_whole]
    if not usable:
        return {"uncertain": {}, "d-optimal": {}}
    names = [seen.question.id for seen in usable]
    unsure = softrank([uncertainty(seen.rewards, seen.members) for seen in usable])
    order = d_optimal(
        [information(seen.features, seen.rewards) for seen in usable],
        np.stack([seen.features.mean(axis=0) for seen in usable]),
        batch,
        labelled=[information(seen.features, seen.rewards) for seen in known],
        labelled_prompts=np.stack([seen.features.mean(axis=0) for seen in known]) if known else None,
        diversity=diversity,
    )
    ranked = dict(zip(order, softrank([-float(place) for place in range(len(order))]), strict=True))
    return {
        "uncertain": dict(zip(names, unsure, strict=True)),
        "d-optimal": {names[i]: weight for i, weight in ranked.items()},
    }


def projected(features: NDArray[np.float64], widest: int = WIDEST, seed: int = 0) -> NDArray[np.float64]:
    """(n, width) features, by a seeded Gaussian projection (Johnson and Lindenstrauss 1984) when wider than `widest`."""
    width = features.shape[1]
    if width <= widest:
        return features
    return np.asarray(features @ np.random.default_rng(seed).normal(size=(width, widest)) / np.sqrt(widest))


def open_questions(store: Store, study: str) -> set[str]:
    """Names of the ordinary questions that still want a rater, those given out and not answered yet among them."""
    q, number = schema.question.c, store.study(study).id
    query = sa.select(q.name).where(q.study == number, q.kind == "normal", q.open | (q.locked > 0))
    return set(store.read(lambda db: db.scalars(query).all()))


def keep(
    store: Store, study: str, found: Mapping[str, Mapping[str, float]], model: str, report: SelectionReport
) -> None:
    """Replace the study's priorities, and note in its audit log when, by which model, and what selection has brought."""
    for arm, values in found.items():
        store.set_priorities(study, arm, values)
    detail = {"model": model, "questions": len(found["uncertain"]), "report": asdict(report)}
    row = {
        "at": time.time(),
        "person": "command line",
        "action": _ACTION,
        "study": store.study(study).id,
        "detail": json.dumps(detail, ensure_ascii=False, allow_nan=True),
    }
    store.write(lambda db: db.execute(schema.audit.insert().values(row)))


def last_report(store: Store, study: str) -> tuple[float, str, SelectionReport] | None:
    """(when, model, report) of the latest `guerdon collect prioritise`; None before the first."""
    a = schema.audit.c
    query = sa.select(a.at, a.detail).where(a.action == _ACTION, a.study == store.study(study).id)
    row = store.read(lambda db: db.execute(query.order_by(a.id.desc()).limit(1)).first())
    if row is None:
        return None
    detail = json.loads(row.detail)
    return row.at, detail["model"], SelectionReport.from_dict(detail["report"])
