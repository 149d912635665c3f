import math
import random
from collections import Counter

import pytest

from guerdon.lab.raters import RATERS, Judgement, Rater

PROMPT = (
    "Anna ordered lamps, coming on Monday to the garden. Ben ordered mugs, coming on Friday to the school. "
    "When and where will the order of Anna arrive?"
)
GOOD = "Hello! The order will arrive on Monday. You can pick it up at the garden. I hope this helps!"
BAD = "Hello! The order will arrive on Friday. You can pick it up at the garden. I hope this helps!"


def test_odds_by_hand():
    odds = Rater("r", tie_threshold=1).odds(math.log(3))
    assert odds.left == pytest.approx(3 / (3 + math.e))
    assert odds.right == pytest.approx(1 / (1 + 3 * math.e))
    assert sum(odds) == pytest.approx(1)
    assert Rater("r").odds(0) == (0.5, 0.5, 0)
    assert Rater("r").odds(-10_000) == (0, 1, 0)


def test_skill_multiplies_the_gold_difference():
    # facts 1 against 1/2, all other parts 1: a gold difference of 0.55 / 2
    assert Rater("r", skill=4).p_left(PROMPT, GOOD, BAD).left == pytest.approx(1 / (1 + math.exp(-1.1)))
    assert Rater("r", skill=0).p_left(PROMPT, GOOD, BAD).left == 0.5


@pytest.mark.parametrize("rater", RATERS, ids=lambda r: r.name)
def test_swapping_sides_swaps_the_odds_but_for_the_side_bias(rater):
    there, back = rater.p_left(PROMPT, GOOD, BAD), rater.p_left(PROMPT, BAD, GOOD)
    shift = math.log(there.left / (1 - there.left)) - math.log(back.right / (1 - back.right))
    assert shift == pytest.approx(2 * rater.side_bias)


@pytest.mark.parametrize(
    ("knob", "favoured"),
    [
        ("length_bias", GOOD + " The order is for Anna and it holds the lamps."),
        ("format_bias", GOOD.replace("Monday", "**Monday**")),
        ("sycophancy", "What a great question! " + GOOD),
    ],
)
def test_each_leaning_moves_the_odds(knob, favoured):
    fair, leaning = Rater("fair", skill=0), Rater("leaning", skill=0, **{knob: 1})
    assert fair.p_left(PROMPT, favoured, GOOD).left == 0.5
    assert leaning.p_left(PROMPT, favoured, GOOD).left > 0.55


def test_judgements_follow_the_closed_form():
    rater = Rater("r", skill=3, side_bias=0.4, length_bias=0.2, tie_threshold=0.5)
    rng, n = random.Random(0), 20_000
    seen = Counter(rater.judge(PROMPT, BAD, GOOD, rng).ranks for _ in range(n))
    odds = rater.p_left(PROMPT, BAD, GOOD)
    for ranks, p in zip([(0, 1), (1, 0), (0, 0)], odds, strict=True):
        assert seen[ranks] / n == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))


def test_rankings_follow_plackett_and_luce():
    rater, rng, n = Rater("r", skill=4), random.Random(1), 20_000
    texts = [GOOD, BAD, ""]
    weights = [math.exp(rater.utility(PROMPT, t)) for t in texts]
    seen = Counter(rater.rank(PROMPT, texts, rng) for _ in range(n))
    p = weights[0] / sum(weights) * weights[1] / (weights[1] + weights[2])
    assert seen[Judgement("r", (0, 1, 2))] / n == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))
    assert all(sorted(j.ranks) == [0, 1, 2] for j in seen)
