"""RewardBench section scores from values that others printed, and from items."""

import json

import numpy as np
import pytest

from guerdon.evaluate.benchmarks.item import matrix
from guerdon.evaluate.benchmarks.rewardbench import (
    COUNTS,
    SECTIONS,
    from_subsets,
    load,
    measure,
    read_scores,
    section_scores,
)
from guerdon.types import DataError

# README of allenai/reward-bench, section "Getting Leaderboard Section Scores": PKU-Alignment/beaver-7b-v1.0-cost.
BEAVER = {
    "alpacaeval-easy": 0.5,
    "alpacaeval-hard": 0.7052631578947368,
    "alpacaeval-length": 0.5894736842105263,
    "chat_template": "tokenizer",
    "donotanswer": 0.8235294117647058,
    "hep-cpp": 0.6280487804878049,
    "hep-go": 0.6341463414634146,
    "hep-java": 0.7073170731707317,
    "hep-js": 0.6646341463414634,
    "hep-python": 0.5487804878048781,
    "hep-rust": 0.6463414634146342,
    "llmbar-adver-GPTInst": 0.391304347826087,
    "llmbar-adver-GPTOut": 0.46808510638297873,
    "llmbar-adver-manual": 0.3695652173913043,
    "llmbar-adver-neighbor": 0.43283582089552236,
    "llmbar-natural": 0.52,
    "math-prm": 0.2953020134228188,
    "model": "PKU-Alignment/beaver-7b-v1.0-cost",
    "model_type": "Seq. Classifier",
    "mt-bench-easy": 0.5714285714285714,
    "mt-bench-hard": 0.5405405405405406,
    "mt-bench-med": 0.725,
    "refusals-dangerous": 0.97,
    "refusals-offensive": 1,
    "xstest-should-refuse": 1,
    "xstest-should-respond": 0.284,
}
# Right answers and items per subset, allenai/reward-bench pull request 206 (Lenovo-Reward-Gemma-2-27B).
LENOVO = {
    "alpacaeval-easy": (99, 100),
    "alpacaeval-hard": (90, 95),
    "alpacaeval-length": (90, 95),
    "donotanswer": (105, 136),
    "hep-cpp": (161, 164),
    "hep-go": (160, 164),
    "hep-java": (163, 164),
    "hep-js": (163, 164),
    "hep-python": (160, 164),
    "hep-rust": (156, 164),
    "llmbar-adver-GPTInst": (89, 92),
    "llmbar-adver-GPTOut": (41, 47),
    "llmbar-adver-manual": (39, 46),
    "llmbar-adver-neighbor": (121, 134),
    "llmbar-natural": (95, 100),
    "math-prm": (446, 447),
    "mt-bench-easy": (28, 28),
    "mt-bench-hard": (33, 37),
    "mt-bench-med": (39, 40),
    "refusals-dangerous": (96, 100),
    "refusals-offensive": (99, 100),
    "xstest-should-refuse": (147, 154),
    "xstest-should-respond": (239, 250),
}
# Subset values of pull request 215 (LDL-Reward-Gemma-2-27B) and the sections that the official code printed for them.
LDL = {
    "alpacaeval-easy": 0.99,
    "alpacaeval-hard": 0.9473684210526315,
    "alpacaeval-length": 0.9368421052631579,
    "donotanswer": 0.8161764705882353,
    "hep-cpp": 0.9817073170731707,
    "hep-go": 0.9817073170731707,
    "hep-java": 0.9939024390243902,
    "hep-js": 0.9939024390243902,
    "hep-python": 0.975609756097561,
    "hep-rust": 0.9573170731707317,
    "llmbar-adver-GPTInst": 0.9565217391304348,
    "llmbar-adver-GPTOut": 0.8297872340425532,
    "llmbar-adver-manual": 0.8478260869565217,
    "llmbar-adver-neighbor": 0.9104477611940298,
    "llmbar-natural": 0.94,
    "math-prm": 1.0,
    "mt-bench-easy": 1.0,
    "mt-bench-hard": 0.8648648648648649,
    "mt-bench-med": 0.975,
    "refusals-dangerous": 0.97,
    "refusals-offensive": 0.99,
    "xstest-should-refuse": 0.948051948051948,
    "xstest-should-respond": 0.964,
}
LDL_PRINTED = {
    "Chat": 0.9636871508379888,
    "Chat Hard": 0.9078947368421053,
    "Safety": 0.9378378378378378,
    "Reasoning": 0.9903455284552846,
}


def rows_of(right_of_total):
    """A data row and scores per item, so many of them right."""
    rows, scores = [], []
    for subset, (right, total) in right_of_total.items():
        for i in range(total):
            rows.append({"id": len(rows), "subset": subset, "prompt": f"{subset} {i}", "chosen": "ab", "rejected": "c"})
            scores.append((1.0, 0.0) if i < right else (0.0, 1.0))
    return rows, scores


def test_the_official_counts():
    assert {name for names in SECTIONS.values() for name in names} == COUNTS.keys()
    assert {section: sum(COUNTS[name] for name in names) for section, names in SECTIONS.items()} == {
        "Chat": 358,
        "Chat Hard": 456,
        "Safety": 740,
        "Reasoning": 1968,
    }
    assert sum(COUNTS.values()) - 984 + 447 == 2985


def test_sections_of_the_readme():
    sections = {name: round(100 * value, 2) for name, value in section_scores(BEAVER).items()}  # type: ignore[arg-type]
    assert sections == {"Chat": 60.89, "Chat Hard": 44.96, "Safety": 72.16, "Reasoning": 46.68}
    assert round(100 * from_subsets(BEAVER).overall.value, 2) == 56.17  # type: ignore[arg-type]


def test_sections_that_the_official_code_printed():
    assert section_scores(LDL) == pytest.approx(LDL_PRINTED, abs=1e-12)


def test_sections_from_items(tmp_path):
    """All 2,985 items of a published run: from data, from a published score file, and from subset scores."""
    rows, pairs = rows_of(LENOVO)
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = load(tmp_path / "data.jsonl")
    result = measure(items, matrix(items, pairs), resamples=200)
    assert {name: round(100 * e.value, 2) for name, e in result.categories.items()} == {
        "Chat": 96.65,
        "Chat Hard": 91.67,
        "Safety": 92.70,
        "Reasoning": 98.82,
    }
    assert round(100 * result.overall.value, 2) == 94.96
    assert result.overall.low < result.overall.value < result.overall.high
    assert (result.items, result.ties, result.unscored, result.notes) == (2985, 0, 0, ())
    assert from_subsets({name: a / b for name, (a, b) in LENOVO.items()}).overall.value == pytest.approx(
        result.overall.value
    )
    columns = {name: [row[name] for row in rows] for name in ("id", "subset")}
    columns |= {"scores_chosen": [a for a, _ in pairs], "scores_rejected": [b for _, b in pairs]}
    (tmp_path / "scores.json").write_text(json.dumps(columns | {"model": "lenovo"}))
    kept, found = read_scores(tmp_path / "scores.json", items)
    assert kept == items
    assert np.array_equal(found["lenovo"], matrix(items, pairs))  # type: ignore[arg-type]
    bare, found = read_scores(tmp_path / "scores.json")
    assert measure(bare, found["lenovo"], resamples=0).overall.value == pytest.approx(result.overall.value)  # type: ignore[arg-type]


def test_a_file_of_subset_scores(tmp_path):
    (tmp_path / "beaver.json").write_text(json.dumps(BEAVER))
    _, found = read_scores(tmp_path / "beaver.json")
    result = found["PKU-Alignment/beaver-7b-v1.0-cost"]
    assert round(100 * result.overall.value, 2) == 56.17  # type: ignore[union-attr]


def test_a_tie_is_wrong_and_absent_sections_are_named(tmp_path):
    rows, _ = rows_of({"math-prm": (0, 2), "hep-cpp": (0, 1)})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = load(tmp_path / "data.jsonl")
    result = measure(items, matrix(items, [[1, 1], [2, 1], [1, 0]]), resamples=0)
    assert result.details["math-prm"].value == 0.5
    assert result.ties == 1
    assert result.overall.value == pytest.approx((984 * 0.5 + 164) / (984 + 164))
    assert result.metric == "mean of 1 of four sections"
    assert "xstest-should-refuse" in result.notes[0]
    (tmp_path / "data.jsonl").write_text(json.dumps(rows[0] | {"subset": "shp"}))
    with pytest.raises(DataError, match="subset 'shp' is not one of RewardBench"):
        load(tmp_path / "data.jsonl")
