"""The native API: what it answers, what it refuses, and with which status."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from serving import Letters, client_of, service_of, settled, talk, value_of
from tiny_models import chat

from guerdon.aggregate import parse_rule
from guerdon.client import Client
from guerdon.diagnose.novelty import Novelty
from guerdon.model.ensemble import Ensemble
from guerdon.model.reward import RewardModel
from guerdon.serve import schemas
from guerdon.serve.call import Call, Item, Refused
from guerdon.serve.config import ServeConfig
from guerdon.serve.keys import KeyRing, add_key
from guerdon.serve.models import load
from guerdon.serve.native import body_of
from guerdon.serve.service import Service
from guerdon.types import ConfigError


@pytest.fixture(scope="module")
def saved(make_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    for name in ("qwen3", "llama"):
        model = RewardModel.load(make_backbone(folder / f"{name}-base", name))
        model.new_modules = ()
        model.save(folder / name)
    return folder


def test_every_form_of_a_request_is_scored_alike(saved):
    model = RewardModel.load(saved / "qwen3")
    talks = [chat("hello", "world"), chat("hello", "the fox")]
    wanted = model.score(talks)
    bodies = [
        {"conversations": talks},
        {"prompt": "hello", "completions": ["world", "the fox"]},
        {"prompt": talks[0][:1], "completions": [talks[0][1:], talks[1][1:]]},
        {"texts": [model.encoder.render(t) for t in talks]},
        {"ids": [list(item.ids) for item in model.encoder(talks)]},
    ]

    async def go() -> None:
        service = Service({"rm": model})
        async with client_of(service) as client:
            for body in bodies:
                reply = (await client.post("/v1/score", json=body)).json()
                assert [row["value"] for row in reply["scores"]] == pytest.approx(wanted, abs=1e-6)
                schemas.ScoreReply.model_validate(reply, strict=True)
            one = await client.post("/v1/score", json={"messages": talks[0]})
            assert one.json()["scores"][0]["tokens"] == wanted[0].tokens
            assert one.headers["ETag"] == f'"{model.contract.hash}"'
            info = (await client.get("/v1/info")).json()
            schemas.InfoReply.model_validate(info, strict=True)
            models = (await client.get("/v1/models")).json()
            schemas.ModelsReply.model_validate(models, strict=True)
            assert models["data"][0]["contract"] == model.contract.hash
        service.close()

    asyncio.run(go())


def test_probabilities_compare_with_a_reference():
    async def go() -> None:
        from types import SimpleNamespace

        model = Letters(contract=SimpleNamespace(hash="c", golden=(), temperature=50.0))
        async with client_of(service_of(model)) as client:
            body = {"prompt": "p", "completions": ["a", "b"], "reference": "c"}
            reply = (await client.post("/v1/score", json=body)).json()
            a, b, c = (value_of(f"p\n{text}") for text in "abc")
            wanted = [1 / (1 + math.exp(-(value - c) / 50.0)) for value in (a, b)]
            assert [row["probability"] for row in reply["scores"]] == pytest.approx(wanted)
            assert (reply["reference"], len(reply["scores"])) == (c, 2)
            reply = (await client.post("/v1/score", json=body | {"reference": a})).json()
            assert reply["scores"][0]["probability"] == 0.5
            del body["reference"]
            assert (await client.post("/v1/score", json=body)).json()["scores"][0]["probability"] is None
            wrong = await client.post("/v1/score", json={"texts": ["x"], "reference": "c"})
            assert wrong.status_code == 400

    asyncio.run(go())


def test_what_is_far_from_the_training_answers_is_flagged(saved):
    model = RewardModel.load(saved / "qwen3")
    training = [chat(f"hello {i}", "the quick brown fox " * (i % 5 + 1)) for i in range(200)]

    async def go() -> None:
        service = Service({"rm": model}, training=training)
        far = Item(messages=chat("zzz", "?! " * 60))
        measured = await service.measure([Item(messages=training[3]), far], Call())
        novelty = Novelty.fit(model.features(training).astype(np.float64))
        assert measured.distances == pytest.approx(
            novelty.distances(model.features([training[3], far.messages]).astype(np.float64)), rel=1e-4
        )
        async with client_of(service) as client:
            reply = (await client.post("/v1/score", json={"conversations": [training[3], far.messages]})).json()
        assert [row["out_of_distribution"] for row in reply["scores"]] == [False, True]
        assert service.novelty.keys() == {"rm"}
        service.close()

    asyncio.run(go())


def test_an_ensemble_gives_members_and_spread(saved):
    async def go() -> None:
        models = Ensemble([RewardModel.load(saved / name) for name in ("qwen3", "llama")])
        async with client_of(Service({"rm": models})) as client:
            for rule in ("mean", "min", "lcb", "mean-std:1", "quantile:0.5"):
                reply = (await client.post("/v1/score", json={"messages": chat("a", "b"), "reward": rule})).json()
                [row] = reply["scores"]
                members = np.array(row["members"])
                from guerdon.aggregate import combine

                assert row["value"] == pytest.approx(float(combine(members, parse_rule(rule))))
                assert row["std"] == pytest.approx(members.std())
                assert reply["reward"] == rule
            assert (reply["reference"], row["probability"]) == (None, None)  # as docs/serve.md says
            reply = (await client.post("/v1/score", json={"messages": chat("a", "b"), "reference": 1.0})).json()
            assert (reply["reference"], reply["scores"][0]["probability"]) == (1.0, None)

    asyncio.run(go())


def test_the_distance_of_an_ensemble_is_that_of_its_first_folder(saved):
    models = [RewardModel.load(saved / name) for name in ("qwen3", "llama")]
    training = [chat(f"hello {i}", "the quick brown fox " * (i % 5 + 1)) for i in range(70)]
    item = [Item(messages=chat("zzz", "?! " * 60))]

    async def distance(model) -> float:
        service = Service({"rm": model}, training=training)
        try:
            return float((await service.measure(item, Call())).distances[0])
        finally:
            service.close()

    assert asyncio.run(distance(Ensemble(models))) == pytest.approx(asyncio.run(distance(models[0])), rel=1e-4)


def test_best_of_n():
    async def go() -> None:
        async with client_of(service_of()) as client:
            texts = ["b", "a", "z", "z", "y"]
            body = {"prompt": "p", "completions": texts, "answers": ["1", "2", "1", None, "2"]}
            reply = (await client.post("/v1/best_of_n", json=body)).json()
            schemas.BestOfNReply.model_validate(reply, strict=True)
            assert (reply["index"], reply["margin"]) == (2, 1.0)  # z beats y by one, and its own double does not count
            assert reply["kl_bound"] == pytest.approx(math.log(5) - 0.8)
            weights = {"1": 1 + math.exp(-24), "2": math.exp(-1) + math.exp(-25)}
            assert {vote["answer"]: vote["share"] for vote in reply["votes"]} == pytest.approx(
                {answer: weight / sum(weights.values()) for answer, weight in weights.items()}
            )
            assert [(vote["count"], vote["best"]) for vote in reply["votes"]] == [(2, 2), (2, 4)]
            wrong = await client.post("/v1/best_of_n", json=body | {"answers": ["1"]})
            assert wrong.status_code == 400

    asyncio.run(go())


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"texts": ["a"], "step": NaN}', 400, "NaN is not JSON"),
        (b'{"texts": ["a"], "reference": Infinity}', 400, "Infinity is not JSON"),
        (b'{"texts": ["a"], "reference": 1e999}', 400, "too large a number"),
        (b'{"texts": ["a"], "run": "r", "step": 1e999}', 400, "too large a number"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"\xff\xfe\x00", 400, "not JSON"),
        (b"{}", 400, "exactly one of"),
        (b'{"texts": ["a"], "ids": [[1]]}', 400, "texts and ids"),
        (b'{"texts": "a"}', 400, "list of texts"),
        (b'{"ids": [1]}', 400, "lists of token ids"),
        (b'{"ids": [["a"]]}', 400, "whole numbers"),
        (b'{"ids": [[1.5]]}', 400, "whole numbers"),
        (b'{"conversations": ["a"]}', 400, "lists? of messages|list of"),
        (b'{"prompt": "a"}', 400, "completions must be a list"),
        (b'{"prompt": 3, "completions": []}', 400, "a text or a list of messages"),
        (b'{"texts": ["a"], "model": "other"}', 404, "no model 'other'"),
        (b'{"texts": ["a"], "model": 3}', 400, "model must be a text"),
        (b'{"texts": ["a"], "reward": "best"}', 400, "not known"),
        (b'{"texts": ["a"], "contract": "0000"}', 412, "not the 0000"),
        (b'{"texts": ["a", "b", "c", "d"]}', 413, "more than the 3"),
        (b'{"texts": ["a"], "rewrad": "min"}', 400, "has no 'rewrad'; it may have .*reward"),
        (b'{"texts": ["a"], "answers": ["a"]}', 400, "has no 'answers'"),
        (b'{"texts": ["a"], "completions": ["a"]}', 400, "completions go with prompt"),
        (b'{"texts": ["a"], "run": "r", "step": -1}', 400, "step must be 0 or more, got -1"),
        (b'{"texts": ["a"], "step": 1}', 400, "a step belongs to a run"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_a_sentence(body, status, says):
    async def go() -> None:
        async with client_of(service_of(max_items=3)) as client:
            reply = await client.post("/v1/score", content=body)
            assert reply.status_code == status
            schemas.ErrorReply.model_validate(reply.json(), strict=True)
            assert re.search(says, reply.json()["error"]["message"])

    asyncio.run(go())


def test_a_contract_can_be_pinned_and_changes_with_a_swap(saved, tmp_path):
    keys = tmp_path / "keys.json"
    admin, user = add_key(keys, "admin", admin=True), add_key(keys, "user")
    old = RewardModel.load(saved / "qwen3")

    async def go() -> None:
        service = Service({"rm": old}, ServeConfig(run_idle=0.2))
        async with client_of(service, keys=KeyRing(keys)) as client:

            async def score(match: str, **more) -> int:
                headers = {"Authorization": f"Bearer {user}", "If-Match": match}
                return (await client.post("/v1/score", json={"texts": ["a"]} | more, headers=headers)).status_code

            async def swap(key: str, path: str, **more) -> int:
                headers = {"X-API-Key": key}
                reply = await client.post("/v1/models/rm/swap", json={"path": path} | more, headers=headers)
                return reply.status_code

            first, second = old.contract.hash, RewardModel.load(saved / "llama").contract.hash
            assert [await score(match) for match in (f'"{first}"', "*", f'"{second}"')] == [200, 200, 412]
            assert await score("*", run="grpo-1", step=1) == 200
            assert await swap(user, str(saved / "llama")) == 403
            assert await swap(admin, str(saved / "llama")) == 409  # a run depends on it
            assert await swap(admin, "/nowhere", force=True) == 422
            assert await score(f'"{first}"') == 200
            await asyncio.sleep(0.25)
            assert await swap(admin, str(saved / "llama")) == 200
            assert [await score(match) for match in (f'"{first}"', f'"{second}"')] == [412, 200]
            assert await swap(admin, str(saved / "qwen3"), force=True) == 200
        service.close()

    asyncio.run(go())


def test_what_waits_when_a_model_is_swapped_is_answered_by_the_old_one(saved):
    async def go() -> None:
        model = Letters()
        service = service_of(model)
        model.gate.clear()
        first = asyncio.create_task(service.measure([Item(text="a")], Call()))
        await settled(lambda: len(model.batches) == 1)
        waits = asyncio.create_task(service.measure([Item(text="b")], Call()))
        await settled(lambda: service.loaded(None).queue.tokens > 0)
        await service.swap("rm", str(saved / "qwen3"))
        after = asyncio.create_task(service.measure([Item(text="c")], Call()))
        await asyncio.sleep(0.01)
        model.gate.set()
        found = await asyncio.gather(first, waits, after)
        assert [measured.served.contract == "letters" for measured in found] == [True, True, False]
        assert model.scored == ["a", "b"]

    asyncio.run(go())


def test_a_run_that_begins_while_a_model_is_loaded_keeps_its_reward(monkeypatch):
    async def go() -> None:
        service, begun = service_of(), threading.Event()

        def slowly(*_):
            begun.wait(10)
            return service.loaded("rm")

        monkeypatch.setattr("guerdon.serve.service.load", slowly)
        swap = asyncio.create_task(service.swap("rm", "other"))
        await asyncio.sleep(0.01)
        await service.score([Item(text="a")], Call(run="r", step=0))
        begun.set()
        with pytest.raises(Refused, match="must not change within a run") as refused:
            await swap
        assert refused.value.status == 409

    asyncio.run(go())


def test_what_judges_a_run_is_not_swapped_either():
    async def go() -> None:
        service = Service({"rm": Letters(), "second": Letters()}, ServeConfig(held_out="second"))
        await service.score([Item(text="a")], Call(run="r", step=0))
        with pytest.raises(Refused, match="second is the reward of, or held out from, r,"):
            await service.swap("second", "other")

    asyncio.run(go())


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/score", b'{"texts": ["a"], "run": "r", "step": -1' + b"0" * 400 + b"}"),
        ("/v1/score", b'{"texts": ["a"], "run": "r", "step": 1e999}'),
        ("/v1/score", '{"texts": ["a"]}'.encode("utf-16")),
        ("/v1/score/stream?run=r&step=%C2%B2", b'{"text": "a"}'),
        (
            "/kserve/v2/models/rm/infer",
            b'{"inputs": [{"name": ["a"], "datatype": "BYTES", "shape": [1], "data": ["a"]}]}',
        ),
        ("/nemo-gym/verify", b'{"responses_create_params": {}, "response": {}, "x": 1e999}'),
        ("/nemo-gym/verify", b'{"responses_create_params": {}, "response": {}, "x": ' + b"[" * 960 + b"]" * 960 + b"}"),
    ],
)
def test_what_cannot_be_read_is_our_mistake_nowhere(path, sent):
    async def go() -> int:
        async with client_of(service_of()) as client:
            return (await client.post(path, content=sent)).status_code

    assert asyncio.run(go()) in (400, 422)


def test_an_id_that_cannot_be_sent_back_costs_no_line():
    async def go() -> list[dict]:
        ids = ["1e999", "[" * 900 + "]" * 900, '"b"']
        async with client_of(service_of()) as client:
            lines = "\n".join(f'{{"text": "a", "id": {id}}}' for id in ids)
            reply = await client.post("/v1/score/stream", content=lines)
            return [json.loads(line) for line in reply.text.splitlines()]

    *rows, last = asyncio.run(go())
    assert [row["status"] for row in sorted(rows, key=lambda row: row["index"])] == ["error", "ok", "ok"]
    assert (last["done"], last["lines"]) == (True, 3)


def test_pickled_weights_are_not_read_whatever_lies_beside_them(saved, tmp_path, monkeypatch):
    folder = tmp_path / "pickled"
    shutil.copytree(saved / "llama", folder)
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    with pytest.raises(ConfigError, match="pickled weights are not read here"):
        load("rm", str(folder), ServeConfig())


def test_a_torn_file_beside_the_weights_is_named(saved, tmp_path):
    shutil.copytree(saved / "llama", tmp_path / "torn")
    (tmp_path / "torn" / "z.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"z\.safetensors: is no whole safetensors file"):
        load("rm", str(tmp_path / "torn"), ServeConfig())


def test_a_swap_to_a_name_that_no_folder_has_is_refused():
    async def go() -> None:
        with pytest.raises(Refused, match="cannot be loaded") as refused:
            await service_of().swap("rm", "x" * 5000)
        assert refused.value.status == 422

    asyncio.run(go())


def test_a_retry_is_not_scored_again():
    async def go() -> None:
        model = Letters()
        async with client_of(service_of(model)) as client:

            async def post(key: str, *texts: str, path: str = "/v1/score"):
                return await client.post(path, json={"texts": list(texts)}, headers={"Idempotency-Key": key})

            first, again = await post("k", "a"), await post("k", "a")
            assert (first.content, again.headers["Idempotency-Replayed"]) == (again.content, "true")
            assert first.headers["ETag"] == again.headers["ETag"]
            assert model.scored == ["a"]
            assert (await post("k", "b")).status_code == 422
            model.gate.clear()
            both = [asyncio.create_task(post("j", "c")) for _ in range(3)]
            await settled(lambda: len(model.batches) == 2)
            both[0].cancel()  # the one that began it leaves, the others still get their answer
            model.gate.set()
            replies = await asyncio.gather(*both, return_exceptions=True)
            assert [reply.status_code for reply in replies[1:]] == [200, 200]
            assert model.scored == ["a", "c"]
            assert (await post("m", "a", path="/v1/nothing")).status_code == 404
            bad = [await client.post("/v1/score", json={}, headers={"Idempotency-Key": "n"}) for _ in range(2)]
            assert [reply.status_code for reply in bad] == [400, 400]

    asyncio.run(go())


def test_the_cache_forgets():
    async def go() -> None:
        model = Letters()
        async with client_of(service_of(model, cache_mb=0.002)) as client:
            for n in range(30):
                await client.post("/v1/score", json={"texts": ["x"]}, headers={"Idempotency-Key": str(n)})
            await client.post("/v1/score", json={"texts": ["x"]}, headers={"Idempotency-Key": "29"})
            await client.post("/v1/score", json={"texts": ["x"]}, headers={"Idempotency-Key": "0"})
        assert len(model.scored) == 31

    asyncio.run(go())


def test_lines_are_scored_as_they_come():
    async def go() -> None:
        model = Letters()
        lines = [json.dumps({"prompt": "p", "completion": "c" * (i % 30), "id": f"row{i}"}) for i in range(500)]
        lines[7] = "{"
        lines[8] = json.dumps({"text": "seven"})
        lines[9] = json.dumps({"ids": [1, 2]})
        lines[10] = json.dumps({"prompt": "p", "completoin": "c", "id": 10})
        lines[11] = json.dumps({"text": "t", "messages": talk("t"), "id": ["eleven"]})
        async with client_of(service_of(model, queue_tokens=3000)) as client:
            reply = await client.post("/v1/score/stream", content="\n\n".join(lines))
            *rows, last = map(json.loads, reply.text.splitlines())
            assert last == {"done": True, "lines": 500, "ok": 497, "masked": 0, "error": 3}
            assert {row["index"] for row in rows} == set(range(0, 1000, 2))  # every second line is blank
            by_index = {row["index"] // 2: row for row in rows}
            assert all(schemas.Scored.model_validate(row, strict=True) for row in rows)
            assert ("not JSON" in by_index[7]["reason"], "id" in by_index[7]) == (True, False)
            assert ("a line has no 'completoin'" in by_index[10]["reason"], by_index[10]["id"]) == (True, 10)
            assert ("a line holds messages, or" in by_index[11]["reason"], by_index[11]["id"]) == (True, ["eleven"])
            assert by_index[8]["value"] == value_of("seven")
            assert by_index[9]["value"] == value_of("iii")
            assert all(
                row["value"] == value_of("p\n" + "c" * (i % 30)) and row["id"] == f"row{i}"
                for i, row in by_index.items()
                if i not in range(7, 12)
            )
            unknown = await client.post("/v1/score/stream?model=zz", content="")
            assert unknown.status_code == 404
            mistyped = await client.post("/v1/score/stream?modle=rm", content="")
            assert (mistyped.status_code, "has no 'modle'" in mistyped.text) == (400, True)
            assert json.loads((await client.post("/v1/score/stream", content="")).text)["lines"] == 0

    asyncio.run(go())


def test_lines_wait_for_room_however_often_there_is_none(monkeypatch):
    """More refusals in a row than Python allows calls within calls."""
    from guerdon.serve import stream

    monkeypatch.setattr(stream, "_PAUSE", 0.0)
    service, left = service_of(), [sys.getrecursionlimit() + 200]
    measure = service.measure

    async def full_for_long(*given):
        left[0] -= 1
        if left[0] > 0:
            raise Refused(429, "full", 1e-9, "overloaded")
        return await measure(*given)

    monkeypatch.setattr(service, "measure", full_for_long)

    async def go() -> None:
        async with client_of(service) as client:
            reply = await client.post("/v1/score/stream", content=json.dumps({"text": "a"}))
            assert json.loads(reply.text.splitlines()[-1]) == {
                "done": True,
                "lines": 1,
                "ok": 1,
                "masked": 0,
                "error": 0,
            }

    asyncio.run(go())


def test_scores_of_runs_are_shown_to_the_watch():
    class Watch:
        def __init__(self) -> None:
            self.calls: list[tuple] = []

        def seen(self, call, items, scores, features) -> None:
            self.calls.append((call.run, call.step, call.model, len(items), list(scores)))

    async def go() -> None:
        service = service_of()
        service.watch = watch = Watch()
        async with client_of(service) as client:
            await client.post("/v1/score", json={"texts": ["a"], "run": "r", "step": 3})
            await client.post("/v1/score", json={"texts": ["b"]}, headers={"X-Guerdon-Run": "q", "X-Guerdon-Step": "4"})
            await client.post("/v1/score", json={"messages": talk("c")})
        assert watch.calls == [("r", 3, "rm", 1, [value_of("a")]), ("q", 4, "rm", 1, [value_of("b")])]

    asyncio.run(go())


def test_a_header_names_the_model_where_the_body_does_not():
    async def go() -> None:
        first, second = Letters(), Letters()
        async with client_of(Service({"first": first, "second": second})) as client:

            async def answered(header: str, path: str = "/v1/score", **more) -> tuple[str, str]:
                headers = {"X-Guerdon-Model": header, "Idempotency-Key": "k"}
                reply = await client.post(path, json={"texts": ["a"]} | more, headers=headers)
                return reply.json().get("model"), reply.status_code

            assert await answered("second", model="first") == ("first", 200)
            assert await answered("third") == (None, 422)  # the key was another request's
            assert (first.scored, second.scored) == (["a"], [])
            for header, model in (("second", second), ("", first)):
                reply = await client.post(
                    "/v1/score/stream", content='{"text": "b"}', headers={"X-Guerdon-Model": header}
                )
                assert (reply.status_code, model.scored[-1]) == (200, "b")
            unknown = await client.post("/v1/score", json={"texts": ["a"]}, headers={"X-Guerdon-Model": "third"})
            assert unknown.status_code == 404

    asyncio.run(go())


def test_counters_add_up():
    async def go() -> None:
        service = service_of()
        async with client_of(service) as client:
            for texts in (["ab"], ["c", "d"]):
                await client.post("/v1/score", json={"texts": texts})
            await client.post("/v1/score", json={})
            await client.get("/v1/nothing/here")
            page = (await client.get("/metrics")).text
        assert 'guerdon_requests_total{route="/v1/score",status="200"} 2.0' in page
        assert 'guerdon_requests_total{route="unknown",status="404"} 1.0' in page
        assert 'guerdon_refused_total{reason="invalid"} 1.0' in page
        assert 'guerdon_items_total{model="rm",status="ok"} 3.0' in page
        assert 'guerdon_tokens_total{model="rm"} 4.0' in page

    asyncio.run(go())


def test_the_page_of_bodies_names_schemas_that_are_there():
    async def go() -> None:
        async with client_of(service_of()) as client:
            document = (await client.get("/openapi.json")).json()
        assert document["paths"]["/v1/score"]["post"]["requestBody"] == body_of("ScoreRequest")["requestBody"]
        named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
        assert named <= document["components"]["schemas"].keys()

    asyncio.run(go())


def test_the_client_gets_what_the_model_gives(saved):
    from serving import listening

    model = RewardModel.load(saved / "qwen3")
    talks = [chat("hello", f"answer {i}") for i in range(10)]
    with listening(Service({"rm": model})) as (port, _):
        client = Client(f"http://127.0.0.1:{port}", batch=3)
        assert client.score(talks) == pytest.approx(model.score(talks), abs=1e-6)
        client.close()
