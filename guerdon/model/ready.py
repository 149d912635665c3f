"""Scores as they are finished, some items of a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guerdon.types import Score


class Ready(NamedTuple):
    """Some items of a batch that are scored.

    places    which items of the batch
    scores    one for each of them
    features  what the head read for each of them, (n, width); None where it was not asked for
    computed  tokens that went through the trunk for them, padding included
    """

    places: list[int]
    scores: list[Score]
    features: NDArray[np.float32] | None
    computed: int


def gathered(parts: Iterable[Ready], n: int) -> tuple[list[Score], NDArray[np.float32] | None]:
    """Scores of all n items, in order, and their features where the parts carry them."""
    scores: list[Any] = [None] * n
    features: NDArray[np.float32] | None = None
    for part in parts:
        for place, score in zip(part.places, part.scores, strict=True):
            scores[place] = score
        if part.features is not None:
            if features is None:
                features = np.empty((n, part.features.shape[1]), dtype=np.float32)
            features[part.places] = part.features
    return scores, features
