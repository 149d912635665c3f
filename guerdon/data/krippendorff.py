"""Krippendorff's alpha: agreement of any number of raters on any units, some missing, less what chance would give.

    alpha = 1 - D_o / D_e        D_o = (1/n) sum_u (1/(n_u - 1)) sum_{i != j in u} d(v_i, v_j)
                                 D_e = (1/(n (n - 1))) sum_{i != j} d(v_i, v_j)

over units u with n_u >= 2 values, n in all (Krippendorff 2018, chapter 12). d is 1 for different values (nominal) or the
squared difference (interval).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from guerdon.data.votes import Floats, Ints

Distance = Literal["nominal", "interval"]


def unit_sums(unit: Ints, value: Floats, distance: Distance = "nominal") -> tuple[Floats, Floats]:
    """(rows, values): per unit with two values or more, how often each distinct value occurs and, last, its disagreement.

    `rows` is (U, C + 1). Alpha is a function of the sums of its columns, so resampling units means resampling its rows.
    """
    values, column = np.unique(value, return_inverse=True)
    units, row = np.unique(unit, return_inverse=True)
    counts = np.bincount(row * len(values) + column, minlength=len(units) * len(values))
    table = counts.reshape(len(units), len(values)).astype(np.float64)
    table = table[table.sum(axis=1) >= 2]
    apart = np.einsum("uc,cd,ud->u", table, _distances(values, distance), table) / np.maximum(table.sum(axis=1) - 1, 1)
    return np.column_stack([table, apart]), values


def alpha(unit: Ints, value: Floats, distance: Distance = "nominal") -> float:
    """Alpha of values, one per vote; NaN when no unit has two values or all values are the same (chance explains all)."""
    rows, values = unit_sums(unit, value, distance)
    return float(alpha_of(rows.sum(axis=0)[None], values, distance)[0]) if len(rows) else math.nan


def alpha_of(sums: Floats, values: Floats, distance: Distance = "nominal") -> Floats:
    """Alpha for each row of column sums of `unit_sums`, (S, C + 1) -> (S,)."""
    counts, observed = sums[:, :-1], sums[:, -1]
    n = counts.sum(axis=1)
    expected = np.einsum("sc,cd,sd->s", counts, _distances(values, distance), counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(expected > 0, 1 - (n - 1) * observed / expected, math.nan)
    return found


def _distances(values: Floats, distance: Distance) -> Floats:
    apart = values[:, None] - values[None, :]
    return (apart != 0).astype(np.float64) if distance == "nominal" else np.square(apart)
