"""OpenRLHF, slime, NeMo Gym and KServe field by field, and what each has for a sample that cannot be scored."""

from __future__ import annotations

import math

import httpx2
import pytest
from dialect_server import ANSWERS, BROKEN, PROMPT, TALKS, causal  # noqa: F401
from tiny_models import chat

from guerdon.serve.dialects import kserve, nemo_gym, openrlhf, slime
from guerdon.serve.dialects.wire import sigmoid
from guerdon.serve.service import Refused


def near(value):
    return pytest.approx(value, abs=1e-6)


# OpenRLHF, as openrlhf/cli/serve_rm.py answers


def test_openrlhfs_three_fields(causal):  # noqa: F811
    found = causal.post("/openrlhf/get_reward", {"query": causal.texts, "prompts": [], "labels": []}).json()
    logs = {"guerdon_tokens": list(map(len, causal.ids)), "guerdon_truncated": [0.0] * 5}
    assert found == {
        "rewards": near(causal.scores),
        "scores": near(list(map(sigmoid, causal.scores))),
        "extra_logs": logs,
    }


def test_openrlhf_gets_null_never_a_number(causal):  # noqa: F811
    found = causal.post("/openrlhf/get_reward", {"query": [BROKEN]}).json()
    assert (found["rewards"], found["scores"], found["extra_logs"]) == (None, None, {})
    assert "surrogate" in found["errors"][0]
    found = causal.post("/openrlhf/get_reward", {"query": [causal.texts[0], BROKEN]}).json()
    assert found["rewards"] == [near(causal.scores[0]), None]
    assert found["scores"][1] is None
    assert found["errors"][0] is None
    assert found["extra_logs"].keys() == {"guerdon_tokens", "guerdon_truncated"}


@pytest.mark.parametrize("body", [{}, {"query": None}, {"query": [1]}, {"query": {"a": "b"}}])
def test_openrlhf_refuses(causal, body):  # noqa: F811
    reply = causal.post("/openrlhf/get_reward", body)
    assert (reply.status_code, reply.json().keys()) == (400, {"error"})


# slime


def test_slimes_object(causal):  # noqa: F811
    found = causal.post("/slime/score", {"prompt": PROMPT, "response": ANSWERS[0], "label": "x"}).json()
    expected = {"score": near(causal.scores[0]), "status": "ok", "reason": None}
    assert found == expected | {"tokens": len(causal.ids[0]), "truncated": False}
    found = causal.post("/slime/score", {"prompt": PROMPT, "response": BROKEN}).json()
    assert (found["score"], found["status"]) == (None, "error")
    assert "surrogate" in found["reason"]
    assert causal.post("/slime/", {"prompt": PROMPT, "response": BROKEN}).content == b"null"


@pytest.mark.parametrize("body", [{}, {"prompt": "a"}, {"response": "b"}, {"prompt": [], "response": "b"}, {"prompt": 1, "response": "b"}])  # fmt: skip
def test_slime_refuses(causal, body):  # noqa: F811
    assert causal.post("/slime/", body).status_code == 400
    assert causal.post("/slime/?prompt=x", {"prompt": "a", "response": "b"}).status_code == 400


# NeMo Gym, recorded from nemo_gym/base_resources_server.py and nemo_gym/failure_kinds.py


def answered(*output):
    return {"id": "resp_1", "object": "response", "output": list(output)}


def said(text, role="assistant", kind="output_text"):
    return {
        "type": "message",
        "role": role,
        "content": [{"type": kind, "text": text}],
        "status": "completed",
        "id": "msg_1",
    }


def asked(*talk, **more):
    return {"input": list(talk)} | more


def test_nemo_gym_sends_everything_back_with_the_reward(causal):  # noqa: F811
    body = {"responses_create_params": asked(*TALKS[0][:1]), "response": answered(said(ANSWERS[0])), "task": {"id": 7}}
    found = causal.post("/nemo-gym/verify", body | {"_ng_rollout_id": "r"}).json()
    verdict = {"reward": near(causal.scores[0]), "mask_sample": False, "failure_kind": None, "failure_reason": None}
    assert found == body | verdict


def test_nemo_gyms_conversations(causal):  # noqa: F811
    """What was asked may be a text or messages, with instructions; reasoning is no part of the answer."""
    thought = {"type": "reasoning", "summary": [], "id": "rs_1"}
    plain = {"responses_create_params": {"input": PROMPT}, "response": answered(thought, said(ANSWERS[0]))}
    assert causal.post("/nemo-gym/verify", plain).json()["reward"] == near(causal.scores[0])
    talk = [{"role": "system", "content": "Be brief."}, *chat("a", "b", "c", "d")]
    parts = [said(m["content"], m["role"], "input_text") for m in talk[1:4]]
    body = {"responses_create_params": asked(*parts, instructions="Be brief."), "response": answered(said("d"))}
    assert causal.post("/nemo-gym/verify", body).json()["reward"] == near(float(causal.model.score([talk])[0]))


@pytest.mark.parametrize(("output", "reason"), [
    ([], "0 messages"),
    ([said("a"), said("b")], "2 messages"),
    ([said(BROKEN)], "surrogate"),
    ([{"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"}, said("a")], "function_call"),
    ([said("a", role="user")], "not one answer"),
])  # fmt: skip
def test_nemo_gym_masks_what_cannot_be_scored(causal, output, reason):  # noqa: F811
    body = {"responses_create_params": asked(*TALKS[0][:1]), "response": answered(*output)}
    reply = causal.post("/nemo-gym/verify", body)
    found = reply.json()
    assert (reply.status_code, found["reward"], found["mask_sample"]) == (200, 0.0, True)
    assert found["failure_kind"] == "verifier_error"
    assert reason in found["failure_reason"]


def test_nemo_gym_masks_when_the_server_is_late(causal):  # noqa: F811
    body = {"responses_create_params": asked(*TALKS[0][:1]), "response": answered(said("a"))}
    found = causal.post("/nemo-gym/verify", body, headers={"X-Guerdon-Timeout": "0.000001"}).json()
    assert (found["mask_sample"], found["failure_kind"]) == (True, "judge_failed")


def test_nemo_gyms_other_routes(causal):  # noqa: F811
    assert causal.post("/nemo-gym/seed_session", {}).json() == {}
    session = {"resources_session_id": "s", "episode_id": "e", "task_id": "t", "task_data": {}}
    assert causal.post("/nemo-gym/seed_session", session).json() == {"resources_session_id": "s"}
    assert causal.post("/nemo-gym/close_session", session).json() == {"resources_session_id": "s"}
    assert causal.get("/nemo-gym/reverify_mode").json() == "stateless"
    assert causal.post("/nemo-gym/verify", {"response": {}}).status_code == 422


# KServe, recorded from kserve's protocol/rest/v2_datamodels.py and the Open Inference Protocol


def test_kserve_v1(causal):  # noqa: F811
    assert causal.get("/kserve").json() == causal.get("/kserve/").json() == {"status": "alive"}
    assert causal.get("/kserve/v1/models").json() == {"models": ["causal"]}
    assert causal.get("/kserve/v1/models/causal").json() == {"name": "causal", "ready": True}
    found = causal.post("/kserve/v1/models/causal:predict", {"instances": [causal.texts[0], BROKEN]}).json()
    assert found == {"predictions": [near(causal.scores[0]), None]}
    prompt = {"prompt": TALKS[0][:1], "response": ANSWERS[0]}
    assert causal.post("/kserve/v1/models/causal:predict", {"instances": [prompt]}).json()["predictions"] == near(causal.scores[:1])  # fmt: skip
    assert causal.post("/kserve/v1/models/causal:predict", {"instances": []}).json() == {"predictions": []}


def tensor(name, data, **more):
    return {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data} | more


def test_kserve_v2(causal):  # noqa: F811
    assert causal.get("/kserve/v2").json().keys() == {"name", "version", "extensions"}
    assert causal.get("/kserve/v2/health/live").json() == {"live": True}
    assert causal.get("/kserve/v2/health/ready").json() == {"ready": True}
    assert causal.get("/kserve/v2/models/causal/ready").json() == {"name": "causal", "ready": True}
    meta = causal.get("/kserve/v2/models/causal").json()
    assert meta.keys() == {"name", "versions", "platform", "inputs", "outputs"}
    assert meta["outputs"] == [{"name": "reward", "datatype": "FP32", "shape": [-1]}]
    version = meta["versions"][0]
    body = {"id": "42", "inputs": [tensor("text", causal.texts)]}
    for path in ("/kserve/v2/models/causal/infer", f"/kserve/v2/models/causal/versions/{version}/infer"):
        found = causal.post(path, body).json()
        output = {"name": "reward", "shape": [5], "datatype": "FP32", "data": near(causal.scores)}
        assert found == {"model_name": "causal", "model_version": version, "id": "42", "outputs": [output]}
    assert causal.get(f"/kserve/v2/models/causal/versions/{version}").json() == meta
    assert causal.get("/kserve/v2/models/causal/versions/0").status_code == 404
    assert causal.post("/kserve/v2/models/causal/versions/0/infer", body).status_code == 412


@pytest.mark.parametrize(("path", "body", "status"), [
    ("/v1/models/causal:predict", {"inputs": []}, 400),
    ("/v1/models/causal:predict", {"instances": [1]}, 400),
    ("/v1/models/nobody:predict", {"instances": ["a"]}, 404),
    ("/v2/models/nobody/infer", {"inputs": [tensor("text", ["a"])]}, 404),
    ("/v2/models/causal/infer", {"inputs": [tensor("text", ["a"], datatype="FP32")]}, 400),
    ("/v2/models/causal/infer", {"inputs": [tensor("text", ["a"], shape=[2])]}, 400),
    ("/v2/models/causal/infer", {"inputs": [tensor("prompt", ["a"])]}, 400),
    ("/v2/models/causal/infer", {"inputs": [tensor("messages", ["{"])]}, 400),
    ("/v2/models/causal/infer", {"inputs": [tensor("text", ["fine", BROKEN])]}, 400),
    ("/v2/models/causal/infer", {"inputs": ["a"]}, 400),
])  # fmt: skip
def test_kserve_refuses(causal, path, body, status):  # noqa: F811
    reply = causal.post("/kserve" + path, body)
    assert (reply.status_code, reply.json().keys()) == (status, {"error"}), reply.text


@pytest.mark.parametrize("dialect", [openrlhf, slime, kserve, nemo_gym])
def test_refusals_keep_their_status(dialect):
    for status in (401, 404, 413, 429, 503):
        reply = dialect.refuse(Refused(status, "why", retry_after=1.0))
        assert (reply.status_code, reply.headers["retry-after"]) == (status, "1")


@pytest.mark.parametrize(
    "path", ["/openrlhf/get_reward", "/slime/", "/nemo-gym/verify", "/kserve/v2/models/causal/infer"]
)
@pytest.mark.parametrize("content", [b"", b"nonsense", b"[1]", b'{"query": -Infinity}'])
def test_broken_bodies(causal, path, content):  # noqa: F811
    reply = httpx2.post(causal.url + path, content=content)
    assert reply.status_code == (422 if "nemo" in path else 400)


def test_no_reply_holds_a_number_that_is_none(causal):  # noqa: F811
    for path, body in (
        ("/openrlhf/get_reward", {"query": [BROKEN]}),
        ("/slime/score", {"prompt": "a", "response": BROKEN}),
    ):
        assert b"NaN" not in causal.post(path, body).content
    assert not math.isnan(sigmoid(float("inf")))
