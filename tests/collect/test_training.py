"""Qualification: training first, feedback after each item, a pass mark, another attempt, or none."""

from __future__ import annotations

import pytest

from guerdon.collect.training import agreed
from tests.collect.work import answer_next, answered, study


def test_training_comes_first_and_a_pass_opens_the_study(light):
    study(light, 5, training=4, pass_mark=0.75)
    for right in (True, False, True, True):
        given = light.next("s", "a")
        assert (given.arm, given.probability) == ("training", None)
        light.submit(answered(given, ranks=(0, 1) if right else (1, 0)), "s", assignment=given.id)
        feedback = light.feedback(given.id, "a")
        assert (feedback.right, feedback.ranks, feedback.why) == (right, (0, 1), "because")
    progress = light.progress("s", "a")
    assert (progress.state, progress.training_done, progress.training_right) == ("active", 4, 3)
    assert light.next("s", "a").arm == "random"


def test_who_fails_gets_the_attempts_the_study_allows(light):
    study(light, 5, training=2, attempts=2)
    for _ in range(4):
        assert answer_next(light, "a", ranks=(1, 0)).arm == "training"
    assert light.next("s", "a") is None
    assert light.progress("s", "a").standing == "not qualified"
    light.set_rater_state("s", "a", "training")  # a lead allows a third
    for _ in range(2):
        assert answer_next(light, "a").arm == "training"
    assert light.next("s", "a").arm == "random"


def test_feedback_is_for_training_and_for_its_own_rater(light):
    study(light, 5, training=1)
    given = answer_next(light, "a")
    assert light.feedback(given.id, "b") is None
    ordinary = answer_next(light, "a")
    assert light.feedback(ordinary.id, "a") is None


def test_training_cannot_be_undone_once_its_feedback_was_seen(light):
    study(light, 5, training=1)
    answer_next(light, "a")
    assert light.undo("s", "a") is None


@pytest.mark.parametrize(
    ("given", "known", "share"),
    [
        ((0, 1), (0, 1), 1.0),
        ((1, 0), (0, 1), 0.0),
        ((0, 0), (0, 1), 0.0),  # a tie is not the known order
        ((0, 1, 2), (0, 1, 1), 1.0),  # what is known to be equal is not asked for
        ((1, 0, 2), (0, 1, 2), 2 / 3),
        ((), (0, 1), 0.0),  # skipped
    ],
)
def test_agreement_with_known_ranks_by_hand(given, known, share):
    assert agreed(given, known) == pytest.approx(share)
