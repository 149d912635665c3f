import random
from dataclasses import replace
from statistics import mean

import pytest

from guerdon.lab.gold import gold, parts, words
from guerdon.lab.world import prompts, read
from guerdon.lab.writers import WRITERS, Writer

PROMPTS = prompts(300, seed=21)
PLAIN = Writer("plain", accuracy=1, misreading=0, coverage=1, courtesy=1, detail=0, invention=0, filler=0, formatting=0)


def average(writer, part=None):
    rng = random.Random(5)
    texts = [(p, writer.write(p, rng)) for p in PROMPTS]
    return mean(parts(*t)[part] if part else gold(*t) for t in texts)


def test_writing_is_seeded():
    assert all(w.write(PROMPTS[0], random.Random(7)) == w.write(PROMPTS[0], random.Random(7)) for w in WRITERS)


def test_a_faultless_writer_states_every_fact_of_every_task():
    assert average(PLAIN, "facts") == 1
    assert average(PLAIN, "honest") == 1
    assert average(PLAIN) > 0.9
    assert average(replace(PLAIN, terse=1), "facts") == 1


@pytest.mark.parametrize(
    ("knob", "value", "part"),
    [
        ("accuracy", 0.3, "facts"),
        ("misreading", 0.5, "facts"),
        ("misreading", 0.5, "honest"),
        ("coverage", 0.3, "answers"),
        ("courtesy", 0, "polite"),
        ("courtesy", 6, "polite"),
        ("invention", 2, "honest"),
        ("filler", 3, "focus"),
        ("repetition", 1, "fresh"),
        ("flattery", 1, "focus"),
        ("garble", 0.5, "fluent"),
    ],
)
def test_each_fault_costs_gold_through_its_own_part(knob, value, part):
    faulty = replace(PLAIN, **{knob: value})
    assert average(faulty, part) < average(PLAIN, part) - 0.05
    assert average(faulty) < average(PLAIN) - 0.01


def test_writers_range_from_poor_to_excellent_and_their_quality_does_not_follow_from_length():
    quality = {w.name: average(w) for w in WRITERS}
    assert max(quality.values()) > 0.9
    assert min(quality.values()) < 0.5
    rng = random.Random(6)
    length = {w.name: mean(len(words(w.write(p, rng))) for p in PROMPTS) for w in WRITERS}
    by_length = sorted(WRITERS, key=lambda w: length[w.name])
    for group in (by_length[:4], by_length[-4:]):
        assert max(quality[w.name] for w in group) - min(quality[w.name] for w in group) > 0.2


def test_mistakes_come_from_the_prompt_and_from_out_of_the_blue():
    rng, rivals, foreign = random.Random(8), 0, 0
    for prompt in PROMPTS:
        asked = read(prompt)
        text = replace(PLAIN, accuracy=0).write(prompt, rng)
        rivals += any(rival in text for slot in asked.task.facts for rival in asked.rivals(slot) if not rival.isdigit())
        foreign += parts(prompt, text)["honest"] < 1
    assert rivals > 60
    assert foreign > 180


@pytest.mark.parametrize("prompt", ["", "?", "What is the capital of France?", "\ud800 日本"])
def test_any_prompt_gets_some_answer(prompt):
    for writer in WRITERS:
        assert writer.write(prompt, random.Random(0)).strip()
