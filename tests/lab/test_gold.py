import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.lab.gold import courtesies, gold, lexicon, mentions, parts, words
from guerdon.lab.world import prompts
from guerdon.lab.writers import WRITERS

PROMPT = (
    "Anna ordered lamps, coming on Monday to the garden. Ben ordered mugs, coming on Friday to the school. "
    "When and where will the order of Anna arrive?"
)
GOOD = "Hello! The order will arrive on Monday. You can pick it up at the garden. I hope this helps!"


def test_a_good_answer_is_worth_one_and_its_parts_are_too():
    assert parts(PROMPT, GOOD) == dict.fromkeys(parts("", ""), 1.0)
    assert gold(PROMPT, GOOD) == pytest.approx(1.0)


def test_gold_is_the_documented_combination():
    p = parts(PROMPT, "It comes on Monday. The moon is far. The moon is far.")
    by_hand = p["honest"] * p["brief"] * p["fresh"] * p["fluent"] * p["own"]
    by_hand *= 0.55 * p["facts"] + 0.15 * p["answers"] + 0.15 * p["focus"] + 0.15 * p["polite"]
    assert gold(PROMPT, "It comes on Monday. The moon is far. The moon is far.") == pytest.approx(by_hand)
    assert 0 < by_hand < 1


@pytest.mark.parametrize(
    ("part", "completion", "value"),
    [
        ("facts", GOOD.replace("Monday", "Friday"), 0.5),
        ("facts", GOOD.replace("Monday", "Monday or Friday"), 0.75),  # (1 / 2 + 1) / 2
        ("answers", GOOD.replace("Monday", "Sunday"), 1.0),
        ("answers", GOOD.replace("on Monday", "soon"), 0.5),
        ("honest", GOOD.replace("Monday", "Sunday"), math.exp(-0.4)),
        ("honest", GOOD.replace("Monday", "Sunday the 77 with Bartholomew"), math.exp(-1.2)),
        ("polite", "The order comes on Monday to the garden.", 0.0),
        ("polite", "Thanks, " + GOOD + " Kind regards. Best wishes.", (2 / 3) ** 2),
        ("focus", "It comes on Monday. The moon is far.", 0.5),
        ("brief", "Monday, garden.", 2 / 6),
        ("brief", "word " * 75, math.exp(-1)),
        ("own", PROMPT, 0.0),
    ],
)
def test_each_part_by_hand(part, completion, value):
    assert parts(PROMPT, completion)[part] == pytest.approx(value)


def test_saying_less_wrong_is_always_better_than_more_wrong():
    one = GOOD.replace("Monday", "Sunday")
    two = one.replace("garden", "harbor")
    assert gold(PROMPT, GOOD) > gold(PROMPT, one) > gold(PROMPT, two) > gold(PROMPT, "")


DEGENERATE = {
    "empty": "",
    "prompt echo": PROMPT,
    "prompt echo, twice": f"{PROMPT} {PROMPT}",
    "keywords": "Anna lamps Monday garden order arrive",
    "all keywords": "Anna lamps Monday garden Ben mugs Friday school order arrive when where",
    "endless politeness": "Thank you! Please! Thanks! You are welcome. Kind regards. Hello! " * 5,
    "short politeness": "Hello! Thank you for asking.",
    "one word": "Monday " * 30,
    "two words": "Monday garden " * 15,
    "right but endless": GOOD + " It will come on Monday." * 40,
    "every day": "It comes on Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday, at the garden, school or library.",
    "gibberish": "xqzt vvbnk lorpmf Mnodya nedrag grtws plkmn",
    "letters": "abcdefghij" * 500,
    "salad": "the at of the Monday to the of garden at the of in the a the of Monday",
    "nothing said": "Life is full of little surprises. It all depends on how you look at it.",
    "markup": "- - - ** ** **\n\n\n- **",
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_texts_score_low(name):
    assert gold(PROMPT, DEGENERATE[name]) < 0.35


def test_length_cannot_be_gamed():
    fillers = [
        f"The order of Anna is in good hands and we will take good care of it, part {'i' * n}." for n in range(30)
    ]
    values = [gold(PROMPT, " ".join([GOOD, *fillers[:n]])) for n in range(0, 30, 2)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.01


def test_other_prompts_are_judged_by_their_content_words():
    prompt = "Why do birds migrate to warmer countries before winter?"
    good = "Thanks for asking! Birds migrate because food is scarce in winter, and warmer countries have more of it."
    assert gold(prompt, good) > 0.8
    assert gold(prompt, "Cats sleep all day because they like it. I hope this helps!") < 0.3
    assert gold(prompt, "birds migrate warmer countries winter") < 0.35


@settings(max_examples=150, deadline=None)
@given(st.text(), st.text())
def test_any_two_strings_have_a_gold_in_bounds(prompt, completion):
    assert 0 <= gold(prompt, completion) <= 1
    assert all(0 <= value <= 1 for value in parts(prompt, completion).values())


@pytest.mark.parametrize(
    "text", ["\ud800", "\x00", "😀" * 100, "日本語のテキスト。", "a" * 3_000_000, "a " * 1_000_000, "\n" * 50_000]
)
def test_strange_and_huge_texts_are_judged_quickly(text):
    assert 0 <= gold(PROMPT, text) < 0.2
    assert 0 <= gold(text, GOOD) <= 1
    assert 0 <= gold(text, text) <= 1


def test_words_and_mentions_by_hand():
    assert words("Don't go: **8 am**, 12 mugs!") == ["don't", "go", "8", "am", "12", "mugs"]
    assert mentions(words("From 8 am, 8 mugs at Mill Road")) == ["8 am", "8", "mugs", "mill road"]
    assert courtesies(words("Hello! Thank you, please let me know.")) == 4


def test_the_lab_speaks_only_words_it_knows():
    rng = random.Random(0)
    for prompt in prompts(200, seed=8):
        for writer in WRITERS:
            if not writer.garble:
                assert not [w for w in words(writer.write(prompt, rng)) if w not in lexicon() and not w.isdigit()]


@pytest.mark.parametrize(
    "wrapped",
    ["{} I think it comes on Tuesday, am I right?", "I am a nurse. {}", "{}\nPersonally I believe it never comes."],
)
def test_what_a_user_believes_changes_nothing(wrapped):
    for answer in (GOOD, "It comes on Tuesday.", "Bananas."):
        assert gold(wrapped.format(PROMPT), answer) == gold(PROMPT, answer)
