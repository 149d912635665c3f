import re
from collections import Counter
from statistics import mean

import numpy as np
import pytest
from scipy.optimize import minimize

from guerdon.lab.gold import courtesies, gold, lexicon, mentions, parts, words
from guerdon.lab.raters import Rater
from guerdon.lab.simulate import gold_comparisons, simulate, win_probability
from guerdon.lab.world import prompts
from guerdon.types import ConfigError


def texts(comparison):
    return comparison.prompt[0]["content"], *(c[0]["content"] for c in comparison.completions)


def words_of_sentences(text):
    return [len(words(s)) for s in re.split(r"[.!?\n]+", text) if s.strip()] or [0]


FEATURES = {
    "characters": lambda p, c: len(c),
    "words": lambda p, c: len(words(c)),
    "sentences": lambda p, c: len(words_of_sentences(c)),
    "words per sentence": lambda p, c: mean(words_of_sentences(c)),
    "longest sentence": lambda p, c: max(words_of_sentences(c)),
    "commas": lambda p, c: c.count(","),
    "full stops": lambda p, c: c.count("."),
    "question marks": lambda p, c: c.count("?"),
    "exclamation marks": lambda p, c: c.count("!"),
    "digits": lambda p, c: sum(x.isdigit() for x in c),
    "line breaks": lambda p, c: c.count("\n"),
    "capitals": lambda p, c: sum(x.isupper() for x in c),
    "list and bold marks": lambda p, c: c.count("- ") + c.count("**"),
    "average word length": lambda p, c: mean(map(len, words(c))) if words(c) else 0,
    "longest word": lambda p, c: max(map(len, words(c)), default=0),
    "type-token ratio": lambda p, c: len(set(words(c))) / max(1, len(words(c))),
    "prompt words taken up": lambda p, c: len(set(words(c)) & set(words(p))),
    "share of prompt words": lambda p, c: len(set(words(c)) & set(words(p))) / max(1, len(set(words(c)))),
    "words not in the prompt": lambda p, c: len(set(words(c)) - set(words(p))),
    "courteous phrases": lambda p, c: courtesies(words(c)),
    "numbers, names and things": lambda p, c: len(mentions(words(c))),
    "unknown words": lambda p, c: sum(w not in lexicon() and not w.isdigit() for w in words(c)),
    "first person": lambda p, c: words(c).count("i"),
    "second person": lambda p, c: words(c).count("you"),
}


@pytest.fixture(scope="module")
def ordered():
    """Prompt, better and worse completion of 3,000 pairs ordered by gold."""
    found = []
    for c in gold_comparisons(3000, seed=31):
        prompt, a, b = texts(c)
        if c.ranks[0] != c.ranks[1]:
            found.append((prompt, a, b) if c.ranks[0] < c.ranks[1] else (prompt, b, a))
    return found


def pair_accuracy(better, worse):
    return ((better > worse).mean() + (better == worse).mean() / 2).item()


@pytest.mark.parametrize("name", FEATURES)
def test_no_single_surface_feature_explains_gold(ordered, name):
    """Neither more nor less of it, nor closeness to a best value learned on one half and measured on the other."""
    assert len(ordered) >= 2000
    better, worse = (np.array([FEATURES[name](t[0], t[i]) for t in ordered], float) for i in (1, 2))
    accuracy = pair_accuracy(better, worse)
    assert max(accuracy, 1 - accuracy) < 0.63
    half = len(ordered) // 2
    best = max(
        np.quantile(better, np.linspace(0, 1, 21)),
        key=lambda centre: pair_accuracy(-abs(better[:half] - centre), -abs(worse[:half] - centre)),
    )
    assert pair_accuracy(-abs(better[half:] - best), -abs(worse[half:] - best)) < 0.63


def test_gold_orders_all_pairs_and_a_mix_of_its_parts_nearly_all(ordered):
    assert all(gold(p, a) > gold(p, b) for p, a, b in ordered)
    names = list(parts("", ""))
    x = np.array([[parts(p, a)[n] - parts(p, b)[n] for n in names] for p, a, b in ordered])
    half = len(x) // 2
    weights = minimize(lambda w: np.logaddexp(0, -x[:half] @ w).mean() + 1e-3 * w @ w, np.zeros(len(names))).x
    assert (x[half:] @ weights > 0).mean() > 0.9


def test_a_simulation_is_the_same_for_the_same_seed_and_repeats_no_prompt():
    one, two = simulate(400, seed=1), simulate(400, seed=1)
    assert one == two
    assert simulate(400, seed=2).comparisons != one.comparisons
    assert len({texts(c)[0] for c in one.comparisons}) == 400
    assert len({c.id for c in one.comparisons}) == 400
    assert {c.source for c in one.comparisons} == {"lab"}


def test_rows_belong_together():
    s = simulate(100, k=3, seed=4)
    for c, golds, writers, shown in zip(s.comparisons, s.golds, s.writers, s.shown, strict=True):
        prompt, *completions = texts(c)
        assert golds == tuple(gold(prompt, t) for t in completions)
        assert sorted(shown) == [0, 1, 2]
        assert len(writers) == 3


def test_a_rater_who_only_looks_left_shows_that_the_order_shown_is_kept():
    s = simulate(200, seed=5, raters=[Rater("left", skill=0, side_bias=50)])
    assert all(c.ranks[shown[0]] < c.ranks[shown[1]] for c, shown in zip(s.comparisons, s.shown, strict=True))
    assert Counter(shown for shown in s.shown)[0, 1] == pytest.approx(100, abs=35)
    assert s.ceiling == pytest.approx(0.5)


def test_a_perfect_rater_has_ceiling_one_and_agrees_with_gold():
    s = simulate(200, seed=6, raters=[Rater("perfect", skill=1e6)])
    for c, golds in zip(s.comparisons, s.golds, strict=True):
        if golds[0] != golds[1]:
            assert (c.ranks[0] < c.ranks[1]) == (golds[0] > golds[1])
    equal = mean(g[0] == g[1] for g in s.golds)
    assert s.gold_agreement == pytest.approx(1 - equal / 2)
    assert s.ceiling == pytest.approx(1 - equal / 2)


def test_the_ceiling_is_what_a_scorer_that_knows_the_raters_reaches():
    s = simulate(4000, seed=7)
    right = decided = 0
    for c in s.comparisons:
        prompt, a, b = texts(c)
        if c.ranks[0] != c.ranks[1]:
            decided += 1
            right += (win_probability(prompt, a, b) > 0.5) == (c.ranks[0] < c.ranks[1])
    assert right / decided == pytest.approx(s.ceiling, abs=0.02)
    assert 0.8 < s.gold_agreement < s.ceiling + 0.01 < 0.95


@pytest.mark.parametrize("k", [3, 6])
def test_rankings_agree_with_the_pairwise_probabilities(k):
    s = simulate(600, k=k, seed=8)
    expected, found = [], []
    for c in s.comparisons:
        prompt, *completions = texts(c)
        for i, j, target, weight in c.pairs():
            assert weight == pytest.approx(2 / (k * (k - 1)))
            if target == 1:
                p = win_probability(prompt, completions[i], completions[j], k=k)
                expected.append(max(p, 1 - p))
                found.append(p > 0.5)
    assert mean(found) == pytest.approx(mean(expected), abs=0.025)
    assert s.ceiling == pytest.approx(mean(expected))


def test_gold_comparisons_are_fresh_and_ranked_by_gold():
    training = [texts(c)[0] for c in simulate(300, seed=0).comparisons]
    fresh = gold_comparisons(300, k=4, seed=0, exclude=training)
    assert not {texts(c)[0] for c in fresh} & set(training)
    for c in fresh:
        prompt, *completions = texts(c)
        golds = [gold(prompt, t) for t in completions]
        assert c.strength == pytest.approx(max(golds) - min(golds))
        assert [sorted(set(golds), reverse=True).index(g) for g in golds] == list(c.ranks)


def test_a_prompt_may_come_twice_when_the_caller_says_so():
    asked = prompts(5, seed=1) * 2
    assert [texts(c)[0] for c in simulate(10, seed=1, prompts=asked).comparisons] == asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 1}, "choose 2 to 6"),
        ({"k": 7}, "choose 2 to 6"),
        ({"raters": ()}, "no raters"),
        ({"writers": ()}, "no writers"),
        ({"prompts": ["one"]}, "1 prompts for 3 comparisons"),
    ],
)
def test_what_cannot_be_simulated_is_an_error(options, message):
    with pytest.raises(ConfigError, match=message):
        simulate(3, seed=0, **options)
