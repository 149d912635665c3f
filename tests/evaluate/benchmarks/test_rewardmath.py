"""RewardMATH from the published scores of every model at hand."""

import gzip
import json
import math
from itertools import combinations

import numpy as np
import pytest

from guerdon.evaluate.benchmarks.item import Item, matrix
from guerdon.evaluate.benchmarks.rewardmath import aggregate, load, measure, read_scores
from guerdon.types import DataError

# Accuracy, MRR and mean pairwise accuracy of scalar reward models, in percent.
PUBLISHED = {
    "internlm2": (37.27, 55.17, 75.98),
    "internlm2_20b": (33.95, 51.95, 73.08),
    "ArmoRM": (20.50, 42.18, 67.31),
    "Eurus-RM": (16.98, 38.30, 63.19),
    "beaver": (7.25, 26.59, 48.59),
    "grm_gemma": (4.97, 24.10, 45.69),
}
MATH_PRM = {"internlm2": 92.84, "internlm2-20b": 95.08, "ArmoRM": 92.84, "Eurus-RM": 60.85, "beaver": 51.45, "GRM_Gemma_2B": 93.06}  # fmt: skip
AT_K = (76.0, 63.4, 55.6, 50.2, 46.3, 43.3, 40.9, 38.9, 37.3)


def results(path):
    items, found = read_scores(path)
    return {name: measure(items, scores, resamples=0) for name, scores in found.items()}


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_reward_models(real_data, model):
    result = results(real_data / "rewardmath" / f"{model}.jsonl.gz")[model]
    accuracy, mrr, pairwise = PUBLISHED[model]
    assert result.items == 483
    assert 100 * result.overall.value == pytest.approx(accuracy, abs=0.005)
    assert 100 * result.details["MRR"].value == pytest.approx(mrr, abs=0.005)
    assert 100 * result.details["pairwise accuracy"].value == pytest.approx(pairwise, abs=0.005)
    if model == "ArmoRM":
        assert 100 * result.details["accuracy with ties right"].value == pytest.approx(21.53, abs=0.005)
    if model == "internlm2":
        assert [round(100 * value, 1) for value in result.curves["accuracy at k"]] == list(AT_K)
    assert result.curves["accuracy at k"][-1] == pytest.approx(result.overall.value)


@pytest.mark.parametrize(
    ("model", "best", "accuracy"), [("ReasonEval_7B", "geometric_mean", 20.29), ("Math_Shepherd", "last", 18.22)]
)
def test_best_step_aggregation_of_process_reward_models(real_data, model, best, accuracy):
    found = results(real_data / "rewardmath" / f"{model}.jsonl.gz")
    values = {name: result.overall.value for name, result in found.items()}
    assert len(values) == 6
    assert max(values, key=values.__getitem__) == f"{model} {best}"
    assert 100 * values[f"{model} {best}"] == pytest.approx(accuracy, abs=0.005)


@pytest.mark.parametrize(("model", "strict", "loose"), [("gpt4o", 25.98, 51.75), ("sonnet-3-5", 2.07, 73.50)])
def test_judges_collapse_on_ties(real_data, model, strict, loose):
    result = results(real_data / "rewardmath" / f"{model}.jsonl.gz")[model]
    assert 100 * result.overall.value == pytest.approx(strict, abs=0.005)
    assert 100 * result.details["accuracy with ties right"].value == pytest.approx(loose, abs=0.005)
    assert bool(result.notes) == (result.items == 485)


@pytest.mark.parametrize("model", MATH_PRM)
def test_the_same_models_on_pairs(real_data, model):
    name = f"rewardbench-math-prm.{model}"
    result = results(real_data / "rewardmath" / f"{name}.jsonl.gz")[name]
    assert result.items == 447
    assert 100 * result.overall.value == pytest.approx(MATH_PRM[model], abs=0.005)


@pytest.mark.parametrize("model", ["ReasonEval_7B", "Math_Shepherd"])
def test_step_scores_one_solution_a_row(real_data, model):
    """As `RewardBenchEvaluation` of the official code: the chosen solution's aggregate is strictly the higher one."""
    name = f"rewardbench-math-prm.{model}"
    pairs: dict[int, dict[str, list[float]]] = {}
    with gzip.open(real_data / "rewardmath" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            pairs.setdefault(row["problem_id"], {})[row["solution_type"]] = row["output"]["step_scores"]
    found = results(real_data / "rewardmath" / f"{name}.jsonl.gz")
    for how, rule in (("min", min), ("max", max), ("mean", lambda steps: sum(steps) / len(steps)), ("last", lambda steps: steps[-1])):  # fmt: skip
        right = [rule(pair["chosen"]) > rule(pair["rejected"]) for pair in pairs.values()]
        assert len(right) == found[f"{name} {how}"].items == 447
        assert found[f"{name} {how}"].overall.value == pytest.approx(np.mean(right))


def test_accuracy_at_k_is_the_mean_over_all_subsets():
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 6, (20, 5)).astype(float)
    items = [Item(str(i), "", (True, *[False] * 4), str(i)) for i in range(20)]
    found = measure(items, scores, resamples=0).curves["accuracy at k"]
    for k in range(1, 5):
        wins = [min(row[0] > row[list(chosen)]) for row in scores for chosen in combinations(range(1, 5), k)]
        assert found[k - 1] == pytest.approx(np.mean(wins))


def test_rank_stands_behind_ties():
    items = [Item(str(i), "", (True, False, False), str(i)) for i in range(3)]
    result = measure(items, matrix(items, [[1, 1, 1], [2, 1, 2], [3, 1, 2]]), resamples=0)
    assert result.details["MRR"].value == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert (result.overall.value, result.ties) == (pytest.approx(1 / 3), 2)


def test_aggregations():
    steps = [0.5, 0.8, 0.1]
    assert {how: aggregate(steps, how) for how in ("min", "max", "last")} == {"min": 0.1, "max": 0.8, "last": 0.1}
    assert aggregate(steps, "prod") == pytest.approx(0.04)
    assert aggregate(steps, "geometric_mean") == pytest.approx(0.04 ** (1 / 3))
    assert aggregate(steps, "mean") == pytest.approx(1.4 / 3)
    with pytest.raises(DataError, match="no step scores"):
        aggregate([], "min")
    with pytest.raises(ValueError, match="'median' is none of"):
        aggregate(steps, "median")


def test_texts_of_the_benchmark(tmp_path):
    rows = [
        {"problem": "p", "problem_id": 0, "eval_solution": ["a", "b"], "solution_type": "chosen", "subject": "Algebra"},
        {"problem": "p", "problem_id": 0, "eval_solution": ["c"], "solution_type": "rejected", "subject": "Algebra"},
    ]
    (tmp_path / "direct.json").write_text(json.dumps(rows))
    (item,) = load(tmp_path / "direct.json")
    assert item.correct == (True, False)
    assert item.conversations()[0][1]["content"] == "a\nb"
    assert math.isclose(item.chars[0], 3)


def test_rows_without_a_right_solution_are_refused(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps([{"problem": "p", "solution_reference": ["x", "y"], "score": [1, 2]}]))
    with pytest.raises(DataError, match="no right solution"):
        read_scores(path)
