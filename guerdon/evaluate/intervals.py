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
Z95 = 1.959964  # normal quantile of a two-sided 95 % interval


def prompt_bootstrap(
    values: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of the mean of `values` when whole groups (prompts) are drawn with replacement.

    Pairs of one prompt stand or fall together, so resampling pairs would promise too much (the cluster bootstrap of
    Field and Welsh 2007). The limits are percentiles, moved outwards as `expanded_tail` says, since plain percentiles
    are too narrow for few prompts. (NaN, NaN) below two groups.
    """
    means = bootstrap_means(values[:, None], groups, seed=seed, resamples=resamples)[:, 0]
    if not len(means):
        return math.nan, math.nan
    tail = expanded_tail(groups, level)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_means(
    values: NDArray[np.float64], groups: NDArray[np.int64], *, seed: int = 0, resamples: int = 2000
) -> NDArray[np.float64]:
    """Means of the columns of `values`, (rows, M), in each resample of whole groups: (resamples, M), or (0, M) below
    two groups.

    All columns see the same draws, so differences of columns are paired. Groups with equal sums and size are
    exchangeable: one multinomial draw over the few distinct kinds is the same bootstrap at a cost that does not grow
    with the rows.
    """
    sizes = np.bincount(groups)
    sums = np.stack([np.bincount(groups, weights=column) for column in values.T], axis=1)
    present = sizes > 0
    table = np.concatenate([sums[present], sizes[present, None]], axis=1)
    kinds, counts = np.unique(table, axis=0, return_counts=True)
    total = int(counts.sum())
    if total < 2:
        return np.zeros((0, values.shape[1]))
    rng = np.random.default_rng(seed)
    means: list[NDArray[np.float64]] = []
    step = max(1, BLOCK // len(kinds))
    for start in range(0, resamples, step):
        draws = rng.multinomial(total, counts / total, size=min(step, resamples - start)).astype(np.float64)
        means.append((draws @ kinds[:, :-1]) / (draws @ kinds[:, -1:]))
    return np.concatenate(means)


def expanded_tail(groups: NDArray[np.int64], level: float = 0.95) -> float:
    """Share of bootstrap means to leave out on either side for a two-sided interval of this level.

    Phi(sqrt(G / (G - 1)) t), where t is the (1 - level) / 2 quantile of Student's t with G - 1 degrees of freedom:
    the expanded percentile interval of Hesterberg 2015 (arXiv 1411.5279, section 3.3). It mends the two things that
    make plain percentiles too narrow: a bootstrap variance with G in place of G - 1, and normal in place of t tails.
    G is `effective_groups`.
    """
    count = effective_groups(groups)
    t = stats.t.ppf((1 - level) / 2, count - 1)
    return float(stats.norm.cdf(math.sqrt(count / (count - 1)) * t))


def effective_groups(groups: NDArray[np.int64]) -> float:
    """(sum of sizes)^2 / sum of squared sizes, at least 2: the number of groups when they are equally large.

    Few large prompts do not become many by adding small ones (Carter, Schnepel and Steigerwald 2017).
    """
    sizes = np.bincount(groups).astype(np.float64)
    return max(2.0, float(sizes.sum()) ** 2 / float(np.square(sizes).sum()))


def standard_error(values: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Standard error of the mean of `values` when whole groups are sampled; NaN below two groups.

    sqrt(G / (G - 1) sum_g (S_g - n_g mean)^2) / n, the linearised variance of a ratio (Cochran 1977, section 9A).
    """
    sizes = np.bincount(groups)
    clusters = int((sizes > 0).sum())
    if clusters < 2:
        return math.nan
    residuals = np.bincount(groups, weights=values) - sizes * values.mean()
    return math.sqrt(clusters / (clusters - 1) * float(np.square(residuals).sum())) / len(values)


def design_effect(values: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """How many times the variance of the mean grows because values of one group go together (Kish 1965).

    1 when they do not, up to the size of a group when they are equal. NaN below two groups or without any variance.
    """
    alone = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return (standard_error(values, groups) / alone) ** 2 if alone > 0 else math.nan


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
