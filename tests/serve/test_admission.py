"""The queue: bounded, fair in tokens, with the completions of a prompt side by side."""

from __future__ import annotations

import pytest

from guerdon.serve.admission import QUANTUM, Entry, Estimate, FairQueue
from guerdon.serve.call import Item, Refused

X = Item(text="x")


def entries(owner: object, cost: int, n: int, **more) -> list[Entry]:
    return [Entry(owner, i, X, cost, **more) for i in range(n)]


def owners(batch: list[Entry]) -> str:
    return "".join(str(entry.owner) for entry in batch)


def test_callers_take_turns_in_tokens():
    queue = FairQueue(10**6)
    queue.put("a", entries("a", QUANTUM, 8))
    queue.put("b", entries("b", QUANTUM // 2, 8))
    assert owners(queue.take(5 * QUANTUM)) == "abbabba"
    assert owners(queue.take(10**6)) == "bbabbaaaa"


def test_a_burst_waits_behind_itself():
    queue = FairQueue(10**6)
    queue.put("eval", entries("e", 100, 1000))
    queue.put("train", entries("t", 100, 20))
    taken = owners(queue.take(50 * 100))
    assert taken.count("t") == 20
    assert queue.tokens == (1000 - taken.count("e")) * 100


def test_everything_leaves_once_and_the_account_ends_at_zero():
    queue = FairQueue(10**6)
    for key, cost in (("a", 10), ("b", 3000), ("c", 700)):
        queue.put(key, entries(key, cost, 7))
    batches = []
    while queue.tokens:
        batches.append(queue.take(2048))
    assert sorted(owners([entry for batch in batches for entry in batch])) == sorted("abc" * 7)
    assert (queue.tokens, queue.flows) == (0, {})
    assert queue.take(100) == []


def test_completions_of_a_prompt_leave_together_and_pay_for_it_once():
    queue = FairQueue(10**6)
    mixed = [Entry("ab"[i % 2], i, X, 110, 100, "ab"[i % 2]) for i in range(20)]
    queue.put("k", mixed)
    assert owners(queue.take(200)) == "a" * 10  # 110 + 9 * 10
    assert owners(queue.take(10**6)) == "b" * 10
    assert queue.tokens == 0


def test_what_nobody_waits_for_is_dropped():
    queue = FairQueue(10**6)
    one, other = object(), object()
    queue.put("k", entries(one, 5, 3) + entries(other, 7, 2))
    assert queue.drop("k", one) == 3
    assert queue.tokens == 14
    assert [entry.owner for entry in queue.take(100)] == [other, other]
    assert queue.drop("k", one) == 0


def test_one_caller_may_fill_two_thirds_and_another_still_gets_in():
    queue = FairQueue(900)
    queue.require_room("a", 600, 1.0)
    queue.put("a", entries("a", 600, 1))
    with pytest.raises(Refused) as refused:
        queue.require_room("a", 10, 12.3)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "13"})
    queue.require_room("b", 200, 1.0)
    with pytest.raises(Refused, match="divide it"):
        queue.require_room("b", 601, 1.0)
    assert queue.full


def test_the_estimate_follows_what_was_measured():
    estimate = Estimate(max_length=1000)
    item = Item(messages=[{"role": "user", "content": "x" * 400}])
    for _ in range(50):
        estimate.learn(100_000, 25_000)
    assert estimate.entry(None, 0, item).cost == pytest.approx(103, abs=1)  # 412 characters
    assert estimate.entry(None, 0, Item(text="x" * 10**6)).cost == 1000  # never more than the context
    assert estimate.entry(None, 0, Item(ids=(1,) * 77)).cost == pytest.approx(77, abs=1)


@pytest.mark.parametrize("messages", [[], ["x"], [{}], [{"content": 3}], [{"role": [], "content": "a"}] * 2, 7])
def test_what_has_no_shape_costs_a_token(messages):
    assert Estimate(1000).entry(None, 0, Item(messages=messages)).cost <= 4


def test_completions_of_a_prompt_are_known_by_it():
    estimate = Estimate(1000)
    talk = [{"role": "user", "content": "p" * 300}, {"role": "assistant", "content": "c" * 30}]
    one, two = (estimate.entry(None, i, Item(messages=list(map(dict, talk)))) for i in range(2))
    assert one.group == two.group
    assert 0 < one.prompt_cost < one.cost
