"""JudgeBench from the published outputs of five reward models and one judge."""

import json

import numpy as np
import pytest

from guerdon.evaluate.benchmarks.item import make_item
from guerdon.evaluate.benchmarks.judgebench import decide, load, measure, measure_games, read_scores, two_game
from guerdon.types import DataError

PUBLISHED = {
    "Ray2333/GRM-Gemma-2B-rewardmodel-ft": (59.43, 62.99, 53.06, 64.29, 54.76, 58.77, 0, 208),
    "Skywork/Skywork-Reward-Gemma-2-27B": (64.29, 59.74, 66.33, 83.93, 50.00, 65.00, 3, 225),
    "Skywork/Skywork-Reward-Llama-3.1-8B": (62.29, 59.09, 64.29, 76.79, 50.00, 62.54, 1, 218),
    "internlm/internlm2-20b-reward": (63.43, 62.34, 69.39, 66.07, 50.00, 61.95, 0, 222),
    "internlm/internlm2-7b-reward": (59.43, 56.49, 61.22, 71.43, 50.00, 59.79, 0, 208),
}
ORDER = ("knowledge", "reasoning", "math", "coding")


@pytest.fixture(scope="module")
def pairs(real_data):
    return load(real_data / "judgebench")


@pytest.fixture(scope="module")
def scores(real_data, pairs):
    return read_scores(real_data / "judgebench" / "reward_model_scores.jsonl.gz", pairs)[1]


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_five_published_reward_models(pairs, scores, model):
    overall, *categories, macro, ties, correct = PUBLISHED[model]
    result = measure(pairs, scores[model])
    assert 100 * result.overall.value == pytest.approx(overall, abs=0.005)
    assert [100 * result.categories[name].value for name in ORDER] == pytest.approx(categories, abs=0.005)
    assert 100 * result.details["macro average"].value == pytest.approx(macro, abs=0.005)
    assert (result.ties, result.items, round(350 * result.overall.value)) == (ties, 350, correct)
    # The reference intervals are from another 95 % bootstrap over pairs, e.g. 54.6 to 64.6 for GRM-Gemma-2B.
    assert 100 * (result.overall.high - result.overall.low) == pytest.approx(10, abs=0.8)


def test_the_published_judge(real_data, pairs):
    _, found = read_scores(real_data / "judgebench" / "llm_judge_decisions.jsonl.gz", pairs)
    result = found["o1-mini-2024-09-12"]
    assert 100 * result.overall.value == pytest.approx(65.71, abs=0.005)
    assert 100 * result.details["single-game accuracy"].value == pytest.approx(70.86, abs=0.005)
    values = [100 * result.categories[name].value for name in ORDER]
    assert values == pytest.approx([58.44, 62.24, 82.14, 78.57], abs=0.005)
    assert 100 * (1 - result.details["consistent"].value) == pytest.approx(31, abs=0.5)


def test_longer_answers_win_46_percent(pairs):
    assert len(pairs) == 350
    lengths = np.array([item.chars for item in pairs])
    assert 100 * measure(pairs, lengths).overall.value == pytest.approx(46.0, abs=0.005)


def test_upstream_outputs_carry_their_own_pairs(tmp_path):
    texts = {"source": "livebench-math", "question": "q", "response_A": "a", "response_B": "b"}
    rows = [
        texts | {"pair_id": "1", "label": "A>B", "judgments": [{"decision": "A>B", "judgment": {"scores": [2, 1]}}]},
        texts | {"pair_id": "2", "label": "A>B", "judgments": [{"decision": "B>A", "judgment": {"scores": [1, 1]}}]},
    ]
    path = tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(row | {"judge_model": "rm"}) + "\n" for row in rows))
    items, found = read_scores(path)
    assert measure(items, found["rm"], resamples=0).overall.value == 0.5
    spoken = [[{"decision": "A>B"}, {"decision": "B>A"}], [None, {"decision": "B>A"}]]
    judged = [row | {"judgments": games, "judge_model": "llm"} for row, games in zip(rows, spoken, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in judged))
    result = read_scores(path)[1]["llm"]
    assert result.overall.value == 1.0
    assert result.details["single-game accuracy"].value == 0.5
    path.write_text(json.dumps({"pair_id": "1", "judge_model": "rm", "scores": [1, 0]}))
    with pytest.raises(DataError, match="holds no texts and labels"):
        read_scores(path)


def test_an_exact_tie_is_wrong_in_two_games_and_follows_the_label_in_one():
    assert decide(np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0]])) == [("B>A", "B>A"), ("A>B", "B>A"), ("B>A", "A>B")]
    pairs = [
        make_item(str(i), "math", f"q{i}", ["a", "b"], marks) for i, marks in enumerate([(True, False), (False, True)])
    ]
    result = measure(pairs, np.ones((2, 2)), resamples=0)
    assert result.overall.value == 0
    assert result.details["single-game accuracy"].value == 0.5
    assert result.ties == 2


@pytest.mark.parametrize(
    ("games", "right"),
    [
        (("A>B", "B>A"), True),
        (("A>B", "A>B"), False),
        (("A>B", None), True),
        ((None, "B>A"), True),
        (("A=B", "B>A"), True),
        (("B>A", "B>A"), False),
        ((None, None), False),
        (("A=B", "A>B"), False),
    ],
)
def test_two_games(games, right):
    """The label is A>B; the second decision is spoken of the swapped pair, so B>A there means A is better."""
    assert two_game(games, "A>B") is right


def test_games_must_match_the_pairs(pairs):
    with pytest.raises(ValueError, match="350 items but 1 pairs of decisions"):
        measure_games(pairs, [("A>B", None)])
