"""How sure a share is: bootstrap over prompts, Wilson bands, and the ceiling that label noise sets.

In: one value per pair with the prompt it belongs to, or counts. Out: (low, high). Nothing here loops over rows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from guerdon.types import ConfigError

BLOCK = 4_000_000  # numbers held at once while resampling


def prompt_bootstrap(
    values: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` when whole groups (prompts) are drawn with replacement.

    Pairs of one prompt stand or fall together, so resampling pairs would promise too much (the cluster bootstrap of
    Field and Welsh 2007). Groups with equal sum and size are exchangeable, so one multinomial draw over the few
    distinct kinds is the same bootstrap at a cost that does not grow with the rows. (NaN, NaN) below two groups.
    """
    sums = np.bincount(groups, weights=values)
    sizes = np.bincount(groups)
    present = sizes > 0
    kinds, counts = np.unique(np.stack([sums[present], sizes[present]], axis=1), axis=0, return_counts=True)
    total = int(counts.sum())
    if total < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means: list[NDArray[np.float64]] = []
    step = max(1, BLOCK // len(kinds))
    for start in range(0, resamples, step):
        draws = rng.multinomial(total, counts / total, size=min(step, resamples - start))
        means.append((draws @ kinds[:, 0]) / (draws @ kinds[:, 1]))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson(
    shares: NDArray[np.float64], n: NDArray[np.int64], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score interval for shares of n independent trials (Wilson 1927); inside [0, 1] and honest at the edges."""
    z = float(stats.norm.ppf((1 + level) / 2))
    scale = 1 + z * z / n
    middle = (shares + z * z / (2 * n)) / scale
    half = z * np.sqrt(shares * (1 - shares) / n + z * z / (4 * n * n)) / scale
    return np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)


def ceiling(agreement: float) -> tuple[float, float]:
    """Best accuracy that any model can reach against one label when two raters agree with probability `agreement`.

    [a, (1 + sqrt(2a - 1)) / 2]. If every pair is equally noisy with error e, then a = (1-e)^2 + e^2 and the best
    accuracy 1 - e is the upper end; if pairs are either certain or a coin flip, it is the lower end; Jensen's
    inequality puts the rest between.
    Raises ConfigError unless 0.5 <= agreement <= 1.
    """
    if not 0.5 <= agreement <= 1.0:
        raise ConfigError(
            f"agreement between raters must lie between 0.5 and 1, got {agreement}; give a share, not a percentage"
        )
    return agreement, (1 + math.sqrt(2 * agreement - 1)) / 2
