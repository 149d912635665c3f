"""Draws of the next question: the probability that is stored is the one with which it was drawn."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from guerdon.collect.choose import FLOOR, choose, draw, draw_arm, softrank
from guerdon.types import ConfigError


def test_weights_are_ranks_and_equal_values_share_one():
    assert softrank([5.0, 9.0, 5.0, 1.0, math.nan]) == [1 / 2, 1.0, 1 / 2, 1 / 4, 0.0]
    assert softrank([3.0, 2.0, 1.0], beta=2) == [1, 1 / 4, 1 / 9]
    assert softrank([]) == []


def test_the_stored_probability_follows_the_formula():
    rng, weights = random.Random(1), [1.0, 0.5, 0.0, 0.5]
    by_hand = [0.9 * 0.5 + 0.025, 0.9 * 0.25 + 0.025, 0.025, 0.9 * 0.25 + 0.025]
    for _ in range(200):
        index, probability = draw(weights, rng)
        assert probability == pytest.approx(by_hand[index])
    assert sum(by_hand) == pytest.approx(1)


def test_questions_are_drawn_as_often_as_their_probability_says():
    rng, weights, n = random.Random(2), softrank([0.1, 0.9, 0.4, 0.7, 0.2]), 40_000
    counts, said = Counter(), {}
    for _ in range(n):
        index, probability = draw(weights, rng)
        counts[index] += 1
        said[index] = probability
    assert sum(said.values()) == pytest.approx(1)
    for index, probability in said.items():
        error = math.sqrt(probability * (1 - probability) / n)
        assert abs(counts[index] / n - probability) < 4.5 * error


def test_weighting_by_the_probability_undoes_the_choice():
    """The mean of a value over the pool comes back from actively drawn questions, within its standard error."""
    rng = random.Random(3)
    values = [rng.random() ** 3 for _ in range(50)]
    weights, truth, terms, n = softrank(values), sum(values) / 50, [], 20_000
    for _ in range(n):
        index, probability = draw(weights, rng)
        terms.append(values[index] / (50 * probability))
        assert 1 / (50 * probability) <= 1 / FLOOR + 1e-9
    mean = sum(terms) / n
    error = math.sqrt(sum((term - mean) ** 2 for term in terms)) / n
    assert abs(mean - truth) < 4 * error
    assert sum(values[draw(weights, rng).index] for _ in range(2000)) / 2000 > 2 * truth  # unweighted, it is far off


def test_arms_are_drawn_by_their_shares_and_random_always_keeps_a_fifth():
    rng = random.Random(4)
    counts = Counter(draw_arm(0.3, ["uncertain", "d-optimal"], rng) for _ in range(20_000))
    assert abs(counts["random"] / 20_000 - 0.3) < 0.015
    assert abs(counts["uncertain"] / 20_000 - 0.35) < 0.015
    assert {draw_arm(0.2, [], rng) for _ in range(20)} == {"random"}
    for share in (0.0, 0.19, 1.1, math.nan):
        with pytest.raises(ConfigError, match="random share"):
            draw_arm(share, ["uncertain"], rng)


def test_an_arm_without_priorities_is_the_random_one_and_new_questions_are_reached():
    rng = random.Random(5)
    question, arm, probability = choose("d-optimal", ["a", "b"], {"gone": 1.0}, rng)
    assert question in ("a", "b")
    assert (arm, probability) == ("random", 0.5)
    seen = Counter(choose("uncertain", ["new", "old"], {"old": 1.0}, rng)[0] for _ in range(4000))
    assert abs(seen["new"] / 4000 - FLOOR / 2) < 0.02
    assert choose("random", ["a", "b"], {"a": 9.0}, rng)[1:] == ("random", 0.5)
    assert choose("uncertain", ["a"], {"a": 0.25}, rng) == ("a", "uncertain", pytest.approx(1.0))


@pytest.mark.parametrize("weights", [[], [math.nan], [-1.0, 2.0], [math.inf, 1.0]])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ConfigError):
        draw(weights, random.Random(6))
