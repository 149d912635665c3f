"""The command: what it refuses to start with, and a whole life of the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest
from serving import Letters, client_of, listening, service_of, talk, value_of
from tiny_models import chat

from guerdon.cli import main
from guerdon.commands.listen import bound
from guerdon.model.reward import RewardModel
from guerdon.serve.call import Refused
from guerdon.serve.config import ServeConfig, from_yaml
from guerdon.serve.models import load
from guerdon.serve.run import admitted
from guerdon.serve.service import Service
from guerdon.types import ConfigError


@pytest.fixture(scope="module")
def saved(make_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    model = RewardModel.load(make_backbone(folder / "base"))
    model.new_modules = ()
    model.save(folder / "rm" / "model")
    return folder / "rm" / "model"


def test_models_have_names():
    config = ServeConfig(models=("a=/x/y", "runs/hh/model", "p,q", "org/name"))
    assert config.named_models() == {"a": "/x/y", "hh": "runs/hh/model", "ensemble": "p,q", "name": "org/name"}
    with pytest.raises(ConfigError, match="two models are called 'hh'"):
        ServeConfig(models=("runs/hh/model", "hh=other"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"host": "0.0.0.0"}, "make a key"),
        ({"tls_cert": "x"}, "go together"),
        ({"tls_cert": "x", "tls_key": "y"}, "no such file"),
        ({"port": 70000}, "--port"),
        ({"queue_tokens": 0}, "--queue-tokens must be greater than 0"),
        ({"reward": "median"}, "not known"),
        ({"models": ("a=x", "b=y"), "held_out": "nope"}, "--held-out nope: is not served; choose one of a, b"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(options, says):
    with pytest.raises(ConfigError, match=says):
        ServeConfig(**options)


def test_a_yaml_file_holds_the_same_options(tmp_path):
    (tmp_path / "serve.yaml").write_text("models: [a=x, b=y]\nqueue-tokens: 1000\nsharing: false\n")
    config = from_yaml(tmp_path / "serve.yaml")
    assert config == ServeConfig(models=("a=x", "b=y"), queue_tokens=1000, sharing=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name one: guerdon serve MODEL"),
        (["/nowhere"], "/nowhere: there is no such model folder"),
        (["{base}"], "has no trained score head"),
        (["{model}", "--dialect", "smalltalk"], "--dialect smalltalk: is not known"),
        (["{model}", "--keys", "/nowhere.json"], "guerdon serve-key add"),
        (["{model}", "--reward", "min"], "is a single reward model"),
    ],
)
def test_what_is_wrong_is_one_sentence(saved, arguments, says, capsys):
    names = {"model": str(saved), "base": str(saved.parents[1] / "base")}
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *(argument.format(**names) for argument in arguments)])
    assert stopped.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("guerdon:")]
    assert says in line


def test_a_model_that_does_not_score_as_its_contract_says_is_not_served(saved, tmp_path, capsys):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(saved, tmp_path / "changed")
    weights = load_file(tmp_path / "changed" / "model.safetensors")
    weights["score.weight"] *= 1.01
    save_file(weights, tmp_path / "changed" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SystemExit):
        main(["serve", str(tmp_path / "changed")])
    assert "the contract says" in capsys.readouterr().err


def without_contract(saved, folder):
    import shutil

    shutil.copytree(saved, folder)
    (folder / "scoring_contract.json").unlink()
    return str(folder)


def test_a_model_without_a_contract_is_not_served_unless_that_is_said(saved, tmp_path):
    bare = without_contract(saved, tmp_path / "bare")
    for path in (bare, f"{saved},{bare}"):
        with pytest.raises(ConfigError, match=f"^{bare}: has no scoring_contract.json.*--allow-no-contract$"):
            load("rm", path, ServeConfig())


def test_where_it_is_said_no_hash_is_made_up(saved, tmp_path):
    bare = without_contract(saved, tmp_path / "bare")
    allowed = ServeConfig(allow_no_contract=True)

    async def go() -> None:
        models = {"one": bare, "both": f"{saved},{saved}", "mixed": f"{saved},{bare}"}
        service = Service({name: load(name, path, allowed) for name, path in models.items()}, allowed)
        async with client_of(service, dialect="kserve") as client:
            body = {"messages": chat("a", "b")}
            for name in ("one", "mixed"):
                reply = await client.post("/v1/score", json=body | {"model": name})
                assert (reply.json()["contract"], reply.json()["scores"][0]["contract"]) == (None, None)
                assert "ETag" not in reply.headers
                pinned = await client.post("/v1/score", json=body | {"model": name, "contract": "0123"})
                assert pinned.status_code == 412
            both = (await client.post("/v1/score", json=body | {"model": "both"})).json()
            assert both["contract"] == service.model("both").fingerprint
            assert (await client.get("/v2/models/one")).json()["versions"] == []
        service.close()

    asyncio.run(go())


def test_what_has_no_contract_is_scored_over_http_without_a_pin():
    from guerdon.commands.score import _served

    with (
        listening(service_of(Letters(contract=None))) as (port, _),
        _served(f"http://127.0.0.1:{port}", "", "", None, 8) as scorer,
    ):
        assert scorer.score([talk("a")]) == [value_of("a")]


def test_a_swap_asks_for_a_contract_as_well(saved, tmp_path):
    bare = without_contract(saved, tmp_path / "bare")

    async def go() -> None:
        service = Service({"rm": RewardModel.load(saved)})
        with pytest.raises(Refused, match="scoring_contract") as refused:
            await service.swap("rm", bare)
        assert refused.value.status == 422
        service.close()

    asyncio.run(go())


def test_a_port_that_is_taken_is_found_before_anything_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as stopped:
            main(["serve", "/nowhere", "--port", str(port)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(
        f"guerdon: --port {port}: is taken on 127.0.0.1; choose another, or 0 for a free one\n"
    )
    with pytest.raises(ConfigError, match=r"--host 192.0.2.1 --port 0: cannot be listened on \(Cannot assign"):
        bound("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--tls-cert", "notes.pem", "--tls-key", "notes.pem"],
            "--tls-cert notes.pem --tls-key notes.pem: are no cert",
        ),
        (["--watch-folder", "notes.pem"], "notes.pem: runs cannot be kept there"),
    ],
)
def test_what_is_wrong_beside_the_model_is_found_before_it_is_loaded(tmp_path, monkeypatch, capsys, flags, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.pem").write_text("no certificate")
    monkeypatch.setattr("guerdon.serve.models.load", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "rm=x", "--port", "0", *flags])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_files_are_opened_for_as_many_connections_as_may_be(monkeypatch, caplog):
    import resource

    limits = [(256, 1000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert admitted(100) == 100
    assert admitted(500) == 500
    assert limits == [(256, 1000), (628, 1000)]
    assert admitted(4096) == 1000 - 128
    assert "872 connections are taken" in caplog.text


def test_what_takes_its_time_is_said(tmp_path, capsys):
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (tmp_path / "drift.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    with pytest.raises(SystemExit):
        main(["serve", "/nowhere", "--port", "0", "--drift-data", str(tmp_path / "drift.jsonl")])
    assert "--drift-data: /nowhere reads 6 answers before the port opens" in capsys.readouterr().err


def test_a_server_lives_and_ends(saved, tmp_path):
    keys = tmp_path / "keys.json"
    command = [sys.executable, "-m", "guerdon.cli"]
    made = subprocess.run(
        [*command, "serve-key", "add", "me", "--keys", keys], capture_output=True, text=True, check=True
    )
    token = made.stdout.strip()
    process = subprocess.Popen(
        [*command, "serve", f"rm={saved}", "--port", "0", "--keys", keys, "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("serving rm at http://127.0.0.1:")
        url = line.split()[-1]
        headers = {"Authorization": f"Bearer {token}", "X-Request-Id": "first"}
        reply = httpx2.post(
            f"{url}/v1/score", json={"conversations": [chat("a", "b")]}, headers=headers, trust_env=False
        )
        wanted = RewardModel.load(saved).score([chat("a", "b")])
        assert [row["value"] for row in reply.json()["scores"]] == pytest.approx(wanted, abs=1e-6)
        assert httpx2.get(f"{url}/metrics", trust_env=False).status_code == 401
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        assert time.monotonic() - started < 10
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        [first] = [line for line in lines if line.get("id") == "first"]
        assert (first["path"], first["status"], first["key"], first["items"]) == ("/v1/score", 200, "me", 1)
        assert token not in log
    finally:
        process.kill()
