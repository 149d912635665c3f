"""The statistics of the drift check against known truths, direct formulas and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from guerdon.diagnose.accuracy_lost import Labelled, measured, weighted
from guerdon.diagnose.drift_measures import classifier, mean_shift, opener_reuse, wasserstein
from guerdon.diagnose.resample import TwoSamples, rank_p_value, thin
from guerdon.diagnose.twosample import (
    Ellipsoid,
    Space,
    folds_by_prompt,
    log_ratios,
    logistic,
    median_bandwidth,
    mmd2,
    outlier_share,
    shrunken_covariance,
    squared_distances,
)


def two(n, m, times=99, seed=0, group=None):
    is_current = np.arange(n + m) >= n
    return TwoSamples.draw(np.arange(n + m) if group is None else group, is_current, times, seed)


def clustered(rng, prompts=20, answers=4, spread=1.0, dims=2):
    """Answers of two like policies to different prompts: rows of a prompt share most of their position."""
    group = np.repeat(np.arange(2 * prompts), answers)
    points = spread * rng.normal(size=(2 * prompts, dims))[group] + 0.3 * rng.normal(size=(len(group), dims))
    return points, group, group >= prompts


@pytest.mark.parametrize(("shift", "dims"), [(0.0, 3), (0.5, 3), (1.0, 1), (1.5, 6)])
def test_auc_of_a_gaussian_shift_is_known(shift, dims):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(4000, dims))
    points[2000:, 0] += shift
    found = classifier(Space.fit(points)(points), two(2000, 2000), 0)
    expected = stats.norm.cdf(shift / math.sqrt(2))
    assert found.value == pytest.approx(expected, abs=0.02)
    assert found.low - 0.005 <= expected <= found.high + 0.005
    assert found.high - found.low < 0.065
    assert (found.p <= 0.01) == (shift > 0)


def test_interval_of_the_auc_is_delongs_when_every_prompt_has_one_answer():
    """Without folds and prompts, the formula of DeLong et al. 1988 by direct sums."""
    from guerdon.diagnose.twosample import _clustered_auc

    rng = np.random.default_rng(3)
    scores = np.round(rng.normal(size=60) + (np.arange(60) >= 25), 1)  # with ties
    rows = two(25, 35, times=1)
    auc, error = _clustered_auc(scores, rows, np.zeros(60, dtype=np.int64))
    reference, current = scores[:25], scores[25:]
    wins = np.heaviside(current[:, None] - reference, 0.5)
    assert auc == pytest.approx(wins.mean(), abs=1e-12)
    v10, v01 = wins.mean(1), wins.mean(0)
    direct = math.sqrt(((v10 - auc) ** 2).sum() / 35**2 + ((v01 - auc) ** 2).sum() / 25**2)
    assert error == pytest.approx(direct * math.sqrt(60 / 59), rel=1e-9)


def test_interval_of_the_auc_covers_one_half_when_nothing_has_changed():
    """Forty columns, answers that share prompts: DeLong's error alone is a third too small and covers about 80 %."""
    rng = np.random.default_rng(4)
    covered, shown = [], []
    for seed in range(60):
        points, group, is_current = clustered(rng, prompts=60, answers=2, dims=40)
        found = classifier(points, TwoSamples.draw(group, is_current, 99, seed), seed)
        covered.append(found.low <= 0.5 <= found.high)
        shown.append(found.value)
    assert np.mean(covered) >= 0.88  # 0.95 expected, less two and a half standard errors
    assert np.mean(shown) == pytest.approx(0.5, abs=0.04)


def test_logistic_maximises_the_penalised_likelihood():
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    points = rng.normal(size=(80, 3))
    labels = (rng.random(80) < 1 / (1 + np.exp(-2 * points[:, 0] + 1))).astype(float)

    def loss(beta):
        logits = points @ beta[:-1] + beta[-1]
        return np.logaddexp(0, logits).sum() - labels @ logits + (beta[:-1] ** 2).sum() / 2

    expected = minimize(loss, np.zeros(4), tol=1e-10).x
    assert logistic(points, labels) == pytest.approx(expected, abs=1e-4)
    separable = logistic(points[:, :1], (points[:, 0] > 0).astype(float))
    assert np.isfinite(separable).all()


@pytest.mark.parametrize("grouped", [False, True])
def test_mmd_equals_the_direct_sum(grouped):
    rng = np.random.default_rng(2)
    points = rng.normal(size=(24, 3))
    group = np.array([*range(12), *range(6), *range(20, 26)]) if grouped else np.arange(24)
    rows = two(12, 12, times=5, group=group)
    width = median_bandwidth(points)
    found = mmd2(points, rows, width)

    def direct(labels):
        sums, counts = {"cc": 0.0, "rr": 0.0, "rc": 0.0}, {"cc": 0, "rr": 0, "rc": 0}
        for i in range(24):
            for j in range(24):
                if group[i] != group[j]:
                    kind = "cc" if labels[i] and labels[j] else "rr" if not labels[i] and not labels[j] else "rc"
                    sums[kind] += math.exp(-((points[i] - points[j]) ** 2).sum() / (2 * width**2))
                    counts[kind] += 1
        return sums["cc"] / counts["cc"] + sums["rr"] / counts["rr"] - 2 * sums["rc"] / counts["rc"]

    for column in range(6):
        assert found[column] == pytest.approx(direct(rows.permuted[:, column]), abs=1e-12)


def test_median_bandwidth_and_distances():
    points = np.array([[0.0], [1.0], [3.0]])
    assert median_bandwidth(points) == pytest.approx(2.0)  # distances 1, 2, 3
    assert squared_distances(points)[0] == pytest.approx([0, 1, 9])
    assert median_bandwidth(np.ones((5, 2))) == 1.0


def test_p_values_are_uniform_when_nothing_has_changed():
    """Over 120 pairs of like samples, both tests; Kolmogorov-Smirnov against the uniform distribution."""
    rng = np.random.default_rng(5)
    found = []
    for seed in range(120):
        points, group, is_current = clustered(rng, prompts=12, answers=3)
        rows = TwoSamples.draw(group, is_current, 99, seed)
        found.append((classifier(points, rows, seed).p, rank_p_value(mmd2(points, rows, 1.5))))
    for p in np.array(found).T:
        assert stats.kstest(p, "uniform").pvalue > 0.005
        assert (p <= 0.05).mean() <= 0.11  # 0.05 expected, 0.11 is three standard errors above


def test_naive_relabelling_is_wrong_where_answers_share_prompts():
    """The same simulation with rows relabelled one by one rejects nearly half of the true hypotheses."""
    rng = np.random.default_rng(6)
    wrong, right = [], []
    for seed in range(150):
        points, group, is_current = clustered(rng, answers=8)
        values = points[:, 0]
        right.append(TwoSamples.draw(group, is_current, 99, seed).p_value(mean_shift(values)))
        alone = TwoSamples.draw(np.arange(len(group)), is_current, 99, seed)
        wrong.append(alone.p_value(mean_shift(values)))
    assert np.mean(np.array(wrong) <= 0.05) > 0.35  # the error is 2.7 times what it takes it for
    assert np.mean(np.array(right) <= 0.05) < 0.11


def test_answers_to_shared_prompts_trade_within_their_prompt():
    group = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3])
    is_current = np.array([True, False, False, True, False, True, True, False, False])
    rows = TwoSamples.draw(group, is_current, 400, 0)
    per_prompt = np.stack([rows.permuted[group == g].sum(0) for g in range(4)])
    assert (per_prompt[0] == 1).all()
    assert (per_prompt[1] == 1).all()
    assert set(map(tuple, per_prompt[2:].T.tolist())) == {(2, 0), (0, 2)}
    assert rows.permuted[:3, 1:].mean(1) == pytest.approx([1 / 3] * 3, abs=0.08)
    counts = np.stack([rows.bootstrap[group == g][0] for g in range(4)])
    assert (rows.bootstrap[:, 0] == 1).all()
    assert (counts[:2].sum(0) == 2).all()  # two shared prompts are drawn among themselves
    assert (counts[2:] == 1).all()  # the only prompt of its side


def test_pairing_sees_a_shift_that_unpaired_prompts_hide():
    rng = np.random.default_rng(7)
    prompt = 5 * rng.normal(size=60)
    values = np.concatenate([prompt, prompt + 0.3]) + 0.2 * rng.normal(size=120)
    group = np.concatenate([np.arange(60), np.arange(60)])
    assert two(60, 60, 199, group=group).p_value(mean_shift(values)) < 0.02
    assert two(60, 60, 199).p_value(mean_shift(values)) > 0.1


def test_bootstrap_interval_agrees_with_the_textbook():
    rng = np.random.default_rng(8)
    values = np.concatenate([rng.normal(size=400), rng.normal(0.4, 1, size=400)])
    _, low, high = two(400, 400, 999).interval(mean_shift(values))
    error = math.sqrt(1 / 400 + 1 / 400)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.12)


def test_wasserstein_and_mean_shift_against_scipy():
    rng = np.random.default_rng(9)
    values = np.round(np.concatenate([rng.normal(size=70), rng.normal(0.5, 2, size=50)]), 1)
    rows = two(70, 50, times=1)
    sides = (~rows.is_current)[:, None].astype(float), rows.is_current[:, None].astype(float)
    spread = values[:70].std()
    expected = stats.wasserstein_distance(values[:70], values[70:]) / spread
    assert wasserstein(values)(*sides)[0] == pytest.approx(expected, rel=1e-9)
    assert mean_shift(values)(*sides)[0] == pytest.approx((values[70:].mean() - values[:70].mean()) / spread)


def test_a_column_without_spread():
    rows = two(20, 20)
    assert rows.p_value(mean_shift(np.ones(40))) == 1.0
    assert rows.interval(mean_shift(np.ones(40))) == (0.0, 0.0, 0.0)
    switched = (np.arange(40) >= 20).astype(float)  # the reference has no spread of its own
    assert rows.interval(mean_shift(switched))[0] == pytest.approx(2.0)  # both together have 0.5
    assert rows.p_value(mean_shift(switched)) == 0.01
    space = Space.fit(np.column_stack([np.full(40, 7.3), switched]))
    assert space(np.array([[7.3, 0.0], [9.9, 0.0]]))[:, 0] == pytest.approx([0, 0])


def test_opener_reuse_by_hand():
    opener = np.array([0, 0, 1, 2, 3, 3, 3, 0])
    found = opener_reuse(opener, two(4, 4))
    assert (found.reference, found.current, found.value) == (0.5, 0.75, 0.25)


def test_covariance_shrinks_as_ledoit_and_wolf_say():
    rng = np.random.default_rng(10)
    points = rng.normal(size=(30, 4)) @ np.diag([1, 2, 3, 4])
    points -= points.mean(0)
    sample = points.T @ points / 30
    mu = np.trace(sample) / 4
    noise = np.mean([((np.outer(x, x) - sample) ** 2).sum() for x in points]) / 30
    rho = min(noise / ((sample - mu * np.eye(4)) ** 2).sum(), 1)
    assert shrunken_covariance(points) == pytest.approx(rho * mu * np.eye(4) + (1 - rho) * sample)


def test_outliers_of_like_samples_are_one_in_a_hundred():
    rng = np.random.default_rng(11)
    ellipsoid = Ellipsoid.fit(rng.normal(size=(1000, 5)))
    distance = ellipsoid.distances(rng.normal(size=(8000, 5)))
    sides = (np.arange(8000) < 4000)[:, None].astype(float), (np.arange(8000) >= 4000)[:, None].astype(float)
    assert outlier_share(distance, *sides)[0] == pytest.approx(0.01, abs=0.006)
    by_hand = (distance[4000:] > np.quantile(distance[:4000], 0.99, method="inverted_cdf")).mean()
    assert outlier_share(distance, *sides)[0] == by_hand


def test_space_keeps_the_leading_components_of_wide_features():
    rng = np.random.default_rng(12)
    hidden = rng.normal(size=(300, 3))
    wide = hidden @ rng.normal(size=(3, 600)) + 0.01 * rng.normal(size=(300, 600))
    points = Space.fit(wide)(wide)
    assert points.shape == (300, 30)
    variance = points.var(0)
    assert variance[:3].sum() / variance.sum() > 0.99
    standard = (wide - wide.mean(0)) / wide.std(0)
    assert np.sqrt(300 * variance[:3]) == pytest.approx(np.linalg.svd(standard, compute_uv=False)[:3], rel=1e-6)


def test_rank_p_value_by_hand():
    assert rank_p_value(np.array([3.0, 1.0, 3.0, 2.0])) == 0.5
    assert math.isnan(rank_p_value(np.array([math.nan, 1.0])))


def test_thin_keeps_so_many_of_each():
    group = np.array([5, 5, 5, 2, 9, 9])
    keep = thin(group, 2, 0)
    assert np.bincount(group[keep]).tolist() == [0, 0, 1, 0, 0, 2, 0, 0, 0, 2]
    assert {tuple(thin(group, 1, seed)[:3]) for seed in range(30)} == {
        (True, False, False),
        (False, True, False),
        (False, False, True),
    }


def pairs_under_shift(rng, n, shift):
    """Pairs whose answers have x ~ N(shift, 1); the further right, the less often the reward is right."""
    x = rng.normal(shift, 1, size=(n, 2))
    chance = 0.5 + 0.4 / (1 + np.exp(2 * x.mean(1)))
    return x, (rng.random(n) < chance).astype(float)


def test_weights_recover_the_accuracy_under_covariate_shift():
    rng = np.random.default_rng(13)
    truth = pairs_under_shift(rng, 400_000, 0.6)[1].mean()
    x, right = pairs_under_shift(rng, 6000, 0.0)
    assert right.mean() - truth > 0.08
    current = rng.normal(0.6, 1, size=12_000)
    points = np.concatenate([x.ravel(), current])[:, None]
    group = np.concatenate([np.repeat(np.arange(6000), 2), 6000 + np.arange(12_000)])
    is_current = np.arange(len(points)) >= 12_000
    fold = folds_by_prompt(group, is_current)
    ratios = log_ratios(points, is_current, fold, np.ones(len(points), dtype=bool))[:12_000]
    assert np.corrcoef(ratios, 0.6 * x.ravel() - 0.18)[0, 1] > 0.999  # the true ratio
    prompts = np.array([f"p{i}" for i in range(6000)], dtype=object)
    index = np.arange(6000) * 2
    found = weighted(Labelled(right, prompts, index, index + 1), ratios[index] + ratios[index + 1], ratios, times=199)
    assert found.refused == ""
    assert found.current == pytest.approx(truth, abs=0.025)
    assert found.low <= right.mean() - truth <= found.high
    assert found.pairs < 6000


def labelled(right, name="p"):
    n = len(right)
    return Labelled(right, np.array([f"{name}{i}" for i in range(n)], dtype=object), np.arange(n), np.arange(n))


def test_weights_that_rest_on_a_few_pairs_are_refused():
    rng = np.random.default_rng(14)
    pairs = labelled(np.ones(2000))
    far = weighted(pairs, 4 * rng.normal(size=2000), np.zeros(2000))
    assert "are needed" in far.refused
    assert math.isnan(far.loss)
    apart = weighted(pairs, np.zeros(2000), np.full(2000, -3.0))
    assert "too little overlap" in apart.refused
    few = weighted(labelled(np.ones(20)), np.zeros(20), np.zeros(20))
    assert "20 prompts" in few.refused
    even = weighted(pairs, np.zeros(2000), np.zeros(2000))
    assert (even.loss, even.pairs) == (0.0, 2000.0)


def test_measured_loss_has_the_error_of_two_shares():
    rng = np.random.default_rng(15)
    before, now = (rng.random(900) < 0.75).astype(float), (rng.random(600) < 0.6).astype(float)
    found = measured(labelled(before), labelled(now, "q"))
    assert found.loss == pytest.approx(before.mean() - now.mean())
    error = math.sqrt(before.var() / 900 + now.var() / 600)
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.12)
    assert found.p < 1e-4
    assert "fresh" in measured(labelled(before), labelled(now[:10], "q")).refused
