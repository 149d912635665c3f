"""Which questions would teach a reward model most: uncertainty, and D-optimal design with prompt diversity. Numpy only.

The model is Bradley-Terry on the features h that the reward model's head reads: P(a beats b) = sigmoid(theta . (h_a - h_b)).
A question with K candidates carries the Fisher information

    I = sum over pairs a < b of p_ab (1 - p_ab) (h_a - h_b)(h_a - h_b)^T = Z^T Z,    Z of K - 1 rows

so that what a batch B adds to what is labelled, A = ridge + sum of Z^T Z, is log det(A + sum_B Z^T Z) - log det A: the D-optimal
criterion (Chaloner and Verdinelli 1995; for reward models Shen et al. 2025, arXiv 2502.04354). It is submodular, so taking the
question of largest gain again and again comes within 1 - 1/e of the best batch (Nemhauser et al. 1978). Prompt diversity is the
same criterion on the prompts' own features, added with a weight: the log det of their covariance is the entropy of a Gaussian,
where Melo et al. 2024 (BAL-PM, arXiv 2406.10023) estimate the entropy by neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]


def uncertainty(rewards: Floats, members: Floats | None = None) -> float:
    """How little is known about a question, in nats, mean over its pairs of candidates; NaN when a reward is missing.

    rewards (K,): the entropy of the predicted preference, largest (log 2) where the margin is 0.
    members (M, K), the rewards of an ensemble: what its members disagree about, the entropy of their mean prediction less the
    mean of their entropies (Houlsby et al. 2011, arXiv 1112.5745), which is 0 for a pair that all find equal.
    """
    values = rewards[None, :] if members is None else members
    pairs = list(combinations(range(len(rewards)), 2))
    p = expit(np.stack([values[:, a] - values[:, b] for a, b in pairs], axis=1))
    whole = _entropy(p.mean(axis=0))
    return float((whole if members is None else whole - _entropy(p).mean(axis=0)).mean())


def information(features: Floats, rewards: Floats) -> Floats:
    """(K - 1, width) rows Z with Z^T Z the Fisher information of a question: features (K, width), rewards (K,) in nats."""
    k = len(rewards)
    p = expit(rewards[:, None] - rewards[None, :])
    laplacian = -(p * (1 - p))
    np.fill_diagonal(laplacian, 0.0)
    np.fill_diagonal(laplacian, -laplacian.sum(axis=1))
    values, vectors = np.linalg.eigh(
        laplacian
    )  # the smallest value is 0: adding a constant to all rewards teaches nothing
    return np.asarray((np.sqrt(np.maximum(values[1:], 0.0)) * vectors[:, 1:]).T @ features).reshape(k - 1, -1)


def d_optimal(
    rows: Sequence[Floats],
    prompts: Floats,
    batch: int,
    *,
    labelled: Sequence[Floats] = (),
    labelled_prompts: Floats | None = None,
    diversity: float = 0.25,
) -> list[int]:
    """The questions in the order in which they should be asked: the first `batch` greedily, the rest by their gain after those.

    rows       `information` of each question that can be asked
    prompts    (questions, width) features of their prompts; `labelled_prompts` those of the questions that have an answer
    labelled   `information` of the questions that have an answer
    diversity  weight of prompt diversity; 0 leaves it out

    The ridge of either criterion is the information of one average question, spread evenly over the width.
    """
    n = len(rows)
    if n == 0:
        return []
    z = _stacked(rows)
    about = _Design(z, _stacked(labelled) if labelled else None)
    middle = prompts.mean(axis=0)
    seen = None if labelled_prompts is None or not len(labelled_prompts) else (labelled_prompts - middle)[:, None, :]
    where = _Design((prompts - middle)[:, None, :], seen) if diversity > 0 else None
    left, order = np.ones(n, dtype=bool), []
    for _ in range(min(batch, n)):
        gain = about.gains() + (diversity * where.gains() if where else 0.0)
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        order.append(best)
        left[best] = False
        about.take(best)
        if where:
            where.take(best)
    gain = about.gains() + (diversity * where.gains() if where else 0.0)
    rest = np.flatnonzero(left)
    return order + [int(i) for i in rest[np.argsort(-gain[rest], kind="stable")]]


class _Design:
    """log det of ridge + sum Z^T Z, kept for every candidate by updates of as many ranks as a question has rows."""

    def __init__(self, z: Floats, known: Floats | None) -> None:
        width = z.shape[2]
        ridge = max(float(np.square(z).sum()) / len(z) / width, 1e-12)
        a = ridge * np.eye(width)
        if known is not None:
            flat = known.reshape(-1, width)
            a += flat.T @ flat
        self.z, self.inverse = z, np.linalg.inv(a)
        self.inner = np.einsum("nrd,nsd->nrs", z @ self.inverse, z)  # Z A^-1 Z^T

    def gains(self) -> Floats:
        """log det(I + Z A^-1 Z^T) of every candidate, in nats."""
        if self.z.shape[1] == 1:
            return np.asarray(np.log1p(np.maximum(self.inner[:, 0, 0], 0.0)))
        return np.asarray(np.linalg.slogdet(np.eye(self.z.shape[1]) + self.inner)[1])

    def take(self, i: int) -> None:
        """Add candidate i to A (Woodbury's identity)."""
        u = self.inverse @ self.z[i].T  # (width, rows)
        core = np.linalg.inv(np.eye(u.shape[1]) + self.inner[i])
        v = self.z @ u  # (n, rows, rows of i)
        self.inner -= np.einsum("nra,ab,nsb->nrs", v, core, v)
        self.inverse -= u @ core @ u.T


def _stacked(rows: Sequence[Floats]) -> Floats:
    """(questions, most rows, width), filled up with rows of zeros, which carry no information."""
    most = max(len(row) for row in rows)
    found = np.zeros((len(rows), most, rows[0].shape[1]))
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found


def _entropy(p: Floats) -> Floats:
    """Of a yes with probability p, in nats."""
    q = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(np.where(np.isnan(p), math.nan, -(q * np.log(q) + (1 - q) * np.log1p(-q))))
