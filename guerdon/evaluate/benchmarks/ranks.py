"""Rank groups in place of ranks: which models of a benchmark cannot be told apart on these items.

In: items and the scores of two or more models. Out: letters; models that share one do not differ significantly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from guerdon.evaluate.benchmarks.item import Item, sheet
from guerdon.evaluate.columns import Floats
from guerdon.evaluate.paired import holm, letter, letter_groups, sign_flip

LEVEL = 0.05


def rank_groups(items: Sequence[Item], scores: Mapping[str, Floats]) -> dict[str, str]:
    """The letters of each model, best first; empty for fewer than two models.

    Per item a model wins when every right candidate scores strictly higher than every wrong one. Items that all models
    scored are compared pair by pair of models with the exact sign-flip test on whole prompts, corrected after Holm for
    all pairs at 5 %. Weights that a benchmark gives to its sections play no part.
    """
    if len(scores) < 2:
        return {}
    whole = np.logical_and.reduce([_is_scored(items, one) for one in scores.values()])
    if not whole.any():
        return {}
    kept = [item for item, keep in zip(items, whole, strict=True) if keep]
    sheets = {name: sheet(kept, one[whole]) for name, one in scores.items()}
    order = sorted(sheets, key=lambda name: -sheets[name].wins.mean())
    wins = [sheets[name].wins for name in order]
    group = sheets[order[0]].group
    couples = list(combinations(range(len(order)), 2))
    adjusted = holm(np.array([sign_flip(wins[i] - wins[j], group) for i, j in couples]))
    distinct = [couple for couple, p in zip(couples, adjusted, strict=True) if p < LEVEL]
    groups = letter_groups(distinct, len(order))
    return {name: " ".join(letter(k) for k, group in enumerate(groups) if i in group) for i, name in enumerate(order)}


def _is_scored(items: Sequence[Item], scores: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    sizes = np.array([len(item.correct) for item in items])
    return np.asarray((np.isfinite(scores) | (np.arange(scores.shape[1]) >= sizes[:, None])).all(axis=1))
