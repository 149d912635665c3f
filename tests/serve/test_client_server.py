"""The client against the real application: groups, streams, choices, pins, retries, watched runs; and a file scored through it."""

from __future__ import annotations

import asyncio
import json
import math
import threading

import pytest
from serving import Letters, listening, service_of, talk, value_of
from tiny_models import chat

import guerdon
from guerdon.cli import main
from guerdon.serve.run_routes import run_routes
from guerdon.serve.watch import watch_of
from guerdon.types import ConfigError, ContractError, ScoringError

PROMPT = [{"role": "user", "content": "q"}]


@pytest.fixture
def model():
    return Letters()


@pytest.fixture
def url(model):
    service = service_of(model)
    with watch_of(service) as watch, listening(service, routes=run_routes(watch)) as (port, _):
        yield f"http://127.0.0.1:{port}"


def value(prompt: str, answer: str) -> float:
    return value_of(f"{prompt}\n{answer}")


def test_it_is_a_scorer_at_the_front_door(url):
    client = guerdon.Client(url)
    rows = [talk(f"text {n}") for n in range(150)]
    wanted = [value_of(f"text {n}") for n in range(150)]
    assert client.score(rows) == wanted
    assert asyncio.run(client.ascore(rows)) == wanted
    assert client.info()["id"] == "rm"
    assert client.fingerprint == "letters"


def test_groups_and_choices(url):
    client = guerdon.Client(url)
    answers = ["aa", "zz", [{"role": "assistant", "content": "bb"}]]
    wanted = [value("q", "aa"), value("q", "zz"), value("q", "bb")]
    assert client.score_group(PROMPT, answers) == wanted
    assert asyncio.run(client.ascore_group(PROMPT, answers)) == wanted
    for best in (client.best_of_n(PROMPT, answers), asyncio.run(client.abest_of_n(PROMPT, answers))):
        assert best.scores == wanted
        assert best.index == wanted.index(max(wanted))
        assert best.kl_bound == pytest.approx(math.log(3) - 2 / 3)


def test_a_stream_gives_every_score_once_with_its_place(url):
    rows = [talk(f"row {n} " * (1 + n % 7)) for n in range(700)]
    wanted = {n: value_of(row[0]["content"]) for n, row in enumerate(rows)}
    client = guerdon.Client(url)
    found = list(client.stream(iter(rows)))
    assert len(found) == 700
    assert dict(found) == wanted

    async def collect():
        return [one async for one in client.astream(rows)]

    assert dict(asyncio.run(collect())) == wanted


def test_another_contract_is_refused_whatever_on_failure_says(url):
    assert guerdon.Client(url, contract="letters").score([talk("a")]) == [value_of("a")]
    for on_failure in ("mask", "raise", "wait"):
        client = guerdon.Client(url, contract="other", on_failure=on_failure)
        with pytest.raises(ContractError, match=r"412.*another model than the one that was pinned"):
            client.score([talk("a")])
        with pytest.raises(ContractError):
            list(client.stream([talk("a")]))


def test_an_unknown_model_is_no_reward_but_an_error(url):
    client = guerdon.Client(url, model="gone", say=lambda _: None)
    for ask in (client.score, lambda rows: list(client.stream(rows)), lambda rows: client.best_of_n(PROMPT, ["a"])):
        with pytest.raises(ScoringError, match=r"answered 404 \(there is no model 'gone' here.*name of the model"):
            ask([talk("a")])
    with pytest.raises(ScoringError, match="serves no model 'gone'; choose among those it has: rm"):
        client.info()


def test_a_retry_is_not_scored_twice(url, model):
    """The first attempt times out while the model is held up; the second gets the reward, and the model saw the text once
    more at most, because what nobody waited for was dropped.
    """
    client = guerdon.Client(url, timeout=0.5)
    model.gate.clear()
    threading.Timer(1.2, model.gate.set).start()
    assert client.score([talk("held up")]) == [value_of("held up")]
    assert model.scored.count("held up") <= 2


def test_a_run_is_watched_from_the_client(url):
    client = guerdon.Client(url, run="my run/1")
    for step in range(3):
        client.at(step).score_group(PROMPT, [f"answer {step}", "other words"])
        said = client.at(step).end_step(kl=0.5 * step)
    assert (said["run"], said["step"], said["status"], said["counts"]) == ("my run/1", 2, "ok", {"ok": 6})
    assert said == client.at(2).end_step(kl=9.0)  # a second delivery changes nothing
    with pytest.raises(ConfigError, match="no run or no step"):
        guerdon.Client(url).end_step()
    with pytest.raises(ScoringError, match="answered 404"):
        client.at(7).end_step()


def test_a_file_is_scored_through_a_server_and_resumes(url, tmp_path, capsys):
    rows = [{"prompt": f"p{n}", "completions": [f"a{n}", f"b {n}"], "id": f"r{n}"} for n in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["score", "--server", url, "--data", f"{tmp_path}/in.jsonl", "--batch", "16"]
    main([*arguments, "--output", f"{tmp_path}/whole.jsonl"])
    whole = (tmp_path / "whole.jsonl").read_bytes()
    found = [json.loads(line) for line in whole.splitlines()]
    assert [row["scores"] for row in found] == [[value(f"p{n}", f"a{n}"), value(f"p{n}", f"b {n}")] for n in range(40)]
    assert {tuple(row) for row in found} == {("index", "id", "scores", "status", "tokens", "truncated")}
    (tmp_path / "again.jsonl.partial").write_bytes(b"".join(whole.splitlines(keepends=True)[:11]) + b'{"torn')
    header = {"input": None, "scorer": "letters"}
    from guerdon.evaluate.score_file import input_identity

    header["input"] = input_identity(tmp_path / "in.jsonl")
    (tmp_path / "again.jsonl.partial.json").write_text(json.dumps(header), encoding="utf-8")
    main([*arguments, "--output", f"{tmp_path}/again.jsonl"])
    assert (tmp_path / "again.jsonl").read_bytes() == whole
    assert "11 from an earlier run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model DIR, or --server URL"),
        (["--server", "http://127.0.0.1:1", "--device", "cpu"], "the server has its own"),
        (["--server", "localhost"], "write http://host:port"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, message, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text(json.dumps({"messages": chat("a", "b")}) + "\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["score", *arguments, "--data", f"{tmp_path}/in.jsonl", "--output", f"{tmp_path}/out.jsonl"])
    assert message in capsys.readouterr().err
