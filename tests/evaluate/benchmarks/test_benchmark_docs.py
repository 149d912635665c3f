"""The page names every benchmark, and every field of results, protocol records and score tables."""

from dataclasses import fields
from pathlib import Path

from guerdon.evaluate.benchmarks.estimate import Estimate, Result
from guerdon.evaluate.benchmarks.item import make_item, matrix
from guerdon.evaluate.benchmarks.protocol import Protocol
from guerdon.evaluate.benchmarks.rewardmath import AGGREGATIONS
from guerdon.evaluate.benchmarks.run import BENCHMARKS
from guerdon.evaluate.benchmarks.score_table import COLUMNS

PAGE = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_everything_has_its_line():
    names = [field.name for record in (Estimate, Result, Protocol) for field in fields(record)]
    names += [*BENCHMARKS, *AGGREGATIONS, *COLUMNS]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    assert [b.hub for b in BENCHMARKS.values() if b.hub and f"`{b.hub}`" not in PAGE] == []


def test_details_that_do_not_depend_on_the_data_are_defined():
    pairs = {
        "judgebench": [make_item("1", "math", "q", ["a", "b"], [True, False])],
        "llmbar": [make_item("1", "Manual", "q", ["a", "b"], [True, False])],
        "rewardmath": [make_item("1", "", "q", ["a", "b"], [True, False])],
        "hhh": [make_item("1", "honest", "q", ["a", "b"], [True, False])],
        "ppe": [make_item("1", "set", "q", ["a", "b"], [True, False])],
        "rewardbench2": [
            make_item("ref:1", "Ties", "q", ["a", "b"], [True, False]),
            make_item("tied:1", "Ties", "r", ["a", "b", "c"], [True, True, False]),
        ],
    }
    for name, items in pairs.items():
        scores = matrix(items, [[3.0, 1.0, 2.0][: len(item.correct)] for item in items])
        found = BENCHMARKS[name].measure(items, scores, resamples=0)
        assert [key for key in found.details if f"`{key}`" not in PAGE] == []
