"""Draws of the next question: the probability that is stored is the one with which it was drawn."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from guerdon.collect import choose as module
from guerdon.collect import pool, studies
from guerdon.collect.choose import FLOOR, choose, draw, probability, softrank
from guerdon.collect.settings import Settings
from guerdon.collect.store import Store
from guerdon.types import ConfigError, Question


def test_weights_are_ranks_and_equal_values_share_one():
    assert softrank([5.0, 9.0, 5.0, 1.0, math.nan]) == [1 / 2, 1.0, 1 / 2, 1 / 4, 0.0]
    assert softrank([3.0, 2.0, 1.0], beta=2) == [1, 1 / 4, 1 / 9]
    assert softrank([]) == []


def test_positions_are_drawn_in_proportion_to_their_weights():
    rng, weights, n = random.Random(2), softrank([0.1, 0.9, 0.4, 0.7, 0.2]), 40_000
    counts = Counter(draw(weights, rng) for _ in range(n))
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(counts[index] / n - share) < 4.5 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize("weights", [[], [math.nan], [-1.0, 2.0], [math.inf, 1.0], [0.0]])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ConfigError):
        draw(weights, random.Random(6))


def questions(n):
    return [
        Question(
            prompt=({"role": "user", "content": f"{i}"},),
            completions=(({"role": "assistant", "content": f"a{i}"},), ({"role": "assistant", "content": f"b{i}"},)),
            id=f"q{i}",
        )
        for i in range(n)
    ]


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "s.db")) as opened:
        opened.create_study("s", Settings(random=0.5, arms=("uncertain",), overlap=1, gold=0, attention=0, repeats=0))
        opened.add_questions("s", questions(10))
        yield opened


def drawn(store, n, seed=1, rater="ann"):
    """(questions as often as they are drawn, what is said of each) when nothing is answered in between."""
    rng, counts, said = random.Random(seed), Counter(), {}

    def work(db):
        study = studies.find(db, "s")
        names = {row.id: row.positions for row in pool.next_open(db, study.id, rater)}
        for _ in range(n):
            found, chance = choose(db, study, rater, "uncertain", rng)
            counts[found] += 1
            assert said.setdefault(found, chance) == chance
        return names

    store.read(work)
    return counts, said


def test_an_active_arm_draws_as_often_as_it_says(store):
    weights = dict(zip([f"q{i}" for i in range(6)], softrank([6, 5, 4, 3, 2, 1]), strict=True))
    store.set_priorities("s", "uncertain", weights)
    counts, said = drawn(store, 1200)
    total = sum(weights.values())
    by_hand = sorted(probability(w, total, 10) for w in weights.values())
    assert sorted(said.values())[-6:] == pytest.approx(by_hand)
    assert max(by_hand) == pytest.approx(0.9 * 1 / total + 0.01)
    for question, chance in said.items():
        if chance > 2 * FLOOR / 10:  # the floor goes to the head of the random order, which is itself a draw
            spread = math.sqrt(chance * (1 - chance) / 1200)
            assert abs(counts[question] / 1200 - chance) < 4.5 * spread + FLOOR


def test_only_the_best_that_are_left_are_looked_at_and_the_floor_reaches_the_others(store, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 3)
    store.set_priorities("s", "uncertain", {f"q{i}": 1 / (i + 1) for i in range(10)})
    counts, said = drawn(store, 600)
    top = 1 + 1 / 2 + 1 / 3
    assert max(said.values()) == pytest.approx(0.9 / top + 0.01)
    others = [count for question, count in counts.items() if said[question] == pytest.approx(FLOOR / 10)]
    assert sum(others) <= 600 * FLOOR * 1.5
    assert len(counts) <= 4


def test_without_weights_there_is_no_active_arm(store):
    assert store.read(lambda db: choose(db, studies.find(db, "s"), "ann", "uncertain", random.Random(1))) is None
    store.set_priorities("s", "uncertain", {"q1": 0.0})
    assert store.read(lambda db: choose(db, studies.find(db, "s"), "ann", "uncertain", random.Random(1))) is None
    given = store.next("s", "ann")
    assert given.arm == "random"


def test_next_uses_the_arm_and_keeps_the_random_one(store):
    store.set_priorities("s", "uncertain", dict(zip([f"q{i}" for i in range(10)], softrank(range(10)), strict=True)))
    arms = Counter()
    for rater in range(60):
        given = store.next("s", f"r{rater}")
        if given is None:
            break
        arms[given.arm] += 1
        assert 0 < given.probability <= 1
    assert arms["random"] >= 1
    assert arms["uncertain"] >= 1


def test_weighting_by_the_probability_undoes_the_choice():
    """The mean of a value over the pool comes back from actively drawn questions, within its standard error."""
    rng = random.Random(3)
    values = [rng.random() ** 3 for _ in range(50)]
    weights, truth, terms, n = softrank(values), sum(values) / 50, [], 20_000
    for _ in range(n):
        index = rng.randrange(50) if rng.random() < FLOOR else draw(weights, rng)
        p = probability(weights[index], sum(weights), 50)
        terms.append(values[index] / (50 * p))
        assert 1 / (50 * p) <= 1 / FLOOR + 1e-9
    mean = sum(terms) / n
    error = math.sqrt(sum((term - mean) ** 2 for term in terms)) / n
    assert abs(mean - truth) < 4 * error
