"""Every metric against numbers worked out by hand, a reference implementation, or an invariant."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from guerdon.evaluate.calibration import equal_mass_bins, reliability
from guerdon.evaluate.intervals import prompt_bootstrap, wilson
from guerdon.evaluate.metrics import ceiling, evaluate
from guerdon.evaluate.table import ScoreTable
from guerdon.types import ConfigError


def make_table(scores, ranks, prompts=None, chars=None, source=None, strength=None, gold=None):
    """One comparison per row of `scores`; every argument is a list per comparison."""
    sizes = [len(row) for row in scores]
    total = sum(sizes)

    def per_row(values, default):
        return np.repeat(np.array(values if values is not None else [default] * len(sizes), dtype=object), sizes)

    def flat(values):
        return np.array([value for row in values for value in row], dtype=float)

    ids = [str(i) for i in range(len(sizes))]
    score = flat(scores)
    return ScoreTable(
        prompt=per_row(prompts or ids, ""),
        comparison=per_row(ids, ""),
        completion=np.array([j for size in sizes for j in range(size)]),
        rank=flat(ranks),
        score=score,
        status=np.where(np.isfinite(score), "ok", "error").astype(object),
        chars=flat(chars) if chars is not None else np.full(total, math.nan),
        source=per_row(source, "s"),
        strength=per_row(strength, math.nan).astype(float),
        weight=np.ones(total),
        gold=None if gold is None else flat(gold),
    )


def random_table(n=300, seed=0, prompts=120):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 2)).round(1)
    ranks = np.where(rng.random((n, 1)) < 0.6, [[1, 2]], [[2, 1]])
    chars = rng.integers(1, 9, size=(n, 2))
    return make_table(scores, ranks, [str(p) for p in rng.integers(0, prompts, size=n)], chars)


def change(table, **columns):
    return ScoreTable(**{name: columns.get(name, getattr(table, name)) for name in ScoreTable.__dataclass_fields__})


def test_numbers_worked_out_by_hand():
    log3 = math.log(3)  # sigmoid(log 3) = 3/4
    e = evaluate(
        make_table(
            scores=[[log3, 0], [0, log3], [0, 0], [1, 2], [math.nan, 1]],
            ranks=[[1, 2], [1, 2], [1, 2], [1, 1], [1, 2]],
            chars=[[9, 1], [9, 1], [1, 9], [1, 1], [1, 9]],
        )
    )
    assert (e.n, e.ties, e.score_ties, e.unscored, e.prompts) == (3, 1, 1, 1, 3)
    assert e.accuracy == 0.5
    assert e.nll == pytest.approx((math.log(4 / 3) + math.log(4) + math.log(2)) / 3)
    assert e.brier == pytest.approx((1 / 16 + 9 / 16 + 1 / 4) / 3)
    assert e.longer_wins == pytest.approx(2 / 3)
    assert e.shorter_wins == pytest.approx(1 / 3)
    assert e.margin_quantiles["50"] == 0
    assert e.margin_quantiles["95"] == pytest.approx(0.9 * log3)
    assert e.reward_mean == pytest.approx((2 * log3 + 4) / 9)
    assert not e.collapsed


def test_ece_by_hand():
    """Ten bins of two pairs; the model is always 3/4 sure and right half of the time in each bin it shares."""
    log3 = math.log(3)
    scores = [[log3 + 1e-6 * i, 0] for i in range(20)]
    ranks = [[1, 2], [2, 1]] * 10
    assert evaluate(make_table(scores, ranks)).ece == pytest.approx(0.25, abs=1e-5)
    assert evaluate(make_table(scores, [[1, 2]] * 20)).ece == pytest.approx(0.25, abs=1e-5)


def test_ece_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(1)
    margin = rng.integers(-3, 4, size=200) / 2
    order = rng.permutation(200)
    one = make_table([[m, 0] for m in margin], [[1, 2]] * 200)
    two = make_table([[m, 0] for m in margin[order]], [[1, 2]] * 200)
    assert evaluate(one).ece == pytest.approx(evaluate(two).ece, abs=1e-12)


def test_equal_mass_bins():
    assert np.bincount(equal_mass_bins(np.random.default_rng(0).random(1000), 10)).tolist() == [100] * 10
    assert len(set(equal_mass_bins(np.ones(50), 10))) == 1
    assert equal_mass_bins(np.array([1.0] * 6 + [0.0] * 4), 2).tolist() == [1] * 6 + [0] * 4


def test_calibrated_margins_are_found_calibrated():
    rng = np.random.default_rng(0)
    margin = rng.normal(scale=2, size=40_000)
    right = rng.random(40_000) < 1 / (1 + np.exp(-margin))
    table = make_table([[m, 0] for m in margin], np.where(right[:, None], [[1, 2]], [[2, 1]]))
    curve = reliability(table.pairs(), bins=8)
    assert evaluate(table, resamples=10).ece < 0.01
    assert np.all(np.abs(curve.accuracy - curve.confidence) < 0.02)
    assert curve.n.tolist() == [5000] * 8
    assert np.all((curve.low < curve.accuracy) & (curve.accuracy < curve.high))
    loud = change(table, score=table.score * 4)
    assert evaluate(loud, resamples=10).ece > 0.1


def test_wilson_against_scipy():
    for right, n in [(0, 5), (3, 7), (50, 100), (9, 9)]:
        expected = stats.binomtest(right, n).proportion_ci(method="wilson")
        low, high = wilson(np.array([right / n]), np.array([n]))
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))


def test_bootstrap_of_singletons_against_scipy():
    values = (np.random.default_rng(0).random(400) < 0.65).astype(float)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    low, high = prompt_bootstrap(values, np.arange(400), resamples=20_000)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.003)


def test_bootstrap_of_groups_against_a_loop():
    rng = np.random.default_rng(2)
    groups = np.sort(rng.integers(0, 60, size=300))
    values = rng.choice([0.0, 0.5, 1.0], size=300)
    by_group = [values[groups == g] for g in np.unique(groups)]
    means = [
        np.concatenate([by_group[i] for i in rng.integers(0, len(by_group), len(by_group))]).mean() for _ in range(4000)
    ]
    expected = np.quantile(means, [0.025, 0.975])
    assert prompt_bootstrap(values, groups, resamples=20_000) == pytest.approx(tuple(expected), abs=0.006)


def test_pairs_of_one_prompt_are_not_independent():
    """Ten copies of each pair under its own prompt say no more than one copy; taken as independent they would."""
    table = random_table(100, prompts=100)
    one = evaluate(table)
    ten = make_table(
        [row for row in table.score.reshape(-1, 2) for _ in range(10)],
        [row for row in table.rank.reshape(-1, 2) for _ in range(10)],
        [name for name in table.prompt[::2] for _ in range(10)],
    )
    many = evaluate(ten)
    assert many.accuracy == pytest.approx(one.accuracy)
    assert many.accuracy_high - many.accuracy_low == pytest.approx(one.accuracy_high - one.accuracy_low, rel=0.05)
    apart = evaluate(change(ten, prompt=ten.comparison))
    assert apart.accuracy_high - apart.accuracy_low < 0.5 * (one.accuracy_high - one.accuracy_low)


def test_the_interval_covers_the_truth():
    """95 % of intervals should hold the true accuracy; 400 sets of 200 clustered pairs leave 3 standard errors."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        rate = rng.beta(6, 4, size=80)  # each prompt has its own difficulty; the mean is 0.6
        groups = np.repeat(np.arange(80), rng.integers(1, 5, size=80))
        low, high = prompt_bootstrap((rng.random(len(groups)) < rate[groups]).astype(float), groups, resamples=400)
        covered += low <= 0.6 <= high
    assert 0.90 <= covered / 400 <= 0.98


def test_a_constant_per_prompt_changes_nothing():
    table = random_table()
    offset = {name: 2.0 ** (i % 5) for i, name in enumerate(np.unique(table.prompt))}
    moved = evaluate(change(table, score=table.score + np.array([offset[name] for name in table.prompt])))
    one, two = evaluate(table).to_dict(), moved.to_dict()
    for name in ("accuracy", "accuracy_low", "accuracy_high", "nll", "brier", "ece", "margin_quantiles", "score_ties"):
        assert two[name] == pytest.approx(one[name], abs=1e-9), name


def test_swapped_labels_give_the_complement():
    table = random_table()
    one, two = evaluate(table), evaluate(change(table, rank=3 - table.rank))
    assert two.accuracy == pytest.approx(1 - one.accuracy)
    assert two.longer_wins == pytest.approx(1 - one.longer_wins)
    assert two.score_ties == one.score_ties > 0


def test_constant_scores_are_a_coin_and_said_to_be():
    e = evaluate(change(random_table(), score=np.full(600, 1.25)))
    assert (e.accuracy, e.accuracy_low, e.accuracy_high) == (0.5, 0.5, 0.5)
    assert e.score_ties == e.n == 300
    assert e.nll == pytest.approx(math.log(2))
    assert e.collapsed
    assert any("collapsed" in line for line in e.warnings)


def test_collapse_is_seen_behind_a_good_accuracy():
    """The documented case: loss 0.6931, accuracy .99, margins of a thousandth."""
    scores = [[0.0005, 0.0]] * 99 + [[0.0, 0.0005]]
    e = evaluate(make_table(scores, [[1, 2]] * 100))
    assert e.accuracy == 0.99
    assert e.collapsed
    wide = evaluate(make_table([[2.0, 0.0]] * 60 + [[0.0, 2.0]] * 40, [[1, 2]] * 100))
    assert not wide.collapsed


def test_sources_and_strengths():
    scores = [[1, 0], [0, 1], [1, 0], [1, 0], [1, 0], [1, 0]]
    e = evaluate(
        make_table(
            scores,
            [[1, 2]] * 6,
            source=["a", "a", "", "", "", ""],
            strength=[1, 1, 2, 2, 3, math.nan],
            chars=[[2, 1], [2, 1], [1, 2], [1, 2], [1, 1], [1, 1]],
        )
    )
    assert {name: (part.accuracy, part.n) for name, part in e.by_source.items()} == {"a": (0.5, 2), "unnamed": (1.0, 4)}
    assert e.by_source["a"].longer_wins == 1.0
    assert e.by_source["unnamed"].longer_wins == 0.25
    strengths = {name: (part.accuracy, part.n, part.strength_min) for name, part in e.by_strength.items()}
    assert strengths == {"weak": (0.5, 2, 1.0), "middle": (1.0, 2, 2.0), "strong": (1.0, 1, 3.0)}


def test_rankings_count_every_pair_once():
    e = evaluate(make_table([[3, 2, 1], [1, 3, 2], [1, 0]], [[1, 2, 3], [1, 2, 3], [1, 2]]))
    assert e.n == 7
    assert e.accuracy == pytest.approx((3 + 1 + 1) / 7)
    assert e.kendall_tau == pytest.approx((1 - 1 / 3) / 2)


def test_kendall_tau_against_scipy():
    rng = np.random.default_rng(4)
    ranks = [rng.integers(0, 4, size=k).tolist() for k in rng.integers(3, 7, size=50)]
    scores = [rng.integers(0, 4, size=len(row)).astype(float).tolist() for row in ranks]
    taus = [stats.kendalltau(-np.array(r), s).statistic for r, s in zip(ranks, scores, strict=True)]
    assert evaluate(make_table(scores, ranks), resamples=10).kendall_tau == pytest.approx(np.nanmean(taus))


def test_gold():
    """Raters are wrong about the second pair and tie the others; the model follows gold on three of the four."""
    e = evaluate(
        make_table(
            [[2, 1], [1, 2], [1, 2], [2, 1]],
            [[1, 2], [1, 2], [1, 1], [1, 1]],
            gold=[[1, 0], [0, 1], [0, 1], [0, 1]],
        ),
    )
    assert e.accuracy == 0.5
    assert e.gold_accuracy == 0.75
    assert e.gold_n == 4
    assert e.gold_agreement == 0.5
    assert 0 <= e.gold_accuracy_low <= e.gold_accuracy <= e.gold_accuracy_high <= 1
    assert "gold_accuracy" not in evaluate(random_table(20)).to_dict()


def test_ceiling_published_values():
    """HH-RLHF .63 -> 63 to 75.5 %, InstructGPT .726 -> 83.6 % and .773 -> 86.9 %."""
    assert ceiling(0.63) == pytest.approx((0.63, 0.755), abs=5e-4)
    assert ceiling(0.726)[1] == pytest.approx(0.836, abs=5e-4)
    assert ceiling(0.773)[1] == pytest.approx(0.869, abs=5e-4)
    assert ceiling(1.0) == (1.0, 1.0)
    with pytest.raises(ConfigError, match="63"):
        ceiling(63)


def test_nothing_to_measure_is_null_not_zero():
    e = evaluate(make_table([[math.nan, 1.0], [1.0, 1.0]], [[1, 2], [1, 1]]))
    record = json.loads(json.dumps(e.to_dict(), allow_nan=False))
    assert record["n"] == 0
    for name in ("accuracy", "accuracy_low", "nll", "brier", "ece", "longer_wins"):
        assert record[name] is None
    assert "No pair could be measured" in record["warnings"][0]


def test_the_record_is_plain_json_with_the_promised_keys():
    record = json.loads(json.dumps(evaluate(random_table()).to_dict(), allow_nan=False))
    promised = (
        "accuracy accuracy_low accuracy_high n ties score_ties unscored nll brier ece margin_quantiles longer_wins"
    )
    promised += (
        " longer_wins_low longer_wins_high shorter_wins by_source by_strength collapsed prompts reward_mean reward_std"
    )
    assert set(promised.split()) <= set(record)
    assert set(record["by_source"]["s"]) == {"accuracy", "low", "high", "n", "longer_wins"}


def test_the_seed_decides():
    table = random_table()
    assert evaluate(table, seed=1) == evaluate(table, seed=1)
    assert evaluate(table, seed=1).accuracy_low != evaluate(table, seed=2, resamples=500).accuracy_low
