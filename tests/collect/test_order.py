"""Orders are counterbalanced: Latin squares for a question, and a rater's sides even to within two showings."""

from __future__ import annotations

import random

import pytest

from guerdon.collect.order import add, choose, cost, empty, orders, spread


@pytest.mark.parametrize("k", range(2, 10))
def test_the_orders_of_a_question_complete_latin_squares(k):
    """After K showings every candidate stood once in every position; after m showings no two cells differ by more than 1."""
    tally, rng = empty(k), random.Random(k)
    for shown in range(1, 4 * k + 1):
        order, _ = choose(tally, empty(k), rng)
        tally = add(tally, order)
        assert spread(tally) <= 1
        if shown % k == 0:
            assert spread(tally) == 0


def test_the_offered_orders_are_permutations_and_two_for_a_pair():
    assert orders(2) == [(0, 1), (1, 0)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders(4))
    assert len(set(orders(4))) == 8


def test_cost_counts_what_stood_there_before():
    tally = add(add(empty(3), (0, 1, 2)), (0, 2, 1))
    assert tally == [[2, 0, 0], [0, 1, 1], [0, 1, 1]]
    assert cost(tally, (0, 1, 2)) == 2 + 1 + 1
    assert cost(tally, (1, 0, 2)) == 0 + 0 + 1


def test_a_rater_stays_even_whatever_the_questions_ask_for():
    """Questions that all want candidate 1 on the left: the rater's balance gives way by two showings and no more."""
    rng, rater = random.Random(0), empty(2)
    wants = add(empty(2), (0, 1), 5)
    for _ in range(200):
        order, off = choose(wants, rater, rng)
        assert off > 0 or order == (1, 0)
        rater = add(rater, order)
        assert abs(rater[0][0] - rater[0][1]) <= 2


def test_the_choice_is_even_where_nothing_is_off_balance():
    rng = random.Random(1)
    first = sum(choose(empty(2), empty(2), rng)[0] == (0, 1) for _ in range(4000))
    assert abs(first / 4000 - 0.5) < 0.03  # 4 standard errors
