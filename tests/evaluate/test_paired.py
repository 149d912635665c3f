"""Tests on pairs of models against scipy, enumeration and numbers worked out by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from guerdon.evaluate.intervals import design_effect, expanded_tail, standard_error
from guerdon.evaluate.paired import holm, letter_groups, mcnemar, prompt_effect, sign_flip, smallest_difference


@pytest.mark.parametrize(("b", "c"), [(0, 1), (3, 9), (10, 10), (59, 42), (52, 35), (0, 30), (400, 330)])
def test_mcnemar_against_scipy(b, c):
    exact, mid = mcnemar(b, c)
    assert exact == pytest.approx(stats.binomtest(b, b + c, 0.5).pvalue, rel=1e-10)
    assert mid == pytest.approx(exact - (stats.binom.pmf(b, b + c, 0.5) if b != c else 0), rel=1e-10)
    assert mcnemar(c, b) == (exact, mid)


def test_mcnemar_against_statsmodels():
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    assert mcnemar(17, 6)[0] == pytest.approx(contingency.mcnemar([[40, 17], [6, 80]], exact=True).pvalue)


def test_mcnemar_by_hand():
    """1 against 5: 2 (1 + 6) / 64 = 7/32, and the mid-p leaves out 6/64."""
    assert mcnemar(1, 5) == (pytest.approx(14 / 64), pytest.approx(8 / 64))
    assert mcnemar(0, 0) == (1.0, 1.0)


@pytest.mark.parametrize(("b", "c"), [(1, 5), (59, 42), (400, 330), (7, 7)])
def test_sign_flip_with_one_pair_per_prompt_is_mcnemar(b, c):
    differences = np.array([1.0] * b + [-1.0] * c + [0.0] * 50)
    assert sign_flip(differences, np.arange(len(differences))) == pytest.approx(mcnemar(b, c)[0], abs=1e-12)


def test_sign_flip_against_enumeration():
    """Ten prompts of unequal weight, half points included: all 1,024 sign patterns, one by one."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        groups = np.sort(rng.integers(0, 10, size=30))
        differences = rng.choice([-1, -0.5, 0, 0.5, 1], size=30)
        sums = np.bincount(groups, weights=differences, minlength=10)
        flipped = np.array(list(itertools.product([-1, 1], repeat=10))) @ sums
        expected = np.mean(np.abs(flipped) >= abs(sums.sum()) - 1e-9)
        assert sign_flip(differences, groups) == pytest.approx(expected, abs=1e-12)


def test_sign_flip_is_not_fooled_by_copies():
    """The same 12 prompts, each pair ten times: McNemar takes the copies for evidence, whole prompts do not."""
    differences = np.array([1.0] * 8 + [-1.0] * 4)
    alone = sign_flip(differences, np.arange(12))
    assert sign_flip(np.repeat(differences, 10), np.repeat(np.arange(12), 10)) == pytest.approx(alone, abs=1e-12)
    assert mcnemar(80, 40)[0] < 0.001 < alone


def test_sign_flip_of_a_certain_difference_is_not_zero():
    assert sign_flip(np.ones(80), np.arange(80)) == pytest.approx(2.0**-79)


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.5, 0.9])).tolist() == [1.0, 1.0]
    assert holm(np.zeros(0)).tolist() == []
    missing = holm(np.array([0.01, 0.04, 0.03, np.nan]))  # a test that could not be made is not counted
    assert missing == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)


def test_holm_against_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).random(20) ** 3
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_smallest_difference_published_values():
    """25 % discordance: about 4.4 points at n = 1,000 and 7.5 at n = 350."""
    assert smallest_difference(0.25, 1000) == pytest.approx(0.0443, abs=1e-4)
    assert smallest_difference(0.25, 350) == pytest.approx(0.0749, abs=1e-4)
    assert smallest_difference(0.25, 700, effect=2) == pytest.approx(smallest_difference(0.25, 350))
    assert np.isnan(smallest_difference(0.25, 0))


def test_the_smallest_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(1)
    n, discordance = 600, 0.25
    gap = smallest_difference(discordance, n)
    first = rng.binomial(n, [[(discordance + gap) / 2]] * 4000)[:, 0]
    second = rng.binomial(n - first, (discordance - gap) / 2 / (1 - (discordance + gap) / 2))
    found = np.mean([mcnemar(int(b), int(c))[1] < 0.05 for b, c in zip(first, second, strict=True)])
    assert found == pytest.approx(0.8, abs=0.03)


def test_design_effect_of_copies_and_of_independent_pairs():
    rng = np.random.default_rng(2)
    values = rng.normal(size=2000)
    assert design_effect(values, np.arange(2000)) == pytest.approx(1, abs=1e-9)
    assert design_effect(np.repeat(values, 5), np.repeat(np.arange(2000), 5)) == pytest.approx(5, rel=1e-3)
    assert standard_error(values, np.arange(2000)) == pytest.approx(stats.sem(values))
    assert prompt_effect(np.ones(5), np.arange(5)) == 1


def test_expanded_tail_is_wider_for_few_prompts_and_plain_for_many():
    assert expanded_tail(np.arange(100_000)) == pytest.approx(0.025, abs=1e-4)
    assert expanded_tail(np.arange(10)) == pytest.approx(stats.norm.cdf((10 / 9) ** 0.5 * stats.t.ppf(0.025, 9)))
    few_large = np.repeat(np.arange(104), [100] * 4 + [1] * 100)
    assert expanded_tail(few_large) < expanded_tail(np.arange(10))


def test_letters_say_exactly_who_is_distinct():
    rng = np.random.default_rng(3)
    for _ in range(200):
        n = int(rng.integers(2, 8))
        couples = list(itertools.combinations(range(n), 2))
        distinct = [couple for couple in couples if rng.random() < 0.4]
        groups = letter_groups(distinct, n)
        share = {couple for group in groups for couple in itertools.combinations(group, 2)}
        assert share == set(couples) - set(distinct)
        assert set().union(*groups) == set(range(n))
        assert not any(set(a) < set(b) for a in groups for b in groups)


def test_letters_by_hand():
    assert letter_groups([], 3) == [(0, 1, 2)]
    assert letter_groups([(0, 2)], 3) == [(0, 1), (1, 2)]
    assert letter_groups([(0, 1), (0, 2), (1, 2)], 3) == [(0,), (1,), (2,)]
