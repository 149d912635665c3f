"""The client against the real application: groups, streams, choices, pins, retries, watched runs; and a file scored through it."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import threading
import time

import pytest
import torch
from serving import Letters, listening, service_of, talk, value_of
from tiny_models import chat

import guerdon
from guerdon.cli import main
from guerdon.serve.keys import KeyRing, add_key, remove_key
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
    with pytest.raises(ScoringError, match=r"answered 404 .*: score samples of this run and this step first"):
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


@pytest.fixture
def scoring(tmp_path):
    """Writes 40 rows; returns the command that scores them into out.jsonl, but for the address."""
    rows = [{"prompt": f"p{n}", "completions": [f"a{n}", f"b {n}"], "id": f"r{n}"} for n in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return ["score", "--data", f"{tmp_path}/in.jsonl", "--output", f"{tmp_path}/out.jsonl", "--batch", "16", "--server"]


def test_a_file_for_a_model_that_is_not_served_says_which_are(url, scoring, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*scoring, url, "--model", "nope"])
    assert stopped.value.code == 2
    assert "serves no model 'nope'; choose among those it has: rm" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_key_that_is_taken_away_ends_the_file_and_a_new_one_resumes_it(scoring, tmp_path, monkeypatch, capsys):
    keys, model = tmp_path / "keys.json", Letters()
    monkeypatch.setenv("GUERDON_TOKEN", add_key(keys, "one"))
    add_key(keys, "other")

    def mishap(text):
        if text == "p20\na20":
            remove_key(keys, "one")
            time.sleep(2.5)  # a change of the file counts after a second or two

    model.mishap = mishap
    with listening(service_of(model), keys=KeyRing(keys)) as (port, _):
        with pytest.raises(SystemExit) as stopped:
            main([*scoring, f"http://127.0.0.1:{port}"])
        assert stopped.value.code == 2
        assert re.search(
            r"answered 401 .*: give the server's key as token=, or in GUERDON_TOKEN", capsys.readouterr().err
        )
        kept = [json.loads(line) for line in (tmp_path / "out.jsonl.partial").read_text().splitlines()]
        assert 8 <= len(kept) < 40
        assert {row["status"] for row in kept} == {"ok"}
        monkeypatch.setenv("GUERDON_TOKEN", add_key(keys, "new"))
        time.sleep(2.5)
        main([*scoring, f"http://127.0.0.1:{port}"])
    assert (
        f"40 rows (40 ok), 80 scores, 0 cut to the context, {len(kept)} from an earlier run" in capsys.readouterr().out
    )


def test_a_file_waits_for_its_server_and_says_so(scoring, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("guerdon.client.retry.TOLD_AFTER", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    thread = threading.Thread(target=main, args=([*scoring, f"http://127.0.0.1:{port}"],))
    thread.start()
    time.sleep(1.0)
    with listening(service_of(), port=port):
        thread.join(60)
    said = capsys.readouterr().err
    assert re.search(
        r"guerdon: http://127.0.0.1:\d+/v1/models cannot be reached .*; waiting for it, 1\d\d\d s at most", said
    )
    assert "guerdon: the server answers again, after" in said
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 40


def test_a_file_is_the_same_from_a_server_and_from_here(make_backbone, tmp_path):
    """Members of an ensemble, what was cut and what could not be scored included."""
    from dialect_server import serving

    from guerdon.model.ensemble import Ensemble
    from guerdon.model.reward import RewardModel

    for seed in ("0", "1"):
        torch.manual_seed(int(seed))
        RewardModel.load(make_backbone(tmp_path / f"base{seed}"), max_length=40, device="cpu").save(tmp_path / seed)
    rows = [
        {"prompt": "hello world", "completions": ["the quick brown fox", "the lazy dog " * 30]},
        {"messages": chat("a", "b")},
    ]
    rows += [
        {"messages": [{"role": "wizard", "content": "no"}]},
        {"prompt": "hello"},
        {"chosen": "good", "rejected": "bad"},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folders = [tmp_path / "0", tmp_path / "1"]
    common = ["score", "--data", f"{tmp_path}/in.jsonl", "--reward", "min", "--output"]
    main([*common, f"{tmp_path}/here.jsonl", "--model", ",".join(map(str, folders)), "--device", "cpu"])
    with serving({"rm": Ensemble([RewardModel.load(folder, device="cpu") for folder in folders])}) as url:
        main([*common, f"{tmp_path}/there.jsonl", "--server", url])
    here, there = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("here", "there")
    )
    assert len(here) == 5
    assert {"ok", "error"} == {row["status"] for row in here}
    assert here[0]["truncated"] == [False, True]
    for one, other in zip(here, there, strict=True):
        assert list(one) == list(other)
        assert other.pop("scores") == [value and pytest.approx(value, abs=1e-6) for value in one.pop("scores")]
        for found, wanted in zip(other.pop("members", []), one.pop("members", []), strict=True):
            assert found == (wanted and pytest.approx(wanted, abs=1e-6))
        assert one == other


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
