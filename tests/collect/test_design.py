"""The criteria by which questions are ranked, against slow and literal computations."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from guerdon.collect.design import d_optimal, information, uncertainty


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def literal_information(h, r):
    """The sum over pairs, as the formula is written."""
    found = np.zeros((h.shape[1], h.shape[1]))
    for a, b in combinations(range(len(r)), 2):
        p = sigmoid(r[a] - r[b])
        found += p * (1 - p) * np.outer(h[a] - h[b], h[a] - h[b])
    return found


@pytest.mark.parametrize("k", [2, 3, 5])
def test_information_is_the_sum_over_pairs(k):
    rng = np.random.default_rng(k)
    h, r = rng.normal(size=(k, 4)), rng.normal(size=k)
    z = information(h, r)
    assert z.shape == (k - 1, 4)
    np.testing.assert_allclose(z.T @ z, literal_information(h, r), atol=1e-12)


def test_information_of_a_pair_by_hand():
    z = information(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0.0, 0.0]))
    np.testing.assert_allclose(z.T @ z, 0.25 * np.array([[4, -2], [-2, 1]]), atol=1e-12)


def test_uncertainty_by_hand():
    assert uncertainty(np.array([1.0, 1.0])) == pytest.approx(math.log(2))
    p = sigmoid(2.0)
    assert uncertainty(np.array([3.0, 1.0])) == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    agree = np.array([[0.0, 0.0], [0.0, 0.0]])
    assert uncertainty(np.zeros(2), agree) == pytest.approx(0.0)  # all find it equal: nothing to learn by disagreement
    against = np.array([[2.0, 0.0], [0.0, 2.0]])
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert uncertainty(np.zeros(2), against) == pytest.approx(math.log(2) - entropy)
    assert math.isnan(uncertainty(np.array([0.0, math.nan])))


@pytest.mark.parametrize(("k", "diversity"), [(2, 0.0), (2, 1.0), (4, 0.0), (4, 0.5)])
def test_the_greedy_order_is_that_of_full_determinants(k, diversity):
    rng = np.random.default_rng(7 * k)
    n, width, batch = 14, 5, 6
    h, r = rng.normal(size=(n, k, width)), rng.normal(size=(n, k))
    known = rng.normal(size=(4, k, width))
    rows = [information(h[i], r[i]) for i in range(n)]
    done = [information(known[i], np.zeros(k)) for i in range(4)]
    prompts, known_prompts = h.mean(axis=1), known.mean(axis=1)
    found = d_optimal(rows, prompts, batch, labelled=done, labelled_prompts=known_prompts, diversity=diversity)

    ridge = sum(np.square(z).sum() for z in rows) / n / width
    middle = prompts.mean(axis=0)
    ridge_p = np.square(prompts - middle).sum() / n / width
    a = ridge * np.eye(width) + sum(z.T @ z for z in done)
    b = ridge_p * np.eye(width) + sum(np.outer(p - middle, p - middle) for p in known_prompts)

    def value(chosen):
        one = np.linalg.slogdet(a + sum((rows[i].T @ rows[i] for i in chosen), np.zeros((width, width))))[1]
        spread = sum((np.outer(prompts[i] - middle, prompts[i] - middle) for i in chosen), np.zeros((width, width)))
        return one + diversity * np.linalg.slogdet(b + spread)[1]

    chosen = []
    for _ in range(batch):
        chosen.append(max((i for i in range(n) if i not in chosen), key=lambda i: value([*chosen, i])))
    assert found[:batch] == chosen
    rest = sorted((i for i in range(n) if i not in chosen), key=lambda i: -value([*chosen, i]))
    assert found[batch:] == rest


def test_a_batch_spreads_out_where_uncertainty_alone_would_repeat_itself():
    """Twenty copies of the best question and five others: the batch takes one copy, then the others."""
    best = np.array([[3.0, 0.0, 0.0]])
    others = [np.array([row]) for row in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0])]
    rows = [best] * 20 + others
    found = d_optimal(rows, np.zeros((22, 3)), 3, diversity=0.0)
    assert found[0] < 20
    assert {20, 21} <= set(found[:5])
    assert d_optimal([], np.zeros((0, 3)), 3) == []
    assert sorted(d_optimal(rows, np.zeros((22, 3)), 100)) == list(range(22))


def test_prompt_diversity_takes_the_prompt_that_is_not_there_yet():
    rows = [np.array([[1.0, 0.0]])] * 4
    prompts = np.array([[5.0, 0.0], [5.0, 0.1], [5.0, -0.1], [0.0, 5.0]])
    assert d_optimal(rows, prompts, 1, labelled=rows[:2], labelled_prompts=prompts[:2], diversity=1.0)[0] == 3
