"""Are two clouds of points the same cloud? A cross-fitted classifier, kernel mean discrepancy, and outliers.

In: features (n, d) without gaps, and `TwoSamples`. Out: a statistic with its interval or p-value. Nothing is fitted and
judged on the same prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import svds
from scipy.special import expit
from scipy.stats import norm, rankdata

from guerdon.diagnose.resample import Mask, TwoSamples, rank_p_value
from guerdon.evaluate.columns import Floats, Ints

FOLDS = 5
PENALTY = 1.0  # of the squared coefficients, against a summed log loss: a standard normal prior
MOST_COMPONENTS = 64
EXACT_WIDTH = 512  # up to here all principal components are computed
OUTLIER = 0.99  # quantile of held-out reference distances


@dataclass(frozen=True, eq=False)
class Space:
    """Where points are compared: columns standardised by `mean` and `scale`, then turned onto `axes` (d, k)."""

    mean: Floats
    scale: Floats
    axes: Floats

    @classmethod
    def fit(cls, points: Floats, seed: int = 0) -> Space:
        """Standardise and keep the leading principal components, at most one per ten points and 64 in all.

        Fitted on both samples together, blind to which is which, so that tests by permutation stay exact. A constant
        column tells nothing and becomes zero.
        """
        mean, scale = points.mean(0), points.std(0)
        scale = np.where(scale > 1e-9 * (1 + np.abs(mean)), scale, np.inf)
        standard = (points - mean) / scale
        n, d = points.shape
        most = max(1, min(MOST_COMPONENTS, n // 10))
        if d <= most:
            axes = np.eye(d)
        elif d <= EXACT_WIDTH:
            axes = np.linalg.eigh(standard.T @ standard)[1][:, ::-1][:, :most]
        else:
            start = np.random.default_rng(seed).normal(size=min(n, d))
            axes = svds(standard, k=most, v0=start, return_singular_vectors="vh")[2].T[:, ::-1]
        return cls(mean, scale, axes)

    def __call__(self, points: Floats) -> Floats:
        """Points (n, d) as (n, k)."""
        return ((points - self.mean) / self.scale) @ self.axes


@dataclass(frozen=True, eq=False)
class Separation:
    """How well a classifier tells the samples apart: AUC with interval and p-value, 0.5 is not at all."""

    auc: float
    low: float
    high: float
    p: float


def folds_by_prompt(group: Ints, is_current: Mask, seed: int = 0) -> Ints:
    """A fold for every row: prompts are dealt out whole, those of each side and those of both separately."""
    rng = np.random.default_rng(seed)
    current, reference = np.bincount(group, weights=is_current) > 0, np.bincount(group, weights=~is_current) > 0
    fold = np.zeros(len(current), dtype=np.int64)
    for stratum in (reference & current, reference & ~current, current & ~reference):
        size = int(stratum.sum())
        fold[stratum] = rng.permutation(size) % FOLDS
    return fold[group]


def logistic(points: Floats, labels: Floats, steps: int = 25) -> Floats:
    """Coefficients, intercept last, of a logistic regression with an L2 penalty on all but the intercept (Newton)."""
    design = _with_one(points)
    beta = np.zeros(design.shape[1])
    for _ in range(steps):
        chance = expit(design @ beta)
        gradient = design.T @ (labels - chance) - _ridge(design) @ beta
        step = np.linalg.solve((design.T * (chance * (1 - chance))) @ design + _ridge(design), gradient)
        beta += step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-6:
            break
    return beta


def log_ratios(points: Floats, is_current: Mask, fold: Ints, fitted: Mask) -> Floats:
    """log of density(current) / density(reference) at each point, from a classifier that never saw its prompt.

    `fitted` marks the rows that classifiers may learn from. The odds p / (1 - p) are freed of the sample sizes.
    """
    found = np.zeros(len(points))
    for number in range(FOLDS):
        inside, learn = fold == number, (fold != number) & fitted
        labels = is_current[learn].astype(np.float64)
        prior = math.log(max(labels.sum(), 0.5) / max((1 - labels).sum(), 0.5))
        found[inside] = _with_one(points[inside]) @ logistic(points[learn], labels) - prior
    return found


def separation(points: Floats, rows: TwoSamples, fold: Ints, ratios: Floats) -> Separation:
    """AUC of held-out `ratios`, each point compared with those of its own fold; clustered interval; permutation test.

    The test repeats the first Newton step of the classifier, whose Hessian does not depend on the labels, under every
    relabelling (a classifier two-sample test, Lopez-Paz and Oquab 2017). The interval is DeLong's by placements, summed
    over prompts (Obuchowski 1997), on the logit scale; but that takes the classifiers for given, though folds share
    what they learn from, so its error is at least the one that the relabelled AUCs show.
    """
    auc, error = _clustered_auc(ratios, rows, fold)
    null = _first_step_aucs(points, rows, fold)
    p = rank_p_value(np.abs(null - 0.5))
    if not math.isfinite(auc):
        return Separation(math.nan, math.nan, math.nan, math.nan)
    inner = min(max(auc, 1e-6), 1 - 1e-6)
    half = norm.ppf(0.975) * max(error / (inner * (1 - inner)), float(np.std(null[1:])) / 0.25)
    low, high = expit(np.log(inner / (1 - inner)) + np.array([-half, half]))
    return Separation(auc, float(low), float(high), p)


def _clustered_auc(scores: Floats, rows: TwoSamples, fold: Ints) -> tuple[float, float]:
    """AUC over pairs of one fold, and its standard error over prompts."""
    influence = np.zeros(rows.group.max() + 1)
    pairs, total = 0.0, 0.0
    parts = []
    for number in np.unique(fold):
        inside = np.flatnonzero(fold == number)
        is_current = rows.is_current[inside]
        n1, n0 = int(is_current.sum()), int((~is_current).sum())
        if n1 and n0:
            beaten = _placements(scores[inside], is_current)
            pairs, total = pairs + n1 * n0, total + beaten[is_current].sum() * n0
            parts.append((inside, is_current, n1, n0, beaten))
    if not pairs:
        return math.nan, math.nan
    for inside, is_current, n1, n0, beaten in parts:
        mean = beaten[is_current].mean()
        each = (beaten - mean) * np.where(is_current, n0, n1) / pairs
        influence += np.bincount(rows.group[inside], weights=each, minlength=len(influence))
    count = int((np.bincount(rows.group) > 0).sum())
    return total / pairs, math.sqrt(count / max(count - 1, 1) * float((influence**2).sum()))


def _placements(scores: Floats, is_current: Mask) -> Floats:
    """Of a current row the share of reference rows below it, of a reference row the share of current rows above."""
    everyone, own = rankdata(scores), np.empty(len(scores))
    for side in (is_current, ~is_current):
        own[side] = rankdata(scores[side])
    below = everyone - own  # rows of the other side below, ties as halves
    n1, n0 = is_current.sum(), (~is_current).sum()
    shares: Floats = np.where(is_current, below / n0, 1 - below / n1)
    return shares


def _first_step_aucs(points: Floats, rows: TwoSamples, fold: Ints) -> Floats:
    """Held-out AUC of the first Newton step, for every relabelling (1 + B,)."""
    design, labels = _with_one(points), rows.permuted.astype(np.float64)
    above, pairs = np.zeros(labels.shape[1]), np.zeros(labels.shape[1])
    for number in np.unique(fold):
        inside, learn = fold == number, fold != number
        hessian = design[learn].T @ design[learn] / 4 + _ridge(design)
        beta = np.linalg.solve(hessian, design[learn].T @ (labels[learn] - labels[learn].mean(0)))
        ranks = rankdata(np.round(design[inside] @ beta, 12), axis=0)
        n1 = labels[inside].sum(0)
        above += (ranks * labels[inside]).sum(0) - n1 * (n1 + 1) / 2
        pairs += n1 * (inside.sum() - n1)
    with np.errstate(invalid="ignore", divide="ignore"):
        aucs: Floats = above / pairs
    return aucs


def median_bandwidth(points: Floats, most: int = 1000, seed: int = 0) -> float:
    """Median distance between different points, of at most `most` of them; 1 when all are the same."""
    chosen = points[np.random.default_rng(seed).permutation(len(points))[:most]]
    squares = squared_distances(chosen)[np.triu_indices(len(chosen), 1)]
    return math.sqrt(float(np.median(squares))) or math.sqrt(float(squares.mean())) or 1.0


def squared_distances(points: Floats) -> Floats:
    """(n, n) squared Euclidean distances."""
    squares = (points**2).sum(1)
    distances: Floats = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0.0)
    return distances


def mmd2(points: Floats, rows: TwoSamples, bandwidth: float) -> Floats:
    """Squared maximum mean discrepancy for every relabelling (1 + B,): Gaussian kernel exp(-d^2 / (2 bandwidth^2)).

    The unbiased estimate of Gretton et al. 2012 (JMLR 13), eqs. 3 and 4. Pairs of answers to one prompt are left out of
    all three means, as eq. 4 leaves out i = j: they are alike because of the prompt, not of the sample.
    """
    kernel = np.exp(-squared_distances(points) / (2 * bandwidth**2))
    kernel[rows.group[:, None] == rows.group] = 0.0
    labels = rows.permuted.astype(np.float64)
    to_current = kernel @ labels
    to_all = kernel.sum(1)
    cc = (labels * to_current).sum(0)
    rc = (labels * to_all[:, None]).sum(0) - cc
    rr = to_all.sum() - 2 * rc - cc
    order = np.argsort(rows.group, kind="stable")
    starts = np.flatnonzero(np.diff(rows.group[order], prepend=-1))
    n1, n = np.add.reduceat(labels[order], starts, axis=0), np.diff(starts, append=len(order))[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        c, r = labels.sum(0), len(labels) - labels.sum(0)
        pairs = [c**2 - (n1**2).sum(0), r**2 - ((n - n1) ** 2).sum(0), c * r - (n1 * (n - n1)).sum(0)]
        value: Floats = cc / pairs[0] + rr / pairs[1] - 2 * rc / pairs[2]
    return value


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """Where the reference lies: centre and precision matrix of a shrunken covariance (Ledoit and Wolf 2004)."""

    centre: Floats
    precision: Floats

    @classmethod
    def fit(cls, points: Floats) -> Ellipsoid:
        centre: Floats = points.mean(0)
        precision: Floats = np.linalg.pinv(shrunken_covariance(points - centre), hermitian=True).astype(np.float64)
        return cls(centre, precision)

    def distances(self, points: Floats) -> Floats:
        """Mahalanobis distances (n,)."""
        away = points - self.centre
        lengths: Floats = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", away, self.precision, away), 0.0))
        return lengths


def shrunken_covariance(centred: Floats) -> Floats:
    """Sample covariance pulled towards a multiple of the identity by the amount that minimises the expected error."""
    n, d = centred.shape
    sample = centred.T @ centred / n
    size = np.trace(sample) / d
    distance = ((sample - size * np.eye(d)) ** 2).sum()
    squares = centred**2
    noise = ((squares.T @ squares) / n - sample**2).sum() / n
    shrinkage = min(noise / distance, 1.0) if distance > 0 else 1.0
    covariance: Floats = shrinkage * size * np.eye(d) + (1 - shrinkage) * sample
    return covariance


def outlier_share(distance: Floats, reference: Floats, current: Floats) -> Floats:
    """Weighted share of current rows beyond the 99th percentile of reference rows, for (n, B) weights of either side."""
    order = np.argsort(distance)
    distance, reference, current = distance[order], reference[order], current[order]
    mass = np.cumsum(reference, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        place = (mass < OUTLIER * mass[-1]).sum(0).clip(max=len(distance) - 1)
        beyond = distance[:, None] > distance[place]
        share: Floats = (current * beyond).sum(0) / current.sum(0)
    return share


def _with_one(points: Floats) -> Floats:
    return np.column_stack([points, np.ones(len(points))])


def _ridge(design: Floats) -> Floats:
    return np.diag([*[PENALTY] * (design.shape[1] - 1), 1e-9])
