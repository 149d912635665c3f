"""The queue in front of a scorer, and rewards by name."""

from __future__ import annotations

import threading

import pytest
from tiny_models import chat

from guerdon.adapters.source import Queue, scorer_of
from guerdon.optimize.rewards import parts_of
from guerdon.types import ConfigError, Score, ScoringError


class Counting:
    """The number of words of an answer; remembers the batches it was given and how many threads were inside at once."""

    def __init__(self):
        self.batches, self.inside, self.most_inside = [], 0, 0
        self.gate = threading.Event()
        self.gate.set()

    def score(self, conversations):
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.gate.wait(5)
        self.batches.append(len(conversations))
        self.inside -= 1
        if any(conversation[-1]["content"] == "break" for conversation in conversations):
            raise ScoringError("broken")
        return [Score(float(len(conversation[-1]["content"].split()))) for conversation in conversations]


def test_single_requests_from_many_threads_are_scored_in_batches_by_one_thread():
    scorer, found = Counting(), {}
    queue = Queue(scorer, most=8)
    scorer.gate.clear()  # until all have asked

    def ask(number):
        found[number] = queue.submit(chat("q", "w " * number))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(33)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scorer.gate.set()
    assert {number: future.result(5) for number, future in found.items()} == {n: float(n) for n in range(33)}
    assert scorer.most_inside == 1
    assert sum(scorer.batches) == 33
    assert max(scorer.batches) == 8
    assert len(scorer.batches) <= 6


def test_an_error_reaches_those_who_asked_and_nobody_else():
    queue = Queue(Counting(), most=1)
    first, second, third = (queue.submit(chat("q", text)) for text in ("a", "break", "a b"))
    assert first.result(5) == 1.0
    with pytest.raises(ScoringError, match="broken"):
        second.result(5)
    assert third.result(5) == 2.0


def test_a_request_that_is_taken_back_is_not_scored_and_stops_nothing():
    scorer = Counting()
    queue = Queue(scorer, most=1)
    scorer.gate.clear()
    first, second, third = (queue.submit(chat("q", text)) for text in ("a", "break", "a b"))
    second.cancel()
    scorer.gate.set()
    assert (first.result(5), third.result(5)) == (1.0, 2.0)
    assert second.cancelled()


def test_a_row_that_is_no_conversation_is_not_shown_to_the_scorer():
    scorer = Counting()
    score = Queue(scorer).submit("the prompt is missing").result(5)
    assert (score.status, score.reason) == ("error", "the prompt is missing")
    assert scorer.batches == []


def test_rewards_by_name(make_backbone, tmp_path):
    from guerdon.model.reward import RewardModel

    base = make_backbone(tmp_path / "base")
    RewardModel.load(base, device="cpu").save(tmp_path / "a")
    RewardModel.load(base, device="cpu", seed=1).save(tmp_path / "b")
    rows = [chat("hello", "world"), chat("hello", "how are you")]
    alone = RewardModel.load(tmp_path / "a", device="cpu").score(rows)
    assert scorer_of(str(tmp_path / "a"), device="cpu").score(rows) == alone
    both = scorer_of([f"model={tmp_path}/a,{tmp_path}/b:2", "length=words:2:9:1"], device="cpu", rule="min")
    scores = both.score(rows)
    assert [parts_of(score)["length"] for score in scores] == [-1.0, 0.0]
    assert [float(score) for score in scores] == pytest.approx([min(score.members) for score in scores])
    scorer = Counting()
    assert scorer_of(scorer) is scorer
    with pytest.raises(ConfigError, match="has no trained score head"):
        scorer_of(str(base), device="cpu")
