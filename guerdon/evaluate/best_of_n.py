"""Best-of-n from a pool: what the best of n candidates is worth, for every n up to the pool, without sampling any.

In: scores and values of N candidates per prompt (`CandidateTable`). Out: one number per prompt, n and value, and
intervals over prompts. The estimate is exact: the mean over all C(N, n) subsets, ties in the score shared equally.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from guerdon.evaluate.columns import Floats, Ints

BLOCK = 4_000_000  # numbers held at once
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Curve:
    """A mean over prompts at each n, with its 95 % interval (bootstrap over prompts); NaN where undefined."""

    mean: Floats
    low: Floats
    high: Floats


def kl_nats(n: NDArray[np.integer]) -> Floats:
    """log n - (n-1)/n, nats: the divergence of best-of-n from the policy that the candidates were drawn from.

    Exact only for continuous scores without ties; an upper bound for discrete or repetitive outputs, far off when n is
    large, and for a pool of several writers a label of the axis rather than a measurement (Beirami et al. 2024, arXiv
    2401.01879). Divergences of best-of-n and of reinforcement learning are not comparable (Gao et al. 2210.10760).
    """
    sizes = np.asarray(n, dtype=np.float64)
    return np.log(sizes) - (sizes - 1) / sizes


def grid(largest: int) -> Ints:
    """1, 2, 3, 4, 6, 8, 12, 16, 24, ... and `largest` itself: two steps per doubling."""
    powers = [2**k for k in range(largest.bit_length())]
    steps = {*powers, *(3 * power // 2 for power in powers[1:]), largest}
    return np.array(sorted(step for step in steps if step <= largest), dtype=np.int64)


def pick_weights(size: int, n: NDArray[np.integer]) -> Floats:
    """Probability that rank i (ascending by score) is the best of n drawn without replacement: (size, len(n)).

    w_i = C(i-1, n-1) / C(size, n), by w_size = n / size and w_{i-1} = w_i (i-n) / (i-1), which neither overflows nor
    cancels; what underflows to 0 is below 1e-300.
    """
    n = np.asarray(n, dtype=np.float64)
    ranks = np.arange(size, 1, -1, dtype=np.float64)[:, None]
    ratios = np.maximum(ranks - n, 0.0) / (ranks - 1)
    down: Floats = np.cumprod(np.concatenate([n[None, :] / size, ratios]), axis=0)
    return down[::-1]


def best_of_n(score: Floats, values: Floats, starts: Ints, n: NDArray[np.integer]) -> Floats:
    """Unbiased mean of each value under the best of n by `score`: (prompts, len(n), number of values).

    score   (rows,), finite; the rows of prompt i are starts[i]:starts[i+1]
    values  (rows,) or (rows, V), finite
    n       subset sizes, none larger than the smallest pool

    E_n = sum over i = n..N of C(i-1, n-1) / C(N, n) value_(i), ascending by score; candidates of equal score have the
    mean value of their group, so that the order of the rows says nothing. Sorted once per prompt, then one matrix
    product per value; memory beyond the result does not grow with the table.
    Raises ValueError when a pool is smaller than some n or a score is NaN.
    """
    sizes = np.diff(starts)
    if len(sizes) and int(np.max(n)) > int(sizes.min()):
        raise ValueError(f"best of {np.max(n)} from a pool of {sizes.min()}")
    if np.isnan(score).any():
        raise ValueError("a score is NaN; leave out candidates without one")
    columns = values[:, None] if values.ndim == 1 else values
    found = np.empty((len(sizes), len(n), columns.shape[1]))
    for size in np.unique(sizes):
        prompts = np.flatnonzero(sizes == size)
        weights = pick_weights(int(size), n)
        for block in np.array_split(prompts, math.ceil(len(prompts) * int(size) / BLOCK)):
            rows, group = _ranked(score, starts[block], int(size))
            for v in range(columns.shape[1]):
                found[block, :, v] = _tie_means(columns[rows, v], group) @ weights
    return found


def win_probability(score: Floats, starts: Ints, n: int) -> Floats:
    """Probability of each row to be the best of n drawn from its pool; ties share; sums to 1 per prompt."""
    sizes = np.diff(starts)
    won = np.empty(len(score))
    for size in np.unique(sizes):
        prompts = np.flatnonzero(sizes == size)
        weights = pick_weights(int(size), np.array([n]))[:, 0]
        for block in np.array_split(prompts, math.ceil(len(prompts) * int(size) / BLOCK)):
            rows, group = _ranked(score, starts[block], int(size))
            won[rows] = _tie_means(np.broadcast_to(weights, rows.shape), group)
    return won


def resampled_means(per_prompt: Floats, *, seed: int = 0, resamples: int = 2000) -> Floats:
    """Means over prompts drawn with replacement: (resamples, K) from (prompts, K).

    One draw serves all columns, so that differences between them are paired. Candidates of a prompt stay together:
    each pool is one draw of prompt and candidates, so the interval covers both.
    """
    prompts = len(per_prompt)
    rng = np.random.default_rng(seed)
    means: Floats = np.empty((resamples, per_prompt.shape[1]))
    step = max(1, BLOCK // prompts)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(prompts, size=(count, prompts)) + prompts * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * prompts).reshape(count, prompts)
        means[start : start + count] = times.astype(np.float64) @ per_prompt / prompts
    return means


def curve(mean: Floats, draws: Floats, prompts: int) -> Curve:
    """A curve from its estimate (n,) and its resampled values (resamples, n)."""
    return Curve(mean, *interval(draws, prompts))


def interval(draws: Floats, prompts: int) -> tuple[Floats, Floats]:
    """95 % percentiles of (resamples, ...) means over this many prompts, widened as Hesterberg (2015, arXiv 1411.5279).

    Plain percentiles are those of a normal without the n-1: too narrow for few prompts. The tail share is that of
    sqrt(n / (n-1)) t_{n-1}: 2.1 % for 50 prompts, 2.5 % for many. NaN below two prompts.
    """
    if prompts < 2:
        nothing = np.full(draws.shape[1:], np.nan)
        return nothing, nothing
    tail = float(stats.norm.cdf(math.sqrt(prompts / (prompts - 1)) * stats.t.ppf((1 - LEVEL) / 2, prompts - 1)))
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return low, high


def _ranked(score: Floats, begins: Ints, size: int) -> tuple[Ints, Ints | None]:
    """Rows of prompts of one pool size, ascending by score (prompts, size), and their tie groups, None without ties."""
    rows = begins[:, None] + np.arange(size)
    scores = score[rows]
    order = np.argsort(scores, axis=1)
    scores = np.take_along_axis(scores, order, axis=1)
    is_new = np.ones(scores.shape, dtype=bool)
    is_new[:, 1:] = scores[:, 1:] != scores[:, :-1]
    group = None if is_new.all() else np.cumsum(is_new.ravel()) - 1
    return np.take_along_axis(rows, order, axis=1), group


def _tie_means(values: Floats, group: Ints | None) -> Floats:
    """Each value replaced by the mean of its tie group."""
    if group is None:
        return values
    flat = values.ravel()
    means: Floats = (np.bincount(group, weights=flat) / np.bincount(group))[group].reshape(values.shape)
    return means
