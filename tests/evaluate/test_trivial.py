"""Rules that need no model, by hand and by simulation; and accuracy with the help of length taken away."""

import math

import numpy as np
import pytest
from test_metrics import change, make_table, random_table

from guerdon.evaluate.calibration import credit
from guerdon.evaluate.metrics import evaluate, warn_of_leakage
from guerdon.evaluate.score import score_comparisons
from guerdon.evaluate.trivial import baselines, length_control, score_without_prompt
from guerdon.types import Comparison, ConfigError, Score


def decided(table):
    pairs = table.pairs()
    return pairs.where(pairs.is_decided & pairs.is_scored)


def test_rows_by_hand():
    table = make_table([[1, 0]] * 4, [[1, 2]] * 4, chars=[[9, 1], [8, 2], [1, 5], [3, 3]])
    rows = baselines(table, decided(table))
    assert list(rows) == ["longer", "shorter", "random", "constant"]
    assert (rows["longer"].accuracy, rows["longer"].ties) == (2.5 / 4, 1)
    assert rows["shorter"].accuracy == 1 - 2.5 / 4
    constant = rows["constant"]
    assert (constant.accuracy, constant.low, constant.high, constant.ties) == (0.5, 0.5, 0.5, 4)
    assert rows["random"].low == pytest.approx(0.5 - 1.959964 * math.sqrt(1 / 4 / 4))


def test_the_range_of_random_scorers_against_simulation():
    """Rankings of 2 to 6 answers: pairs that share an answer are not independent even under random scores."""
    rng = np.random.default_rng(0)
    ranks = [rng.permutation(k).tolist() for k in rng.integers(2, 7, size=40)]
    table = make_table([[0.0] * len(row) for row in ranks], ranks)
    pairs, row = decided(table), baselines(table, decided(table))["random"]
    scores = rng.normal(size=(4000, len(table)))
    found = [credit(one[pairs.chosen] - one[pairs.rejected]).mean() for one in scores]
    assert np.mean(found) == pytest.approx(0.5, abs=0.01)
    assert (row.low, row.high) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])), abs=0.012)
    assert row.high - 0.5 > 1.2 * 1.96 * math.sqrt(0.25 / len(pairs))  # wider than for independent pairs


def test_an_evaluation_carries_them():
    e = evaluate(random_table())
    assert (e.baselines["longer"].accuracy, e.baselines["longer"].low) == (e.longer_wins, e.longer_wins_low)
    record = e.to_dict()
    assert set(record["baselines"]["random"]) == {"accuracy", "low", "high", "ties", "n"}
    assert record["length"]["residual"] == e.length.residual
    unknown = evaluate(make_table([[1, 0]] * 3, [[1, 2]] * 3))
    assert unknown.length is None
    assert unknown.to_dict()["baselines"]["longer"]["accuracy"] is None


def test_accuracy_by_the_side_that_is_longer():
    table = make_table([[1, 0], [0, 1], [1, 0], [1, 0]], [[1, 2]] * 4, chars=[[9, 1], [9, 1], [1, 9], [2, 2]])
    found = length_control(table, decided(table))
    assert (found.when_longer, found.when_shorter) == (0.5, 1.0)


def test_a_model_of_length_alone_is_a_coin_once_length_is_removed():
    rng = np.random.default_rng(1)
    chars = rng.integers(10, 1000, size=(3000, 2))
    ranks = np.where((chars[:, 0] > chars[:, 1])[:, None] ^ (rng.random((3000, 1)) < 0.2), [[1, 2]], [[2, 1]])
    table = make_table(2.5 * np.log1p(chars) + rng.normal(scale=1e-3, size=(3000, 2)), ranks, chars=chars)
    found = length_control(table, decided(table))
    assert evaluate(table).accuracy == pytest.approx(0.8, abs=0.02)
    assert found.low < 0.5 < found.high
    assert found.per_doubling == pytest.approx(2.5 * math.log(2), rel=1e-3)


def test_a_model_that_ignores_length_keeps_its_accuracy():
    rng = np.random.default_rng(2)
    chars = rng.integers(10, 1000, size=(3000, 2))
    scores = rng.normal(size=(3000, 2)) + np.array([0.5, 0])
    table = make_table(scores, [[1, 2]] * 3000, chars=chars)
    assert length_control(table, decided(table)).residual == pytest.approx(evaluate(table).accuracy, abs=0.01)


def test_swapped_labels_give_the_complement_of_the_residual():
    table = random_table(400)
    one, two = (length_control(t, decided(t)) for t in (table, change(table, rank=3 - table.rank)))
    assert two.residual == pytest.approx(1 - one.residual)
    assert two.per_doubling == pytest.approx(one.per_doubling)


class WordCount:
    """Scores the words that prompt and answer share, plus a tenth for each word of the answer."""

    def score(self, conversations):
        return [
            Score(
                len(set(c[0]["content"].split()) & set(c[-1]["content"].split())) + 0.1 * len(c[-1]["content"].split())
            )
            for c in conversations
        ]


def test_the_prompt_is_removed_from_the_scores_and_from_nothing_else():
    def turn(role, text):
        return {"role": role, "content": text}

    rows = [
        Comparison(
            (
                turn("system", "be kind"),
                turn("user", "red cats"),
                turn("assistant", "what?"),
                turn("user", f"cats {i}"),
            ),
            ((turn("assistant", "be cats"),), (turn("assistant", "dogs and birds"),)),
            (1, 2),
            id=f"c{i}",
        )
        for i in range(4)
    ]
    full, blank = score_comparisons(WordCount(), rows), score_without_prompt(WordCount(), rows)
    assert blank.score[:2] == pytest.approx([0.2, 0.3])
    assert full.score[:2] == pytest.approx([1.2, 0.3])
    e = evaluate(full, without_prompt=blank)
    assert (e.accuracy, e.baselines["prompt removed"].accuracy, e.prompts) == (1, 0, 1)
    with pytest.raises(ConfigError, match="other rows"):
        evaluate(full, without_prompt=score_without_prompt(WordCount(), rows[:2]))


def test_leakage_is_suspected_above_the_ceiling_only():
    e = evaluate(make_table([[1, 0]] * 95 + [[0, 1]] * 5, [[1, 2]] * 100))
    assert "leakage" in warn_of_leakage(e, 0.8).warnings[-1]
    assert warn_of_leakage(e, 0.95) is e
    assert warn_of_leakage(evaluate(make_table([[math.nan, 1]], [[1, 2]])), 0.6).accuracy_low != 0
