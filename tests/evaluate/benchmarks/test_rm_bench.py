"""The 3x3 matrix of RM-Bench, and "shorter wins" on what of its data is at hand."""

import json

import numpy as np
import pytest

from guerdon.evaluate.benchmarks.item import matrix
from guerdon.evaluate.benchmarks.rm_bench import load, measure, read_scores
from guerdon.types import DataError


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(domain, n):
    return [
        {
            "id": i,
            "prompt": f"{domain} {i}",
            "chosen": ["a", "bb", "ccc"],
            "rejected": ["d", "ee", "fff"],
            "domain": domain,
        }
        for i in range(n)
    ]


def official(scores):
    """The README's `compute_accuracy`, loop for loop."""
    matrix = np.zeros((3, 3))
    for row in scores:
        for i in range(3):
            for j in range(3):
                matrix[i][j] += row[i] > row[3 + j]
    matrix /= len(scores)
    return np.sum(np.tril(matrix, -1)) / 3, np.mean(np.diag(matrix)), np.sum(np.triu(matrix, 1)) / 3


def test_the_matrix_is_the_official_loop(tmp_path):
    rng = np.random.default_rng(3)
    rows = [row for d, n in (("chat", 9), ("code", 5), ("math", 7), ("safety-refuse", 4), ("safety-response", 6)) for row in rows_of(d, n)]  # fmt: skip
    write(tmp_path / "total_dataset.jsonl", rows)
    write(tmp_path / "chat_filtered.jsonl", rows[:9])  # also in the merged file, so not read again
    items = load(tmp_path)
    scores = rng.integers(0, 4, (len(rows), 6)).astype(float)
    result = measure(items, scores, resamples=50)
    parts = {"chat": scores[:9], "code": scores[9:14], "math": scores[14:21], "safety": scores[21:]}
    levels = {name: official(part) for name, part in parts.items()}
    for name, values in levels.items():
        assert result.categories[name].value == pytest.approx(np.mean(values))
        assert [result.details[f"{name} {level}"].value for level in ("easy", "normal", "hard")] == pytest.approx(
            values
        )
    assert result.overall.value == pytest.approx(np.mean(list(levels.values())))
    assert result.details["hard"].value == pytest.approx(np.mean([values[2] for values in levels.values()]))
    assert result.ties == int((scores[:, :3, None] == scores[:, None, 3:]).sum())
    assert result.notes == ()
    assert result.curves["chat matrix"][1] == np.mean(scores[:9, 0] > scores[:9, 4])


def test_published_scores(tmp_path):
    rows = [row | {"score_chosen": [1, 2, 3], "score_rejected": [0.5, 2, 4]} for row in rows_of("code", 3)]
    (tmp_path / "code_filtered_model.json").write_text(json.dumps(rows))
    items, found = read_scores(tmp_path / "code_filtered_model.json")
    result = measure(items, found["code_filtered_model.json"], resamples=0)
    assert result.details["easy"].value == pytest.approx(1.0)
    assert result.details["normal"].value == pytest.approx(1 / 3)
    assert result.details["hard"].value == 0
    assert result.notes == ("Absent domains: chat, math, safety; published scores cover all.",)


def test_a_domain_is_needed(tmp_path):
    write(tmp_path / "rows.jsonl", [{"id": 1, "prompt": "p", "chosen": ["a"] * 3, "rejected": ["b"] * 3}])
    with pytest.raises(DataError, match="no domain"):
        load(tmp_path)
    write(tmp_path / "chat.jsonl", [{"id": 1, "prompt": "p", "chosen": ["a"] * 2, "rejected": ["b"] * 3}])
    with pytest.raises(DataError, match="'chosen' must be a list of three"):
        load(tmp_path / "chat.jsonl")


@pytest.mark.parametrize(
    ("domain", "full", "items"),
    [
        ("chat", (18.9, 64.3, 97.4), 114),
        ("code", (22.5, 48.1, 74.6), 166),
        ("safety", (7.6, 61.9, 89.9), 323),
    ],
)
def test_shorter_answers_win_the_hard_cells(real_data, domain, full, items):
    """Part of the data is held back here (603 of 798 items), so the full set's shares hold within sampling error only.

    A share p of the full set of N items, seen on n of them, has the standard error sqrt(p(1-p)/n (N-n)/(N-1)).
    """
    folder = real_data / "rm-bench"
    everything = load(folder)
    lengths = matrix(everything, [item.chars for item in everything])
    result = measure(everything, -lengths, resamples=0)
    n, total = items, {"chat": 129, "code": 228, "safety": 441}[domain]
    assert sum(item.category == domain for item in everything) == n
    for level, expected in zip(("easy", "normal", "hard"), full, strict=True):
        found = 100 * result.details[f"{domain} {level}"].value
        p = expected / 100
        error = 100 * np.sqrt(p * (1 - p) / n * (total - n) / (total - 1))
        assert abs(found - expected) < 3 * error + 0.05, level
    assert result.notes == ("Absent domains: math; published scores cover all.",)
