"""Best of K by enumeration, ROC-AUC by its definition, and the readers."""

import json
from itertools import combinations

import numpy as np
import pytest

from guerdon.evaluate.benchmarks.item import Item
from guerdon.evaluate.benchmarks.ppe import load, measure, read_scores
from guerdon.types import DataError


def random_items(n, k, seed):
    rng = np.random.default_rng(seed)
    right = rng.random((n, k)) < 0.4
    right[:, 0], right[:, 1] = True, False
    scores = rng.integers(0, 5, (n, k)).astype(float) + right
    return [Item(str(i), "math", tuple(row.tolist()), str(i)) for i, row in enumerate(right)], scores, right


def enumerated(scores, right, k):
    """Mean over all subsets of k: the share right among the best-scored, ties shared."""
    total = []
    for row, marks in zip(scores, right, strict=True):
        for chosen in combinations(range(len(row)), k):
            best = max(row[list(chosen)])
            total.append(np.mean([marks[c] for c in chosen if row[c] == best]))
    return np.mean(total)


def test_the_curve_is_the_mean_over_all_subsets():
    items, scores, right = random_items(12, 7, 1)
    result = measure(items, scores, resamples=50)
    achieved, ideal = result.curves["best of K"], result.curves["ideal"]
    for k in range(1, 8):
        assert achieved[k - 1] == pytest.approx(enumerated(scores, right, k), abs=1e-12)
        assert ideal[k - 1] == pytest.approx(enumerated(right.astype(float), right, k), abs=1e-12)
    details = {name: estimate.value for name, estimate in result.details.items()}
    assert details["end score"] == pytest.approx(achieved[-1])
    assert details["max score"] == pytest.approx(max(achieved))
    assert details["loss"] == pytest.approx(np.mean(ideal) - np.mean(achieved))
    assert details["ideal end score"] == 1


def test_the_curve_of_pools_of_different_size_ends_at_the_smallest():
    small, scores, right = random_items(4, 5, 6)
    large, more, marks = random_items(3, 7, 7)
    wide = np.full((7, 7), np.nan)
    wide[:4, :5], wide[4:] = scores, more
    achieved = measure([*small, *large], wide, resamples=0).curves["best of K"]
    expected = [(4 * enumerated(scores, right, k) + 3 * enumerated(more, marks, k)) / 7 for k in range(1, 6)]
    assert achieved == pytest.approx(expected)


def test_pairs_and_area_by_definition():
    items, scores, right = random_items(15, 6, 2)
    items.append(Item("all wrong", "math", (False,) * 6, "all wrong"))
    scores = np.vstack([scores, np.arange(6.0)])
    right = np.vstack([right, np.zeros(6, dtype=bool)])
    result = measure(items, scores)
    wins = [
        np.mean([a > b for a in row[marks] for b in row[~marks]])
        for row, marks in zip(scores[:-1], right[:-1], strict=True)
    ]
    assert result.overall.value == pytest.approx(np.mean(wins))
    pooled = np.mean([(a > b) + (a == b) / 2 for a in scores[right] for b in scores[~right]])
    area = result.details["ROC-AUC"]
    assert area.value == pytest.approx(pooled)
    assert area.low < area.value < area.high
    assert result.notes == ("1 prompts whose candidates are all right or all wrong have no pairs.",)
    shifted = scores + 100 * np.arange(16)[:, None]  # another offset per prompt moves the area only
    moved = measure(items, shifted, resamples=0)
    assert moved.overall.value == pytest.approx(result.overall.value)
    assert moved.details["ROC-AUC"].value != pytest.approx(area.value, abs=0.01)


def test_the_interval_of_the_area_is_that_of_a_bootstrap_over_prompts():
    rng = np.random.default_rng(3)
    right = rng.random((120, 8)) < 0.5
    scores = rng.normal(size=(120, 8)) + 0.8 * right + rng.normal(size=(120, 1))
    items = [Item(str(i), "", tuple(row.tolist()), str(i)) for i, row in enumerate(right)]
    area = measure(items, scores).details["ROC-AUC"]
    draws = []
    for _ in range(400):
        rows = rng.integers(0, 120, 120)
        up, down = scores[rows][right[rows]], np.sort(scores[rows][~right[rows]])
        draws.append(np.searchsorted(down, up).mean() / len(down))
    assert (area.high - area.low) == pytest.approx(np.subtract(*np.quantile(draws, [0.975, 0.025])), rel=0.15)


def test_sets_weigh_the_same():
    items = [
        Item("1", "math", (True, False), "1"),
        Item("2", "math", (True, False), "2"),
        Item("3", "code", (True, False), "3"),
    ]
    result = measure(items, np.array([[1.0, 0], [1, 0], [0, 1]]), resamples=0)
    assert result.overall.value == 0.5
    assert {name: estimate.value for name, estimate in result.categories.items()} == {"math": 1, "code": 0}


def test_readers(tmp_path):
    row = {"question_id": 7, "prompt": "p", "response_1": "a", "response_2": "bb", "scores": [False, True]}
    (tmp_path / "math.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = load(tmp_path / "math.jsonl")
    assert (item.id, item.category, item.correct, item.chars) == ("7", "math", (False, True), (1, 2))
    (tmp_path / "math.jsonl").write_text(json.dumps(row | {"scores": [True]}) + "\n")
    with pytest.raises(DataError, match="2 responses"):
        load(tmp_path / "math.jsonl")
    table = tmp_path / "pool.jsonl"
    rows = [{"prompt_id": p, "completion_id": c, "score": s, "gold": g} for p, c, s, g in (("x", 0, 1.0, 1), ("x", 1, 0.0, 0))]  # fmt: skip
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items, found = read_scores(table)
    assert measure(items, found["pool.jsonl"], resamples=0).overall.value == 1
    table.write_text(json.dumps(rows[0] | {"gold": 0.3}) + "\n")
    with pytest.raises(DataError, match=r"gold is 0\.3"):
        read_scores(table)
