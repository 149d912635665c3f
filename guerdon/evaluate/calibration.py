"""Margins read as probabilities, p = sigmoid(margin), and whether they deserve it.

In: margins of decided pairs, chosen minus rejected.
Out: likelihood, Brier score, the reliability curve, and the expected calibration error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from guerdon.evaluate.columns import Floats, Ints
from guerdon.evaluate.intervals import wilson
from guerdon.evaluate.table import PairTable

BINS = 10


@dataclass(frozen=True, eq=False)
class Reliability:
    """One entry per bin of equal mass: mean confidence, share right with its Wilson band, and number of pairs."""

    confidence: Floats
    accuracy: Floats
    n: Ints
    low: Floats
    high: Floats


def credit(margin: Floats) -> Floats:
    """1 where the chosen answer scores higher, 1/2 where the scores are equal, 0 otherwise."""
    shares: Floats = np.heaviside(margin, 0.5)
    return shares


def nll(margin: Floats) -> Floats:
    """-log sigmoid(margin) in nats, one value per pair: the Bradley-Terry loss (arXiv 2203.02155, eq. 1)."""
    return np.logaddexp(0.0, -margin)


def brier(margin: Floats) -> Floats:
    """(1 - sigmoid(margin))^2, one value per pair (Brier 1950): 0.25 for a model that knows nothing."""
    loss: Floats = np.square(expit(-margin))
    return loss


def equal_mass_bins(values: Floats, bins: int) -> Ints:
    """Bin of each value, 0 to bins-1, about equally many in each; equal values share a bin, whatever their order."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    chosen: NDArray[np.int64] = np.floor(middle / max(len(values), 1) * bins).astype(np.int64)
    return chosen[inverse.reshape(-1)]


def reliability(pairs: PairTable, bins: int = BINS) -> Reliability:
    """How often the raters preferred what the model prefers, by how sure it is; decided, scored pairs only.

    Confidence is max(p, 1 - p), from 0.5 to 1; equal scores count 1/2.
    Source: Guo et al. 2017 (arXiv 1706.04599), with bins of equal mass in place of equal width.
    """
    margin = pairs.margin[pairs.is_decided & pairs.is_scored]
    confidence, right = expit(np.abs(margin)), credit(margin)
    index = equal_mass_bins(confidence, bins)
    n = np.bincount(index, minlength=bins)
    used = n > 0
    n = n[used]
    accuracy = np.bincount(index, weights=right, minlength=bins)[used] / n
    low, high = wilson(accuracy, n)
    mean = np.bincount(index, weights=confidence, minlength=bins)[used] / n
    return Reliability(mean, accuracy, n, low, high)


def ece(curve: Reliability) -> float:
    """Mean over pairs of |accuracy - confidence| of their bin; NaN without pairs. Small samples push it up."""
    if not len(curve.n):
        return float("nan")
    return float(np.average(np.abs(curve.accuracy - curve.confidence), weights=curve.n))
