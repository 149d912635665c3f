"""Candidates written by models: every source its share, nothing half, nothing twice, no name in sight of a rater."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from chat_server import ChatServer, completion

from guerdon.cli import main
from guerdon.collect import chat_api
from guerdon.collect.chat_api import ChatApi, Prices
from guerdon.collect.generate import Source, generate, jobs
from guerdon.collect.settings import Settings
from guerdon.collect.spending import spent
from guerdon.collect.store import Store
from guerdon.types import ConfigError

PROMPTS = [[{"role": "user", "content": f"Prompt {i}"}] for i in range(12)]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_api, "_FIRST_BACKOFF", 0.01)
    with Store.open(str(tmp_path / "study.db")) as opened:
        opened.create_study("s", Settings(k=2))
        yield opened


@pytest.fixture
def serve():
    made, counter = [], itertools.count()

    def start(answer=lambda body, i: completion(f"{body['model']} says {i}", tokens=(7, 3))):
        made.append(ChatServer(lambda body: answer(body, next(counter))))
        return made[-1]

    yield start
    for server in made:
        server.stop()


def sources(server, *models):
    return [Source(ChatApi(server.url, retries=1), model, Prices(1.0, 2.0)) for model in models]


def test_questions_hold_every_candidate_and_who_wrote_it(store, serve):
    server = serve()
    done = generate(store, "s", PROMPTS, sources(server, "old", "new"), 2)
    made = list(store.questions("s"))
    assert (done.added, done.failed, len(made), len(server.requests)) == (12, 0, 12, 24)
    for question in made:
        assert question.models == ("old", "new")
        for model, completions in zip(question.models, question.completions, strict=True):
            assert completions[0]["content"].startswith(f"{model} says")
    rows = {row.rater: row for row in spent(store, "s")}
    assert (rows["old"].requests, rows["new"].prompt_tokens, rows["new"].purpose) == (12, 84, "generate")
    assert rows["old"].cost == pytest.approx((84 + 36 * 2) / 1e6)


def test_a_second_run_asks_nothing_and_a_longer_file_only_what_is_new(store, serve):
    server = serve()
    generate(store, "s", PROMPTS[:5], sources(server, "m"), 2)
    done = generate(store, "s", PROMPTS, sources(server, "m"), 2)
    assert (done.known, done.added, len(server.requests)) == (5, 7, 24)


def test_three_models_meet_each_other_equally_often(serve):
    three = sources(serve(), "a", "b", "c")
    met = Counter(tuple(sorted(s.model for s in job.sources)) for job in jobs(PROMPTS, three, 2))
    assert met == {("a", "b"): 4, ("b", "c"): 4, ("a", "c"): 4}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda body, i: completion(f"half {i}", finish="length"), "cut off"),
        (lambda body, i: completion("   "), "empty"),
        (lambda body, i: completion(f"<think>hm {i}"), "empty"),
        (lambda body, i: completion("same"), "same as another"),
        (lambda body, i: completion("x", finish="content_filter"), "filter"),
        (lambda body, i: (500, {}, b"ill"), "answered 500"),
    ],
)
def test_candidates_that_are_none_make_no_question_and_are_counted(store, serve, answer, reason):
    done = generate(store, "s", PROMPTS[:2], sources(serve(answer), "m"), 2)
    assert (done.added, done.failed) == (0, 2)
    assert reason in done.render("s")
    assert list(store.questions("s")) == []


def test_thinking_is_not_part_of_a_candidate(store, serve):
    server = serve(lambda body, i: completion(f"<think>secret {i}</think>\n\nanswer {i}"))
    generate(store, "s", PROMPTS[:1], sources(server, "m"), 2)
    [question] = store.questions("s")
    assert all(c[0]["content"].startswith("answer") for c in question.completions)


def test_a_study_of_pairs_takes_no_triples(store, serve):
    with pytest.raises(ConfigError, match="2 candidates, not 3"):
        generate(store, "s", PROMPTS, sources(serve(), "m"), 3)


def test_the_commands_generate_and_rate(tmp_path, serve, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Store.open("study.db").create_study("colours", Settings(k=2))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Name a colour."}\n{"prompt": "Another?"}\n')
    one, two = serve(), serve()
    main(
        f"collect generate colours --prompts prompts.jsonl --endpoint {one.url} --endpoint {two.url} "
        "--model old --model new -n 2 --price-prompt 1 --price-answer 2".split()
    )
    said = capsys.readouterr().out
    assert "2 questions added" in said
    assert "old: 2 answers, 14 prompt and 6 answer tokens; cost 0.000026" in said
    judge = serve(lambda body, i: completion('{"reason": "it is", "verdict": "A"}'))
    rate = f"collect rate colours --endpoint {judge.url} --model judge --price-prompt 1 --price-answer 2"
    main([*rate.split(), "--dry-run"])
    assert "2 questions left, 4 calls" in capsys.readouterr().out
    assert judge.requests == []
    main([*rate.split(), "--unread", "unread.jsonl"])
    said = capsys.readouterr().out
    assert "4 judgements stored" in said
    assert "won 100.0% of decided pairs" in said
    assert (tmp_path / "unread.jsonl").read_text() == ""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(SystemExit):
        main([*rate.split(), "--key-env", "NO_SUCH_KEY"])
    assert "NO_SUCH_KEY is not set" in capsys.readouterr().err
