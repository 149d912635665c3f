"""A study judged by a model: both orders, nothing twice, nothing guessed, and what it cost."""

from __future__ import annotations

import re

import pytest
from chat_server import ChatServer, completion

from guerdon.collect import chat_api, rate
from guerdon.collect.ai_rater import Guide
from guerdon.collect.both_orders import both_orders
from guerdon.collect.chat_api import ChatApi, ChatError, Prices
from guerdon.collect.settings import Settings
from guerdon.collect.spending import spent
from guerdon.collect.store import Store
from guerdon.types import Judgement, Question

GUIDE, PRICES = Guide("Prefer the longer answer."), Prices(1.0, 10.0)


def questions(n, k=2):
    return [
        Question(
            prompt=({"role": "user", "content": f"Question {i}?"},),
            completions=tuple(
                ({"role": "assistant", "content": f"{i} " + "word " * (1 + (i + j) % k)},) for j in range(k)
            ),
            id=f"q{i}",
        )
        for i in range(n)
    ]


def longer(body):
    """An honest judge: prefers the longer answer wherever it stands."""
    a, b = re.findall(r"\[answer \w \w+\]\n(.*?)\n\[end", body["messages"][1]["content"], re.DOTALL)
    return completion('{"verdict": "%s", "strength": 1}' % ("A" if len(a) > len(b) else "B"), tokens=(100, 20))


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_api, "_FIRST_BACKOFF", 0.01)
    with Store.open(str(tmp_path / "study.db")) as store:
        store.create_study("s", Settings(k=0))
        store.add_questions("s", questions(8))
        yield store


@pytest.fixture
def serve():
    made = []

    def start(answer):
        made.append(ChatServer(answer))
        return ChatApi(made[-1].url, connections=4, retries=1)

    yield start
    for server in made:
        server.stop()


def run(store, api, **options):
    return rate.rate(store, "s", api, "judge", GUIDE, prices=PRICES, **options)


def test_every_question_is_asked_both_ways_and_stored_as_a_model(study, serve):
    api = serve(longer)
    done = run(study, api)
    stored = list(study.judgements("s"))
    assert (done.stored, done.unreadable, done.failed, len(stored)) == (16, 0, 0, 16)
    for judgement in stored:
        lengths = [len(c[0]["content"]) for c in judgement.question.completions]
        assert judgement.kind == "model"
        assert judgement.rater == f"ai/{GUIDE.name}/judge"
        assert judgement.ranks.index(0.0) == lengths.index(max(lengths))
        assert judgement.probability is None
    for i in range(8):
        orders = {j.order for j in stored if j.question.id == f"q{i}"}
        assert orders == {(0, 1), (1, 0)}
    assert len({j.order for j in list(rate.jobs(study, "s", "nobody"))[::2]}) == 2  # which order comes first varies
    assert (done.orders.first, done.orders.same, done.orders.flipped) == (0.5, 1.0, 0.0)
    assert list(study.judgements("s", kinds=("human",))) == []


def test_what_was_spent_is_stored_and_a_second_run_asks_nothing(study, serve):
    api = serve(longer)
    run(study, api)
    [row] = spent(study, "s")
    assert (row.purpose, row.requests, row.prompt_tokens, row.completion_tokens) == ("rate", 16, 1600, 320)
    assert row.cost == pytest.approx((1600 * 1 + 320 * 10) / 1e6)
    again = run(study, api)
    assert (again.stored, api.usage.calls) == (0, 16)
    other = rate.rate(study, "s", api, "judge", Guide("Another rubric."), limit=1)
    assert (other.stored, other.rater != again.rater) == (2, True)
    assert {r.rater: r.cost for r in spent(study, "s")}[other.rater] is None  # no price was given


def test_a_judge_that_likes_the_first_is_found_out(study, serve):
    done = run(study, serve(lambda body: '{"verdict": "A"}'))
    assert (done.orders.first, done.orders.same, done.orders.flipped) == (1.0, 0.0, 1.0)
    assert "100.0%" in done.render()
    first = [j for j in study.judgements("s") if j.order == (0, 1)]
    assert all(j.ranks == (0.0, 1.0) for j in first)  # two judgements that contradict each other, not one tie


def test_what_cannot_be_read_is_counted_never_stored_and_asked_again(study, serve):
    broken = {"on": True}

    def answer(body):
        return "Answer A, I think." if broken["on"] and "Question 3" in body["messages"][1]["content"] else longer(body)

    rows, api = [], serve(answer)
    done = run(study, api, unread=rows.append)
    assert (done.stored, done.unreadable) == (14, 2)
    assert {(row.question, row.reply) for row in rows} == {("q3", "Answer A, I think.")}
    assert "2 times: the reply holds no JSON object" in done.render()
    assert not [j for j in study.judgements("s") if j.question.id == "q3"]
    broken["on"] = False
    assert (run(study, api).stored, len(list(study.judgements("s")))) == (2, 16)


def test_a_run_that_was_killed_between_the_two_orders_asks_for_the_other_one(study, serve):
    api = serve(longer)
    job = next(rate.jobs(study, "s", rate.rater_name("judge", GUIDE)))
    calls = {"n": 0}

    def dies(count):
        calls["n"] += count
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, api, advance=dies)
    stored = list(study.judgements("s"))
    assert [j.question.id for j in stored] == [job.question.id] or len(stored) == 1
    left = list(rate.jobs(study, "s", rate.rater_name("judge", GUIDE)))
    assert len(left) == 15
    assert left[0].question.id == stored[0].question.id
    assert left[0].order == stored[0].order[::-1]
    run(study, api)
    assert len(list(study.judgements("s"))) == 16


def test_the_budget_and_the_limit_stop_a_run(study, serve):
    api = serve(longer)
    api.connections = 1
    done = run(study, api, most=3 * (100 + 200) / 1e6)
    assert (done.stopped, done.stored) == (True, 3)
    assert "budget" in done.render()
    assert run(study, api, limit=2).stored == 1 + 4  # the missing half, and two questions


def test_a_wrong_key_ends_the_run_and_failures_are_counted(study, serve):
    with pytest.raises(ChatError, match="401"):
        run(study, serve(lambda body: (401, {}, b"no such key")))
    done = run(study, serve(lambda body: (500, {}, b"ill")))
    assert (done.stored, done.failed) == (0, 16)
    assert "calls without a reply" in done.render()


def test_the_estimate_counts_characters_and_asks_nothing(study):
    todo = list(rate.jobs(study, "s", "nobody", limit=3))
    found = rate.estimate(todo, GUIDE, PRICES)
    assert (found.questions, found.calls, found.answer_tokens) == (3, 6, 900)
    assert found.cost == pytest.approx((found.prompt_tokens + 9000) / 1e6)
    assert "Nothing was asked" in found.render()
    assert rate.estimate(todo, GUIDE, Prices()).cost is None


def test_rankings_of_three_by_hand():
    """Order (0,1,2): A > B > C; order (2,1,0): candidate 0 > 2 > 1. Earlier won 3 of 3, then 1 of 3 (2 over 1)."""
    q = questions(1, k=3)[0]
    one = Judgement("1", "r", "model", q, (0, 1, 2), "ranked", (0, 1, 2))
    two = Judgement("2", "r", "model", q, (2, 1, 0), "ranked", (0, 2, 1))
    found = both_orders([one, two])
    assert found.first == pytest.approx(4 / 6)
    assert (found.pairs, found.same, found.flipped) == (3, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert both_orders([]).questions == 0


def test_models_whose_long_names_begin_alike_are_two_raters():
    one, two = (rate.rater_name("m" * 150 + last, GUIDE) for last in "ab")
    assert (one != two, len(one), len(two)) == (True, 120, 120)
    assert rate.rater_name("m", GUIDE) == f"{rate.PREFIX}{GUIDE.name}/m"


def test_what_one_tie_says_of_a_position_is_told_without_a_number():
    tie = Judgement("t", "j", "model", questions(1)[0], (0, 1), "ranked", (0.0, 0.0))
    assert both_orders([tie]).render() == "No pair was decided, so nothing is known of a position bias."
    one = Judgement("o", "j", "model", questions(1)[0], (0, 1), "ranked", (0.0, 1.0))
    assert "nan" not in both_orders([one]).render()
