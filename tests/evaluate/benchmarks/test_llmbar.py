"""LLMBar: all published statistics of its judges, and the rows of length."""

import gzip
import json

import numpy as np
import pytest

from guerdon.evaluate.benchmarks.item import matrix
from guerdon.evaluate.benchmarks.llmbar import load, measure, measure_labels, read_scores
from guerdon.types import DataError

FILES = {"Natural": 100, "Neighbor": 134, "GPTInst": 92, "GPTOut": 47, "Manual": 46}


@pytest.fixture(scope="module")
def items(real_data):
    return load(real_data / "llmbar")


def test_longer_answers_win(items):
    lengths = matrix(items, [item.chars for item in items])
    result = measure(items, lengths, resamples=200)
    found = {name: round(100 * estimate.value, 1) for name, estimate in result.categories.items()}
    assert found == {"Natural": 56.0, "Neighbor": 11.9, "GPTInst": 13.0, "GPTOut": 44.7, "Manual": 17.4}
    assert {name: estimate.n for name, estimate in result.categories.items()} == FILES
    assert result.overall.value == pytest.approx(np.mean([e.value for e in result.categories.values()]))
    assert result.overall.low < result.overall.value < result.overall.high
    assert result.notes == ()


def test_all_325_published_statistics_of_judges(real_data, items):
    """Counts of right answers in the given and the swapped order, of both, and of equal answers."""
    _, found = read_scores(real_data / "llmbar" / "evaluator_labels.jsonl.gz", items)
    with gzip.open(real_data / "llmbar" / "evaluator_statistics.jsonl.gz", "rt", encoding="utf-8") as file:
        published = [json.loads(line) for line in file]
    assert len(published) == 325
    for row in published:
        subset = row["subset"].rpartition("/")[2]
        result = found[row["evaluator"]]
        for key in ("correct_False", "correct_True", "correct_both", "equal"):
            estimate = result.details[f"{subset} {key}"]
            count = f"{round(estimate.value * estimate.n)} / {estimate.n}"
            assert count == row[key].partition(" = ")[0], (row["subset"], row["evaluator"], key)
        average = 100 * result.categories[subset].value
        assert average == pytest.approx(float(row["correct_average"].rstrip("%")), abs=1e-9)


def test_ties_and_unparsed_choices_are_wrong(tmp_path):
    row = {"input": "q", "output_1": "a", "output_2": "b", "label": 1}
    (tmp_path / "natural.jsonl").write_text((json.dumps(row) + "\n") * 2)
    (tmp_path / "processed.jsonl").write_text(json.dumps(row) + "\n")
    two = load(tmp_path)
    assert [item.id for item in two] == ["Natural:0", "Natural:1"]
    result = measure(two, matrix(two, [[1, 1], [2, 1]]), resamples=0)
    assert (result.overall.value, result.ties) == (0.5, 1)
    assert result.notes == ("Absent subsets: Neighbor, GPTInst, GPTOut, Manual.",)
    judged = measure_labels(two, [None, "1"], ["1", "2"], resamples=0)
    assert judged.overall.value == 0.5
    assert judged.ties == 1
    (tmp_path / "labels.jsonl").write_text(
        json.dumps({"subset": "LLMBar/Natural", "idx": 0, "evaluator": "e", "winner": "1", "winner_swapped": "1"})
    )
    with pytest.raises(DataError, match="e has no label for Natural:1"):
        read_scores(tmp_path / "labels.jsonl", two)
    with pytest.raises(DataError, match="name the benchmark as well"):
        read_scores(tmp_path / "labels.jsonl")


def test_the_folders_of_upstream(tmp_path):
    folder = tmp_path / "Adversarial" / "Neighbor"
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps([{"input": "q", "output_1": "a", "output_2": "b", "label": 2}]))
    assert load(tmp_path)[0].category == "Neighbor"
    (folder / "dataset.json").rename(tmp_path / "dataset.json")
    with pytest.raises(DataError, match="no file here is named after a subset"):
        load(tmp_path)
