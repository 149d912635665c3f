"""What the benchmarks of `collect` share: lab questions as dense features, a fast reward model on them, and their tables."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from probe_power import features
from scipy import stats
from scipy.special import expit

from guerdon.collect.selection import Labels, fit
from guerdon.evaluate.calibration import fit_temperature
from guerdon.lab.gold import gold
from guerdon.lab.simulate import gold_comparisons
from guerdon.types import Comparison

WIDTH = 112  # dense features: 16 of form and understanding, the rest a projection of words and word pairs


@dataclass(frozen=True)
class Pool:
    """Pairs of lab answers: prompts, texts (two each), features (pair, 2, width), gold (pair, 2)."""

    prompts: list[str]
    texts: list[tuple[str, str]]
    features: np.ndarray
    golds: np.ndarray


def pools(n: int, held_out: int, seed: int) -> tuple[Pool, Pool]:
    """A pool to label and one to measure on, about other prompts; features are standardised over the first."""
    first = gold_comparisons(n, seed=seed)
    second = gold_comparisons(held_out, seed=50_000 + seed, exclude={c.prompt[0]["content"] for c in first})
    dense = [_dense(part) for part in (first, second)]
    mean, spread = dense[0].mean(axis=(0, 1)), dense[0].std(axis=(0, 1)) + 1e-9
    return tuple(_pool(part, (h - mean) / spread) for part, h in zip((first, second), dense, strict=True))


def _dense(comparisons: Sequence[Comparison]) -> np.ndarray:
    prompts = [c.prompt[0]["content"] for c in comparisons for _ in c.completions]
    texts = [completion[0]["content"] for c in comparisons for completion in c.completions]
    sparse = features(texts, prompts, reads=True)
    grams = WIDTH - 16
    projection = np.random.default_rng(0).normal(size=(sparse.shape[1] - 16, grams)) / np.sqrt(grams)
    return np.hstack([sparse[:, :16].toarray(), sparse[:, 16:] @ projection]).reshape(len(comparisons), 2, WIDTH)


def _pool(comparisons: Sequence[Comparison], h: np.ndarray) -> Pool:
    prompts = [c.prompt[0]["content"] for c in comparisons]
    texts = [(c.completions[0][0]["content"], c.completions[1][0]["content"]) for c in comparisons]
    return Pool(prompts, texts, h, np.array([[gold(p, t) for t in two] for p, two in zip(prompts, texts, strict=True)]))


def train(pool: Pool, rows: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Bradley-Terry on some pairs of the pool: `target` is P(first better); a row may occur several times."""
    z, number = pool.features[rows, 0] - pool.features[rows, 1], np.arange(len(rows))
    weight = np.ones(len(rows)) if weight is None else weight
    return fit(Labels(z, target, weight, number, number), number, weight)


def measure(pool: Pool, theta: np.ndarray) -> dict[str, float]:
    """Accuracy on gold-labelled pairs, and how the probabilities fit those labels.

    Log loss in nats, ECE over 15 equal-mass bins, and log loss after one temperature is fitted to the same labels: what is left
    when only the scale of the rewards is allowed to change.
    """
    decided = pool.golds[:, 0] != pool.golds[:, 1]
    margin = (pool.features[:, 0] - pool.features[:, 1])[decided] @ theta
    margin = np.where(pool.golds[decided, 0] > pool.golds[decided, 1], margin, -margin)
    sure, right = expit(np.abs(margin)), margin > 0
    bins = np.array_split(np.argsort(sure), 15)
    ece = sum(len(b) * abs(sure[b].mean() - right[b].mean()) for b in bins) / len(sure)
    return {
        "accuracy": float(right.mean()),
        "log loss": float(np.logaddexp(0, -margin).mean()),
        "ECE": float(ece),
        "refitted": float(np.logaddexp(0, -margin / fit_temperature(margin)).mean()),
    }


def against_votes(pool: Pool, theta: np.ndarray, p: np.ndarray) -> float:
    """Expected log loss (nats) on fresh decided votes, `p` being the exact probability of a vote for the first of each pair."""
    margin = (pool.features[:, 0] - pool.features[:, 1]) @ theta
    return float((p * np.logaddexp(0, -margin) + (1 - p) * np.logaddexp(0, margin)).mean())


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % interval by Student's t."""
    mean, half = float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 3) -> str:
    """Median over seeds and, in brackets, the smallest and largest."""
    low, middle, high = (scale * float(v) for v in (np.min(values), np.median(values), np.max(values)))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def provenance() -> str:
    """Machine, versions, date, command."""
    import scipy

    what = f"{platform.machine()}, one thread, Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    return f"{what}, {datetime.now(UTC).date()}.\n\n    python {' '.join(sys.argv)}\n"
