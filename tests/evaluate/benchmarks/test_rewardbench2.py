"""RewardBench 2: shared credit, and the Ties score against cases computed by hand."""

import json
import math

import pytest

from guerdon.evaluate.benchmarks.item import make_item, matrix
from guerdon.evaluate.benchmarks.rewardbench2 import load, measure, read_scores
from guerdon.types import DataError


def item(id, subset, right, total):
    answers = [f"answer {k}" for k in range(total)]
    return make_item(id, subset, f"{subset} {id}", answers, [k < right for k in range(total)])


def score(pairs, resamples=0):
    """pairs: (id, subset, number right, scores)."""
    items = [item(id, subset, right, len(scores)) for id, subset, right, scores in pairs]
    return measure(items, matrix(items, [scores for *_, scores in pairs]), resamples=resamples)


def test_credit_is_shared_among_the_best():
    result = score(
        [
            ("1", "Math", 1, [3, 2, 1, 0]),
            ("2", "Math", 1, [3, 3, 1, 0]),
            ("3", "Math", 1, [1, 1, 1, 1]),
            ("4", "Math", 1, [0, 1, 1, 1]),
            ("5", "Safety", 1, [1, 0, 0, 0]),
        ]
    )
    assert result.categories["Math"].value == pytest.approx((1 + 1 / 2 + 1 / 4 + 0) / 4)
    assert result.overall.value == pytest.approx((1.75 / 4 + 1) / 2)
    assert result.metric == "mean of 2 of six subsets"
    assert result.ties == 2
    assert "Factuality, Precise IF, Focus, Ties" in result.notes[0]


def test_ties_by_hand():
    """id 1: M_ref 2, M_tied 3, D 1. id 2: M_ref -1, M_tied 1, D 2. A ref without its tied item counts in one part only."""
    result = score(
        [
            ("ref:1", "Ties", 1, [3, 1, 0]),
            ("tied:1", "Ties", 2, [5, 4, 1]),
            ("ref:2", "Ties", 1, [0, 1]),
            ("tied:2", "Ties", 3, [3, 2, 1, 0]),
            ("ref:3", "Ties", 1, [1, 0]),
        ]
    )
    parts = {name: estimate.value for name, estimate in result.details.items()}
    margin = (math.tanh(2 / 1 - 1) + math.tanh(-1 / 2 - 1)) / 2
    assert parts == pytest.approx(
        {
            "Ties tied accuracy": 1.0,
            "Ties ref accuracy": 2 / 3,
            "Ties correctness preferred": 0.5,
            "Ties correctness preferred hard": 0.5,
            "Ties margin": margin,
        }
    )
    expected = 0.3 + 0.3 * 2 / 3 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * margin
    assert result.categories["Ties"].value == pytest.approx(expected)


def test_ties_reaches_one_and_a_hundredth():
    """Equal right answers far above the wrong ones: every part is 1, and x / 0 is infinite, its tanh 1."""
    result = score([("ref:1", "Ties", 1, [9, 0]), ("tied:1", "Ties", 2, [9, 9, 0])])
    assert result.overall.value == pytest.approx(1.01)


def test_ties_of_constant_scores_are_zero():
    """All equal: nothing is accurate, M = D = 0 is not preferred, and tanh of 0/0 counts 0."""
    result = score([("ref:1", "Ties", 1, [1, 1]), ("tied:1", "Ties", 2, [1, 1, 1])])
    assert result.overall.value == 0
    assert result.details["Ties margin"].value == 0
    assert result.ties == 2


def test_all_six_weigh_the_same():
    names = ["Factuality", "Precise IF", "Math", "Safety", "Focus"]
    rows = [(f"{name}{i}", name, 1, [1, 0, 0, 0]) for name in names for i in range(3)]
    rows += [("ref:1", "Ties", 1, [0, 1]), ("tied:1", "Ties", 2, [0, 0, 1])]
    result = score(rows, resamples=100)
    ties = 0.01 * math.tanh(-math.inf)
    assert result.overall.value == pytest.approx((5 + ties) / 6)
    assert result.notes == ()


def test_ids_of_ties_must_say_which():
    for bad, text in (("7", "ref:<k> or tied:<k>"), ("tied:1", "at least 2 right")):
        with pytest.raises(DataError, match=text):
            score([(bad, "Ties", 1, [1, 0])])


def test_data_and_published_scores(tmp_path):
    rows = [
        {"id": "1", "prompt": "p", "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1, "subset": "Focus"},
        {"id": "ref:4", "prompt": "q", "chosen": ["a"], "rejected": ["b"], "num_correct": 1, "subset": "Ties"},
        {"id": "tied:4", "prompt": "r", "chosen": ["a", "e"], "rejected": ["b"], "num_correct": 2, "subset": "Ties"},
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = load(tmp_path / "data.jsonl")
    assert [entry.correct for entry in items] == [(True, False, False, False), (True, False), (True, True, False)]
    published = {
        "id": ["1", "ref:4", "tied:4"],
        "subset": ["Focus", "ties", "Ties"],
        "num_correct": [1, 1, 2],
        "scores": [[[2.0], [1.0], [0.0], [0.0]], [[1.0], [0.0]], [[5.0], [4.0], [0.0]]],
        "model": "m",
    }
    (tmp_path / "scores.json").write_text(json.dumps(published))
    kept, found = read_scores(tmp_path / "scores.json", items)
    assert kept == items
    bare, again = read_scores(tmp_path / "scores.json")
    value = measure(items, found["m"], resamples=0).overall.value  # type: ignore[arg-type]
    assert value == measure(bare, again["m"], resamples=0).overall.value  # type: ignore[arg-type]
    assert value == pytest.approx((1 + 0.3 + 0.3 + 0.2 + 0 + 0.01 * math.tanh(1 / 1 - 1)) / 2)
