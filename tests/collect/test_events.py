"""Judgements are events: stored once, never changed, and read back as they were."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import sqlalchemy as sa

from guerdon.collect.store import Store
from guerdon.types import DataError, Judgement
from tests.collect.work import answer_next, answered, question, study


def test_a_judgement_comes_back_as_it_went_in(store):
    study(store, 1)
    given = store.next("s", "a")
    sent = answered(
        given,
        ranks=(0, 1),
        strength=2.0,
        attributes={"clear": (1.0, None)},
        rationale="kürzer\n<b>",
        edited="better still",
        shown_at=1.5,
        submitted_at=9.25,
    )
    store.submit(sent, "s", assignment=given.id)
    (back,) = store.judgements("s")
    assert replace(back, first_input_at=0.0) == replace(sent, first_input_at=0.0)
    assert math.isnan(back.first_input_at)


def test_the_second_delivery_is_known_and_other_content_is_an_error(store):
    study(store, 1)
    given = store.next("s", "a")
    sent = answered(given, shown_at=math.nan)
    assert store.submit(sent, "s", assignment=given.id) == "stored"
    assert store.submit(sent, "s", assignment=given.id) == "known"
    assert store.submit(sent, "s") == "known"
    with pytest.raises(DataError, match="another ranks"):
        store.submit(replace(sent, ranks=(1, 0)), "s", assignment=given.id)
    with pytest.raises(DataError, match="another rater"):
        store.submit(replace(sent, rater="b"), "s", assignment=given.id)
    assert store.counts("s").judgements == 1


def test_a_second_answer_to_one_assignment_is_refused(store):
    study(store, 1)
    given = answer_next(store, "a")
    with pytest.raises(DataError, match="send `replaces`"):
        store.submit(answered(given), "s", assignment=given.id)


def test_another_raters_assignment_is_refused(light):
    study(light, 2)
    mine = light.next("s", "a")
    with pytest.raises(DataError, match="not this rater's"):
        light.submit(replace(answered(mine), rater="b"), "s", assignment=mine.id)
    assert light.assignment(mine.id, "b") is None


def test_what_a_client_says_about_order_and_arm_does_not_count(light):
    study(light, 1)
    given = light.next("s", "a")
    claimed = replace(answered(given), order=given.order[::-1], arm="gold", probability=1.0)
    light.submit(claimed, "s", assignment=given.id)
    (back,) = light.judgements("s")
    assert (back.order, back.arm, back.probability) == (given.order, "random", given.probability)


@pytest.mark.parametrize("change", ["UPDATE judgement SET rater = 'x'", "DELETE FROM judgement", "DELETE FROM audit"])
def test_the_database_itself_refuses_to_change_or_remove_a_judgement(store, change):
    study(store, 1)
    answer_next(store, "a")
    if "audit" in change:
        store.write(lambda db: db.execute(sa.text("INSERT INTO audit (at, person, action) VALUES (1, 'a', 'test')")))
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        store.write(lambda db: db.execute(sa.text(change)))
    assert store.counts("s").judgements == len(list(store.judgements("s"))) == 1


def test_only_a_standing_judgement_of_the_same_rater_and_question_can_be_replaced(light):
    study(light, 3, overlap=2)
    given = answer_next(light, "a")
    (first,) = light.judgements("s")
    second = replace(answered(given), replaces=first.id)
    light.submit(second, "s")
    with pytest.raises(DataError, match="send `replaces`"):
        light.submit(replace(answered(given), replaces=first.id), "s")
    other = replace(answered(given), rater="b", replaces=first.id)
    with pytest.raises(DataError, match="no judgement of this rater"):
        light.submit(other, "s")


def test_a_failing_writer_does_not_take_its_neighbours_along(store):
    """Writers share a commit; each stands behind its own savepoint."""
    study(store, 3)

    def fail(db):
        db.execute(sa.text("INSERT INTO counter (study, name, value) VALUES (1, 'broken', 1)"))
        raise DataError("no")

    futures = [store.database.submit(fail)]
    given = store.next("s", "a")
    futures += [store.database.submit(fail) for _ in range(3)]
    assert store.submit(answered(given), "s", assignment=given.id) == "stored"
    for future in futures:
        with pytest.raises(DataError):
            future.result()
    assert not store.read(lambda db: db.scalar(sa.text("SELECT count(*) FROM counter WHERE name = 'broken'")))


def test_model_raters_are_stored_but_take_no_humans_place(light):
    study(light, 1, overlap=1)
    for order in ((0, 1), (1, 0)):
        vote = Judgement(f"m{order}", "model:m", "model", question(0), order, "ranked", (0, 1))
        assert light.submit(vote, "s") == "stored"
    assert light.next("s", "a") is not None
    assert len(list(light.judgements("s", kinds=["model"]))) == 2
    assert not list(light.judgements("s", kinds=["human"]))
    assert not list(light.unrated("s", "model:m"))
    assert [q.id for q in light.unrated("s", "model:other")] == ["q0"]


def test_a_judgement_from_elsewhere_counts_and_its_rater_is_not_asked_again(light):
    study(light, 1, overlap=2)
    light.submit(Judgement("x", "a", "human", question(0), (), "ranked", (0, 1)), "s")
    assert light.next("s", "a") is None
    assert answer_next(light, "b")
    assert light.next("s", "c") is None


def test_a_question_with_other_content_is_refused(light):
    study(light, 1)
    other = replace(question(0), prompt=({"role": "user", "content": "something else"},))
    with pytest.raises(DataError, match="other content"):
        light.submit(Judgement("x", "a", "human", other, (), "ranked", (0, 1)), "s")
    with pytest.raises(DataError, match="has no question"):
        light.submit(Judgement("x", "a", "human", question(77), (), "ranked", (0, 1)), "s")


def test_everything_is_there_after_closing_and_opening(url):
    with Store.open(url) as store:
        study(store, 3)
        answer_next(store, "a")
    with Store.open(url) as store:
        assert len(list(store.judgements("s"))) == store.counts("s").judgements == 1
        since = next(store.stored("s")).seq
        assert not list(store.judgements("s", since=since))


def test_raters_whose_names_begin_alike_are_counted_apart(store):
    study(store, 3, overlap=2)
    names = ["a" * 58 + last for last in "bc"]
    for name in names:
        answer_next(store, name)
    assert store.counts("s").raters == dict.fromkeys(names, 1)
