"""Who is given what: no more raters than wanted, locks that end, sides that balance, hidden items that look like others."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from dataclasses import replace

import pytest

from guerdon.types import ConfigError, DataError
from tests.collect.work import answer_all, answer_next, answered, kept, question, recounted, study


def test_two_raters_at_once_never_share_the_last_place(store):
    """Eight threads ask at the same time for questions that want one rater each: every question goes out once."""
    study(store, 40, overlap=1)
    given, start = [], threading.Barrier(8)

    def work(rater):
        start.wait()
        for _ in range(10):
            if (assignment := store.next("s", rater)) is None:
                return
            given.append(assignment.question.id)
            store.submit(answered(assignment), "s", assignment=assignment.id)

    threads = [threading.Thread(target=work, args=(f"r{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == sorted(f"q{i}" for i in range(40))


def test_overlap_is_reached_and_not_exceeded_and_no_rater_twice(light):
    study(light, 20, overlap=3)
    work = {rater: answer_all(light, rater) for rater in "abcd"}
    per_question = Counter(a.question.id for given in work.values() for a in given)
    assert set(per_question.values()) == {3}
    for given in work.values():
        assert len({a.question.id for a in given}) == len(given)
    assert light.progress("s", "a").standing == "nothing left"


def test_asking_again_gives_the_same_assignment(light):
    study(light, 5)
    first = light.next("s", "a")
    again = light.next("s", "a")
    assert (first.id, first.order) == (again.id, again.order)


def test_a_second_question_can_be_had_beside_the_first_within_the_limit(light):
    study(light, 5, limit=2)
    first = light.next("s", "a")
    second = light.next("s", "a", beside=[first.id])
    assert second.question.id != first.question.id
    assert light.next("s", "a", beside=[first.id]).id == second.id
    assert light.next("s", "a", beside=[first.id, second.id]) is None


def test_an_expired_lock_goes_back_and_its_late_answer_is_still_stored(store, clock):
    study(store, 1, overlap=1, lock_seconds=60)
    slow = store.next("s", "slow")
    assert store.next("s", "quick") is None
    clock.now += 61
    quick = store.next("s", "quick")
    assert quick.question.id == slow.question.id
    assert store.submit(answered(quick), "s", assignment=quick.id) == "stored"
    assert store.submit(answered(slow), "s", assignment=slow.id) == "stored"
    late = {s.judgement.rater: s.late for s in store.stored("s")}
    assert late == {"quick": False, "slow": True}
    assert store.counts("s").late == 1


def test_who_comes_back_after_the_lock_gets_the_question_as_it_was_shown(light, clock):
    study(light, 1, overlap=1, lock_seconds=60)
    first = light.next("s", "a")
    clock.now += 61
    light.next("s", "b")  # takes it, and lets go of it
    clock.now += 61
    again = light.next("s", "a")
    assert (again.id, again.order) == (first.id, first.order)


def test_the_limit_stops_a_rater_and_progress_says_why(light):
    study(light, 10, limit=4)
    assert len(answer_all(light, "a")) == 4
    assert light.progress("s", "a").standing == "limit reached"
    assert light.progress("s", "b").standing == "go on"


def test_a_question_that_is_refused_too_often_is_not_asked_any_more(light):
    study(light, 1, overlap=2, give_up=2)
    for rater in "ab":
        assert answer_next(light, rater, answer="skip", rationale="unclear")
    assert light.next("s", "c") is None
    assert light.counts("s").open == 0


def test_a_skip_leaves_the_place_to_another_rater(light):
    study(light, 1, overlap=1)
    answer_next(light, "a", answer="skip")
    assert light.next("s", "a") is None
    assert answer_next(light, "b")


def test_undo_gives_the_question_back_and_the_old_answer_stands_until_the_new_one(store):
    study(store, 3, overlap=1)
    first = answer_next(store, "a", ranks=(0, 1))
    back = store.undo("s", "a")
    assert back.id == first.id
    assert back.order == first.order
    old = next(store.current("s"))
    assert back.replaces == old.id
    assert store.next("s", "a").id == back.id  # also after the page was loaded again
    new = answered(back, ranks=(1, 0))
    assert store.submit(new, "s", assignment=back.id) == "stored"
    assert [j.id for j in store.current("s")] == [new.id]
    assert [j.id for j in store.judgements("s")] == [old.id, new.id]
    assert store.counts("s").replaced == 1


def test_an_undo_that_is_never_used_changes_nothing(light, clock):
    study(light, 2, lock_seconds=60)
    answer_next(light, "a")
    before = [j.id for j in light.current("s")]
    light.undo("s", "a")
    clock.now += 61
    following = light.next("s", "a")
    assert following.replaces == ""
    assert [j.id for j in light.current("s")] == before


@pytest.mark.parametrize(("k", "raters", "overlap"), [(2, 6, 3), (4, 8, 4), (3, 5, 2)])
def test_sides_are_balanced_by_design(light, k, raters, overlap):
    """For each question within one showing, for each rater within 1 % of even, over everything that was answered."""
    study(light, 60, k=k, overlap=overlap)
    names, rng = [f"r{i}" for i in range(raters)], random.Random(0)
    while names:
        rater = rng.choice(names)
        if answer_next(light, rater) is None:
            names.remove(rater)
    per_question: Counter[tuple[str, int, int]] = Counter()
    per_rater: Counter[tuple[str, int, int]] = Counter()
    items: Counter[str] = Counter()
    for j in light.judgements("s"):
        items[j.rater] += 1
        for position, candidate in enumerate(j.order):
            per_question[j.question.id, candidate, position] += 1
            per_rater[j.rater, candidate, position] += 1
    off = 0
    for i in range(60):
        cells = [per_question[f"q{i}", c, p] for c in range(k) for p in range(k)]
        off += max(cells) - min(cells) > 1
    assert off <= 60 * 0.05
    for (rater, _, _), count in per_rater.items():
        assert abs(count - items[rater] / k) <= 2  # of 24 and more


def test_a_hidden_repeat_comes_late_and_with_its_sides_swapped(light):
    study(light, 200, overlap=1, repeats=0.3)
    given = answer_all(light, "a", 150)
    first = {a.question.id: (n, a) for n, a in enumerate(given) if a.arm == "random"}
    repeats = [(n, a) for n, a in enumerate(given) if a.arm == "repeat"]
    assert len(repeats) >= 25
    assert len({a.question.id for _, a in repeats}) == len(repeats)
    for n, again in repeats:
        at, original = first[again.question.id]
        assert n - at > 20
        assert again.order == original.order[::-1]


def test_gold_looks_like_any_other_question_and_comes_once_to_each_rater(light):
    light.create_study("g", _settings(gold=0.2))
    light.add_questions("g", [question(i) for i in range(150)])
    items = [question(1000 + i) for i in range(12)]
    light.add_questions("g", items, kind="gold", gold={item.id: (0, 1) for item in items})
    seen = []
    for _ in range(120):
        given = light.next("g", "a")
        seen.append(given)
        light.submit(answered(given), "g", assignment=given.id)
    gold = [a for a in seen if a.arm == "gold"]
    assert len(gold) == 12 == len({a.question.id for a in gold})
    assert light.gold("g")[gold[0].question.id] == (0, 1)
    shown = {name: getattr(gold[0].question, name) for name in ("prompt", "completions", "models", "source")}
    assert "ranks" not in repr(shown)


def _settings(**values):
    from guerdon.collect.settings import Settings

    return Settings(**{"repeats": 0.0, "gold": 0.0, "attention": 0.0, **values})


def test_gold_and_repeats_are_not_asked_when_no_ordinary_question_is_left(light):
    light.create_study("g", _settings(gold=0.5))
    item = question(1)
    light.add_questions("g", [item], kind="gold", gold={item.id: (0, 1)})
    assert light.next("g", "a") is None


def test_known_answers_must_be_given_and_must_decide_something(light):
    light.create_study("g", _settings())
    with pytest.raises(ConfigError, match="needs 2 known ranks"):
        light.add_questions("g", [question(1)], kind="gold")
    with pytest.raises(ConfigError, match="all equal"):
        light.add_questions("g", [question(1)], kind="gold", gold={"q1": (0, 0)})
    with pytest.raises(ConfigError, match="no known answer"):
        light.add_questions("g", [question(1)], gold={"q1": (0, 1)})


def test_the_probability_of_the_random_arm_is_one_over_what_was_left(light):
    study(light, 10, overlap=1)
    chances = [a.probability for a in answer_all(light, "a")]
    assert chances == pytest.approx([1 / n for n in range(10, 0, -1)])


def test_running_totals_agree_with_a_recount_after_anything(store, clock):
    """200 random steps of six raters: ask, answer, skip, undo, let the lock expire, answer late, change the overlap."""
    study(store, 12, overlap=2, lock_seconds=60, repeats=0.1, give_up=2)
    rng, held = random.Random(4), []
    for step in range(200):
        rater = f"r{rng.randrange(6)}"
        action = rng.random()
        if action < 0.6:
            if given := store.next("s", rater):
                held.append(given)
        elif action < 0.7:
            if given := store.undo("s", rater):
                held.append(given)
        elif action < 0.75:
            clock.now += 40
        if held and action > 0.3:
            given = held.pop(rng.randrange(len(held)))
            kind = rng.choice(["ranked", "ranked", "ranked", "all_bad", "skip"])
            with contextlib.suppress(DataError):  # answered before, or undone and answered since
                store.submit(answered(given, answer=kind), "s", assignment=given.id)
        if step == 100:
            store.change_settings("s", _settings(overlap=3, lock_seconds=60, repeats=0.1, give_up=2))
        if step % 25 == 24:
            assert store.read(kept) == store.read(recounted)


def test_a_paused_study_gives_nothing_and_takes_what_was_given(light):
    study(light, 3)
    given = light.next("s", "a")
    light.set_state("s", "paused")
    assert light.next("s", "b") is None
    assert light.progress("s", "b").standing == "study paused"
    assert light.submit(answered(given), "s", assignment=given.id) == "stored"


def test_a_rater_is_told_how_many_are_left(light):
    """Those at hand among them; with a limit no more than that, without one all that are open to this rater."""
    study(light, 7, overlap=1)
    assert light.progress("s", "a").left == 7
    light.next("s", "a")
    assert light.progress("s", "a").left == 7
    answer_all(light, "a", 2)
    answer_all(light, "b", 3)
    assert [light.progress("s", rater).left for rater in "abc"] == [2, 2, 2]
    light.next("s", "b")
    assert [light.progress("s", rater).left for rater in "abc"] == [1, 2, 1]
    light.change_settings("s", replace(light.study("s").settings, limit=3))
    assert [light.progress("s", rater).left for rater in "abc"] == [1, 0, 1]
    answer_all(light, "a")
    assert light.progress("s", "a").left == 0
