"""The calibration sheet of a model: what its margins are worth as probabilities, and when to trust it.

In: a score table. Out: a `Calibration`, whose `to_dict()` is JSON. `docs/evaluate.md` defines every number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from guerdon.evaluate.abstain import Threshold, aurc, selective_accuracy, threshold
from guerdon.evaluate.calibration import Temperature, cross_fit_temperature, ece_interval, reliability
from guerdon.evaluate.columns import plain
from guerdon.evaluate.table import ScoreTable

FOLDS = 5
MAX_ERROR = 0.2


@dataclass(frozen=True)
class Band:
    """One bin of the reliability curve: mean confidence, share right with its 95 % band, number of pairs."""

    confidence: float
    accuracy: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """What margins of one model are worth on one set; decided, scored pairs only.

    temperature        cross-fitted; None with fewer prompts than folds
    ece_low, ece_high  95 % interval of the calibration error as the model stands, at temperature 1
    aurc               area under the risk-coverage curve, see `abstain.aurc`
    selective          accuracy of the most sure 100, 75, 50 and 25 % of the pairs
    threshold          the |margin| above which errors stay rare, see `abstain.threshold`
    reliability        the curve at temperature 1, bins of equal mass, least sure first
    """

    temperature: Temperature | None
    ece_low: float
    ece_high: float
    aurc: float
    selective: Mapping[str, float]
    threshold: Threshold
    reliability: tuple[Band, ...]

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types; a number that is not finite becomes None, what does not apply is left out."""
        record: dict[str, Any] = plain(asdict(self))
        return record


def calibrate(
    table: ScoreTable, *, max_error: float = MAX_ERROR, confidence: float = 0.95, seed: int = 0, resamples: int = 1000
) -> Calibration:
    """Draw up the calibration sheet; `max_error` and `confidence` are those of the threshold to abstain by."""
    every = table.pairs()
    pairs = every.where(every.is_decided & every.is_scored)
    low, high = ece_interval(pairs, seed=seed, resamples=resamples)
    curve = reliability(pairs)
    columns = (curve.confidence, curve.accuracy, curve.low, curve.high, curve.n)
    enough = len(np.unique(pairs.group)) >= FOLDS
    return Calibration(
        temperature=cross_fit_temperature(pairs, folds=FOLDS, seed=seed) if enough else None,
        ece_low=low,
        ece_high=high,
        aurc=aurc(pairs.margin),
        selective=selective_accuracy(pairs.margin),
        threshold=threshold(pairs, max_error, confidence=confidence, seed=seed),
        reliability=tuple(Band(*row) for row in zip(*(column.tolist() for column in columns), strict=True)),
    )
