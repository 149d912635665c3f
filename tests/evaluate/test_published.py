"""Numbers that others measured on public data, reproduced from the raw files."""

import gzip
import json
import math
from pathlib import Path

import pytest

from guerdon.data.read import load
from guerdon.data.split import prompt_key
from guerdon.evaluate.metrics import evaluate
from guerdon.evaluate.table import ScoreTable

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public preference data is not at {DATA}")


def rows(name):
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_table(path, comparisons):
    """comparisons: (prompt, id, ranks, scores, chars)."""
    with path.open("w") as file:
        for prompt, name, ranks, scores, chars in comparisons:
            for i, (rank, score, length) in enumerate(zip(ranks, scores, chars, strict=True)):
                row = {
                    "prompt": prompt,
                    "comparison": name,
                    "completion": i,
                    "rank": rank,
                    "score": score,
                    "chars": length,
                }
                file.write(json.dumps(row) + "\n")
    return ScoreTable.read(path)


@pytest.mark.parametrize(
    ("model", "correct", "ties", "nll"),
    [
        ("GRM-Gemma-2B", 208, 0, 0.901),
        ("Gemma-2-27B", 225, 3, 2.167),
        ("Llama-3.1-8B", 218, 1, 2.408),
        ("internlm2-20b", 222, 0, 0.614),
        ("internlm2-7b", 208, 0, 0.646),
    ],
)
def test_judgebench(tmp_path, model, correct, ties, nll):
    """350 pairs; the published rule calls an equal score wrong, ours counts it one half. Longer answers win 46.0 %."""
    pairs = {row["pair_id"]: row for row in rows("judgebench/gpt-4o-pairs.jsonl.gz")}
    scored = [row for row in rows("judgebench/reward_model_scores.jsonl.gz") if model in row["judge_model"]]
    table = write_table(
        tmp_path / "table.jsonl",
        [
            (
                str(pairs[row["pair_id"]]["original_id"]),
                row["pair_id"],
                [1, 2] if pairs[row["pair_id"]]["label"] == "A>B" else [2, 1],
                row["scores"],
                [len(pairs[row["pair_id"]][side]) for side in ("response_A", "response_B")],
            )
            for row in scored
        ],
    )
    e = evaluate(table)
    assert (e.n, e.score_ties) == (350, ties)
    assert e.accuracy * 350 - ties / 2 == pytest.approx(correct)
    assert e.nll == pytest.approx(nll, abs=6e-4)
    assert e.longer_wins == pytest.approx(0.46, abs=0.005)


@pytest.mark.parametrize(("model", "pairwise"), [("internlm2", 0.7598), ("internlm2_20b", 0.7308), ("beaver", 0.4859)])
def test_rewardmath(tmp_path, model, pairwise):
    """One right and nine wrong solutions: nine decided pairs and 36 ties per problem; published with ties as wrong."""
    problems = rows(f"rewardmath/{model}.jsonl.gz")
    table = write_table(
        tmp_path / "table.jsonl",
        [(str(i), str(i), [1] + [2] * 9, row["score"], [0] * 10) for i, row in enumerate(problems)],
    )
    e = evaluate(table, resamples=100)
    assert (e.n, e.ties) == (9 * len(problems), 36 * len(problems))
    assert e.accuracy - e.score_ties / 2 / e.n == pytest.approx(pairwise, abs=6e-5)


@pytest.mark.parametrize(("part", "longer"), [("harmless", 0.45), ("helpful", 0.60)])
def test_longer_answers_in_hh(part, longer):
    folder = DATA / "hh-rlhf" / f"{part}-base"
    comparisons = load([folder / "train.jsonl.gz", folder / "test.jsonl.gz"]).comparisons
    keys = [prompt_key(comparison) for comparison in comparisons]
    e = evaluate(ScoreTable.build(comparisons, [[0.0, 0.0]] * len(comparisons), prompt_keys=keys), resamples=200)
    assert e.longer_wins == pytest.approx(longer, abs=0.006)
    assert e.longer_wins_low < longer < e.longer_wins_high
    assert e.shorter_wins == pytest.approx(1 - e.longer_wins)
    assert e.collapsed
    assert e.nll == pytest.approx(math.log(2))


def test_shorter_answers_win_59_percent_of_the_harmless_test_set():
    comparisons = load(DATA / "hh-rlhf" / "harmless-base" / "test.jsonl.gz").comparisons
    keys = [prompt_key(comparison) for comparison in comparisons]
    e = evaluate(ScoreTable.build(comparisons, [[0.0, 0.0]] * len(comparisons), prompt_keys=keys), resamples=200)
    assert e.shorter_wins == pytest.approx(0.59, abs=0.006)
