"""Five reward models on the 350 pairs of JudgeBench: comparisons, ensemble, abstention and temperatures as published."""

import gzip
import itertools
import json
import math

import numpy as np
import pytest
from scipy.special import expit
from test_metrics import make_table

from guerdon.evaluate.abstain import selective_accuracy
from guerdon.evaluate.calibration import fit_temperature, nll
from guerdon.evaluate.compare import compare
from guerdon.evaluate.metrics import evaluate

SHORT = {"2B": "GRM-Gemma-2B", "27B": "Gemma-2-27B", "8B": "Llama-3.1-8B", "20b": "internlm2-20b", "7b": "internlm2-7b"}


@pytest.fixture(scope="module")
def tables(real_data):
    def rows(name):
        with gzip.open(real_data / "judgebench" / name, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    pairs = rows("gpt-4o-pairs.jsonl.gz")
    place = {row["pair_id"]: i for i, row in enumerate(pairs)}
    ranks = [[1, 2] if row["label"] == "A>B" else [2, 1] for row in pairs]
    chars = [[len(row["response_A"]), len(row["response_B"])] for row in pairs]
    scores = {name: np.full((350, 2), math.nan) for name in SHORT}
    for row in rows("reward_model_scores.jsonl.gz"):
        name = next(short for short, part in SHORT.items() if part in row["judge_model"])
        scores[name][place[row["pair_id"]]] = row["scores"]
    return {name: make_table(one, ranks, [row["question"] for row in pairs], chars) for name, one in scores.items()}


def margins(tables):
    return {name: table.pairs().margin for name, table in tables.items()}


def equal_width_ece(margin, bins=10):
    """The published setting: bins of equal width on [.5, 1], an exact tie is wrong."""
    confidence, right = expit(np.abs(margin)), margin > 0
    index = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    return sum(abs(np.sum(right[index == b] - confidence[index == b])) for b in range(bins)) / len(margin)


def test_no_two_models_are_told_apart(tables):
    found = compare(tables)
    p = {frozenset((one.first, one.second)): one.mcnemar for one in found.differences}
    assert min(p.values()) == p[frozenset(("27B", "7b"))] == pytest.approx(0.086, abs=5e-4)
    assert p[frozenset(("27B", "2B"))] == pytest.approx(0.111, abs=1e-3)
    assert [one.groups for one in found.models] == ["a"] * 5
    assert {(one.best_rank, one.worst_rank) for one in found.models} == {(1, 5)}
    assert found.baselines["longer"].accuracy == pytest.approx(0.46, abs=0.005)


def test_all_five_are_better_where_the_right_answer_is_shorter(tables):
    gaps = [e.length.when_shorter - e.length.when_longer for e in map(evaluate, tables.values())]
    assert min(gaps) == pytest.approx(0.05, abs=0.005)
    assert max(gaps) == pytest.approx(0.13, abs=0.01)


def test_the_mean_of_standard_scores(tables):
    """Each margin over its standard deviation, then the mean of five: no better than the best member."""
    found = np.mean([m / m.std() for m in margins(tables).values()], axis=0)
    assert 100 * np.mean(found > 0) == pytest.approx(62.86, abs=0.005)
    published = {"100": 62.9, "75": 70.2, "50": 77.1, "25": 85.1}
    assert {name: 100 * value for name, value in selective_accuracy(found).items()} == pytest.approx(
        published, abs=0.06
    )


def test_where_all_agree(tables):
    signs = np.stack(list(margins(tables).values())) > 0
    unanimous = (signs.all(axis=0)) | (~signs).all(axis=0)
    assert 100 * unanimous.mean() == pytest.approx(46.6, abs=0.05)
    assert 100 * signs[0][unanimous].mean() == pytest.approx(74.9, abs=0.06)


@pytest.mark.parametrize(
    ("name", "before", "after", "temperature", "ece_before", "ece_after"),
    [
        ("2B", 0.901, 0.653, 4.5, 0.215, 0.050),
        ("27B", 2.167, 0.613, 11.7, 0.300, 0.049),
        ("8B", 2.408, 0.630, 14.2, 0.324, 0.058),
        ("20b", 0.614, 0.614, 0.98, 0.053, 0.047),
        ("7b", 0.646, 0.636, 1.4, 0.106, 0.070),
    ],
)
def test_temperatures(tables, name, before, after, temperature, ece_before, ece_after):
    """Published temperatures are points of a grid, so ours is near them and its likelihood at least as good."""
    margin = margins(tables)[name]
    found = fit_temperature(margin)
    assert nll(margin).mean() == pytest.approx(before, abs=6e-4)
    assert nll(margin / found).mean() == pytest.approx(after, abs=6e-4)
    assert nll(margin / found).mean() <= nll(margin / temperature).mean()
    assert found == pytest.approx(temperature, rel=0.06)
    assert equal_width_ece(margin) == pytest.approx(ece_before, abs=6e-4)
    rounding = 0.005 if temperature < 1 else 0.05
    errors = [equal_width_ece(margin / t) for t in np.linspace(temperature - rounding, temperature + rounding, 101)]
    assert min(abs(error - ece_after) for error in errors) < 6e-4


def test_errors_go_together(tables):
    wrong = np.stack(list(margins(tables).values())) <= 0
    found = [np.corrcoef(wrong[i], wrong[j])[0, 1] for i, j in itertools.combinations(range(5), 2)]
    assert (min(found), max(found)) == pytest.approx((0.29, 0.65), abs=0.006)
