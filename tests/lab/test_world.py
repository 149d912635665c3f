import random

import pytest

from guerdon.lab.tasks import POOLS, TASKS
from guerdon.lab.world import draw, prompts, read, slots, stem
from guerdon.types import DataError


def test_prompts_are_distinct_and_the_same_for_the_same_seed():
    texts = prompts(5000, seed=3)
    assert len(set(texts)) == 5000
    assert texts[:100] == prompts(100, seed=3)
    assert texts[:100] != prompts(100, seed=4)
    assert max(len(text.split()) for text in texts) <= 60


def test_excluded_prompts_do_not_come_back():
    first = prompts(500, seed=0)
    assert not set(first) & set(prompts(500, seed=0, exclude=first))


def test_asking_for_more_prompts_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr("guerdon.lab.world.TASKS", TASKS[:1])
    monkeypatch.setattr("guerdon.lab.world.draw", lambda template, rng: draw(template, random.Random(0)))
    with pytest.raises(DataError, match="only 2 new prompts"):
        prompts(3, seed=0)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_prompt_is_read_back_as_it_was_made(task):
    rng = random.Random(1)
    for ask in task.asks:
        for _ in range(30):
            values = draw(ask, rng)
            asked = read(ask.format(**values))
            assert asked is not None
            assert asked.task is task
            assert values.items() <= asked.values.items()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_right_answer_can_be_written_from_every_prompt(task):
    for ask in task.asks:
        asked = read(ask.format(**draw(ask, random.Random(2))))
        needed = {slot for group in task.answers for answer in group for slot in slots(answer)}
        assert needed | set(task.facts) <= asked.values.keys()
        for group in task.answers:
            stated = [set(slots(answer)) & set(task.facts) for answer in group]
            assert all(s == stated[0] for s in stated), "rewording may not lose a needed value"
        assert set(task.facts) <= set(slots(task.terse))
        assert all(stem(slot) in POOLS for slot in asked.values)


def test_arithmetic_and_rivals_by_hand():
    asked = read("There were 17 mugs in the shop of Anna. 8 more came in, and Ben bought 3. How many mugs are left?")
    assert asked.values["many9"] == "22"
    order = read(
        "Anna ordered lamps, coming on Monday to the garden. Ben ordered mugs, coming on Friday to the school. "
        "When and where will the order of Anna arrive?"
    )
    assert order.rivals("day") == {"Friday"}
    assert order.rivals("place") == {"school"}


@pytest.mark.parametrize(
    "text", ["", "What is the capital of France?", "\ud800", "a" * 100_000, "Anna ordered lamps, coming"]
)
def test_other_texts_are_not_of_this_world(text):
    assert read(text) is None
