"""The best-of-n estimate is the mean over every subset, whatever the order of rows and members, ties included."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest

from benchmarks.pools import alpaca_eval, bon_tulu
from guerdon.evaluate.best_of_n import (
    best_of_n,
    curve,
    grid,
    interval,
    kl_nats,
    pick_weights,
    resampled_means,
    win_probability,
)


def by_enumeration(score, value, n):
    """Mean over all subsets of the mean value of the candidates that share the subset's best score."""
    picks = []
    for subset in combinations(range(len(score)), n):
        best = max(score[i] for i in subset)
        # A tie inside the whole pool counts as one value, the mean of its group: a random one of them is the pick.
        group = [value[i] for i in range(len(score)) if score[i] == best]
        picks.append(sum(group) / len(group))
    return sum(picks) / len(picks)


def by_random_tie_break(score, value, n):
    """The same when equal scores are broken by a fair random order: the mean over subsets of the tied ones in them."""
    picks = []
    for subset in combinations(range(len(score)), n):
        best = max(score[i] for i in subset)
        tied = [value[i] for i in subset if score[i] == best]
        picks.append(sum(tied) / len(tied))
    return sum(picks) / len(picks)


def ragged(rng, sizes, levels):
    """Pools of these sizes with scores of few levels, so that there are ties."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return rng.integers(levels, size=starts[-1]) / 4, rng.normal(size=(starts[-1], 2)), starts


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_equals_enumeration_of_all_subsets(levels):
    rng = np.random.default_rng(levels)
    sizes = [7, 9, 7, 8, 11]
    score, values, starts = ragged(rng, sizes, levels)
    n = np.arange(1, 8)
    found = best_of_n(score, values, starts, n)
    assert found.shape == (5, 7, 2)
    for p in range(len(sizes)):
        rows = slice(starts[p], starts[p + 1])
        for k in n:
            for v in range(2):
                expected = by_enumeration(score[rows], values[rows, v], k)
                assert found[p, k - 1, v] == pytest.approx(expected, abs=1e-12)
                # and a fair coin among equals gives the same by symmetry
                assert by_random_tie_break(score[rows], values[rows, v], k) == pytest.approx(expected, abs=1e-12)


def test_known_values():
    starts = np.array([0, 4])
    score, gold = np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0, 30.0, 0.0])
    found = best_of_n(score, gold, starts, np.array([1, 2, 4]))[0, :, 0]
    # pairs: (1,2) 20, (1,3) (2,3) 30, and three with the last one: 0
    assert found == pytest.approx([15.0, (20 + 30 + 30) / 6, 0.0], abs=1e-14)


def test_order_of_rows_says_nothing():
    rng = np.random.default_rng(1)
    score, values, starts = ragged(rng, [30, 30, 40], 5)
    n = grid(30)
    found = best_of_n(score, values, starts, n)
    for _ in range(20):
        order = np.concatenate([a + rng.permutation(b - a) for a, b in pairwise(starts)])
        assert np.abs(best_of_n(score[order], values[order], starts, n) - found).max() < 1e-12


def test_constant_scores_are_a_random_choice():
    rng = np.random.default_rng(2)
    _, values, starts = ragged(rng, [12, 12], 5)
    found = best_of_n(np.ones(24), values, starts, np.arange(1, 13))
    assert np.abs(found - values.reshape(2, 12, 2).mean(1)[:, None]).max() < 1e-12


def test_the_proxy_under_itself_never_falls():
    rng = np.random.default_rng(3)
    score, _, starts = ragged(rng, [50] * 4, 9)
    found = best_of_n(score, score, starts, np.arange(1, 51))[:, :, 0]
    assert (np.diff(found, axis=1) > -1e-12).all()
    assert found[:, -1] == pytest.approx([score[a : a + 50].max() for a in starts[:-1]])


@pytest.mark.parametrize(("size", "n"), [(5, 3), (48, 16), (512, 200), (3000, 7)])
def test_weights_against_exact_fractions(size, n):
    weights = pick_weights(size, np.array([n]))[:, 0]
    exact = [float(Fraction(math.comb(i - 1, n - 1), math.comb(size, n))) for i in range(1, size + 1)]
    assert weights == pytest.approx(exact, rel=1e-11, abs=1e-300)
    assert weights.sum() == pytest.approx(1, abs=1e-12)


def test_win_probabilities_carry_the_estimate():
    rng = np.random.default_rng(4)
    score, values, starts = ragged(rng, [9, 12, 9], 4)
    won = win_probability(score, starts, 5)
    assert np.add.reduceat(won, starts[:-1]) == pytest.approx([1, 1, 1])
    expected = best_of_n(score, values, starts, np.array([5]))[:, 0]
    assert np.add.reduceat(won[:, None] * values, starts[:-1]) == pytest.approx(expected, abs=1e-12)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    score, values, starts = ragged(rng, [9, 12, 9, 9, 12], 4)
    whole = best_of_n(score, values, starts, grid(9)), win_probability(score, starts, 9)
    draws = resampled_means(whole[0].reshape(5, -1), resamples=50)
    monkeypatch.setattr("guerdon.evaluate.best_of_n.BLOCK", 10)
    assert best_of_n(score, values, starts, grid(9)) == pytest.approx(whole[0], abs=1e-14)
    assert win_probability(score, starts, 9) == pytest.approx(whole[1], abs=1e-14)
    assert resampled_means(whole[0].reshape(5, -1), resamples=50) == pytest.approx(draws, abs=1e-14)


def test_what_cannot_be_estimated_is_refused():
    starts = np.array([0, 3, 5])
    with pytest.raises(ValueError, match="best of 3 from a pool of 2"):
        best_of_n(np.arange(5.0), np.arange(5.0), starts, np.array([1, 3]))
    with pytest.raises(ValueError, match="NaN"):
        best_of_n(np.array([1, 2, np.nan, 1, 2]), np.arange(5.0), starts, np.array([1]))


def test_divergence_of_the_reference_table():
    assert kl_nats(np.array([1, 4, 16, 32, 55])) == pytest.approx([0, 0.636, 1.835, 2.497, 3.026], abs=5e-4)


def test_grid_has_its_ends():
    assert grid(1).tolist() == [1]
    assert grid(48).tolist() == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]
    assert grid(11).tolist() == [1, 2, 3, 4, 6, 8, 11]


def test_bootstrap_is_paired_and_has_the_right_spread():
    rng = np.random.default_rng(6)
    values = rng.normal(size=(400, 1))
    draws = resampled_means(np.hstack([values, values + 1]), seed=3, resamples=4000)
    assert draws[:, 1] - draws[:, 0] == pytest.approx(np.ones(4000))
    assert draws[:, 0].std() == pytest.approx(values.std() / 20, rel=0.05)
    band = curve(values.mean(0), draws[:, :1], 400)
    half = 1.96 * values.std() / 20
    assert band.low[0] == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert band.high[0] == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_intervals_are_wider_for_few_prompts():
    """Of a mean of normals: t times the unbiased standard error, although resampled means spread by less."""
    from scipy import stats

    rng = np.random.default_rng(8)
    values = rng.normal(size=(8, 1))
    low, high = interval(resampled_means(values, resamples=20_000), 8)
    half = stats.t.ppf(0.975, 7) * values.std(ddof=1) / np.sqrt(8)
    assert (high[0] - low[0]) / 2 == pytest.approx(half, rel=0.06)
    assert np.isnan(interval(np.ones((10, 3)), 1)[0]).tolist() == [True] * 3


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("chars", [10.54, 15.22, 21.84, 30.88, 40.69, 45.69, 44.81]),
        ("gold", [10.54, 17.95, 28.72, 43.30, 61.05, 77.75, 84.56]),
    ],
)
def test_published_alpaca_eval_pool(real_data, select, expected):
    table = alpaca_eval(real_data)
    starts = table.starts()
    assert len(starts) - 1 == 697
    assert set(np.diff(starts)) == {48}
    found = best_of_n(getattr(table, select), table.gold, starts, np.array([1, 2, 4, 8, 16, 32, 48]))
    assert 100 * found[:, :, 0].mean(0) == pytest.approx(expected, abs=0.005)


def test_published_bon_tulu_pool(real_data):
    table = bon_tulu(real_data)
    starts = table.starts()
    longest = best_of_n(table.chars, table.gold, starts, np.array([1, 11]))[:, :, 0].mean(0)
    oracle = best_of_n(table.gold, table.gold, starts, np.array([11]))[:, 0, 0].mean()
    assert [*longest, oracle] == pytest.approx([0.323, 0.371, 0.593], abs=5e-4)
