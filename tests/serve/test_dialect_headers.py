"""What dialects have no words for comes in headers: the run, the rule of an ensemble, the contract, the key."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from dialect_server import ANSWERS, PROMPT, TALKS, Live, causal, serving  # noqa: F401
from tiny_models import chat

from guerdon.model.ensemble import Ensemble
from guerdon.model.head import final_layers
from guerdon.serve.keys import KeyRing, add_key

ANSWER = {"type": "message", "role": "assistant", "content": ANSWERS[0]}
ASKED = {"responses_create_params": {"input": PROMPT}, "response": {"output": [ANSWER]}}
TENSOR = {"name": "messages", "shape": [1], "datatype": "BYTES", "data": [json.dumps(TALKS[0])]}
PAIR = {"query": PROMPT, "documents": ANSWERS[:1]}
# path -> a body that asks for the reward of TALKS[0], and where it stands in the reply
ONE = {
    "/vllm/classify": ({"messages": TALKS[0], "use_activation": False}, lambda r: r["data"][0]["probs"][0]),
    "/sglang/v1/score": ({"query": PROMPT, "items": ANSWERS[:1]}, lambda r: r["scores"][0][0]),
    "/tei/predict": ({"inputs": [PROMPT, ANSWERS[0]], "raw_scores": True}, lambda r: r[0]["score"]),
    "/jina/v2/rerank": (PAIR | {"raw_scores": True}, lambda r: r["results"][0]["relevance_score"]),
    "/infinity/rerank": (PAIR | {"raw_scores": True}, lambda r: r["results"][0]["relevance_score"]),
    "/openrlhf/get_reward": ({"query": ["<s>user\n" + PROMPT + "</s><s>assistant\n" + ANSWERS[0]]}, lambda r: r["rewards"][0]),
    "/slime": ({"prompt": PROMPT, "response": ANSWERS[0]}, lambda r: r),
    "/nemo-gym/verify": (ASKED, lambda r: r["reward"]),
    "/kserve/v2/models/both/infer": ({"inputs": [TENSOR]}, lambda r: r["outputs"][0]["data"][0]),
}  # fmt: skip


class Seen:
    """A watch that remembers."""

    def __init__(self):
        self.calls = []

    def seen(self, call, items, scores, features):
        self.calls.append((call.run, call.step, call.key, len(items), call.groups))


@pytest.fixture(scope="module")
def seen():
    return Seen()


@pytest.fixture(scope="module")
def both(causal, seen):  # noqa: F811
    """An ensemble of two that disagree."""
    other = copy.deepcopy(causal.model)
    with torch.no_grad():
        for _, _, layer in final_layers(other.net):
            layer.weight.mul_(-0.5)
    model = Ensemble([causal.model, other], "mean")
    with serving({"both": model}, watch=seen) as url:
        yield Live(url, "both", model, causal.folder)


@pytest.mark.parametrize("path", ONE)
def test_the_rule_of_an_ensemble(both, path):
    body, read = ONE[path]
    high, low = sorted(both.model.score(TALKS[:1])[0].members, reverse=True)
    middle, half = (high + low) / 2, (high - low) / 2
    assert half > 0.1
    for rule, expected in ((None, middle), ("min", low), ("mean-std:1", middle - half)):
        reply = both.post(path, body, headers={"X-Guerdon-Reward": rule} if rule else {})
        assert read(reply.json()) == pytest.approx(expected, abs=1e-6)
    reply = both.post(path, body, headers={"X-Guerdon-Reward": "best"})
    if path == "/nemo-gym/verify":
        assert reply.json()["mask_sample"]
    else:
        assert reply.status_code == (422 if path.startswith(("/tei",)) else 400), reply.text


def test_disagreement_where_there_is_room(both):
    logs = both.post("/openrlhf/get_reward", ONE["/openrlhf/get_reward"][0]).json()["extra_logs"]
    found = both.post("/slime/score", ONE["/slime"][0]).json()
    assert logs["guerdon_disagreement"] == [pytest.approx(found["std"], abs=1e-6)]
    assert found["std"] > 0.1


@pytest.mark.parametrize("path", ONE)
def test_a_run_is_watched(both, seen, path):
    seen.calls.clear()
    both.post(path, ONE[path][0], headers={"X-Guerdon-Run": "policy-7", "X-Guerdon-Step": "12"})
    ((run, step, key, items, _),) = seen.calls
    assert (run, step, key, items) == ("policy-7", 12, "/policy-7", 1)


def test_answers_to_one_prompt_are_named_as_a_group(both, seen):
    seen.calls.clear()
    body = {"queries": [PROMPT, "b", PROMPT], "documents": ["x", "y", "z"], "run": "r"}
    both.post("/vllm/score", body)
    assert seen.calls[0][4] == (0, 1, 0)


@pytest.mark.parametrize("path", ONE)
def test_another_contract_is_412(both, path):
    body, read = ONE[path]
    contract = both.post("/kserve/v2/models/both/infer", ONE["/kserve/v2/models/both/infer"][0]).json()["model_version"]
    assert both.post(path, body, headers={"If-Match": "0123"}).status_code == 412
    reply = both.post(path, body, headers={"If-Match": f'"{contract}"'})
    assert isinstance(read(reply.json()), float)
    assert reply.headers["etag"] == f'"{contract}"'


def test_every_path_wants_the_key_in_its_own_envelope(causal, tmp_path):  # noqa: F811
    secret = add_key(tmp_path / "keys", "me")
    envelopes = {"tei": None, "infinity": {"detail"}, "jina": {"message", "detail"}, "nemo-gym": {"detail"}}
    with serving({"both": causal.model}, keys=KeyRing(tmp_path / "keys"), dialect="vllm") as url:
        live = Live(url, "both", causal.model, causal.folder)
        paths = ONE | {
            "/classify": ONE["/vllm/classify"],
            "/rerank": (PAIR, lambda r: r["results"][0]["relevance_score"]),
        }
        for path, (body, read) in paths.items():
            reply = live.post(path, body)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            keys = envelopes.get(path.split("/")[1], {"error"})
            assert (reply.json().keys() if keys else reply.content) == (keys or b""), path
            reply = live.post(path, body, headers={"Authorization": f"Bearer {secret}"})
            assert isinstance(read(reply.json()), float), path
        assert live.post("/classify", {}).json() == {"error": "Unauthorized"}


def test_one_of_two_models_by_name(causal):  # noqa: F811
    other = copy.deepcopy(causal.model)
    with torch.no_grad():
        for _, _, layer in final_layers(other.net):
            layer.weight.mul_(2)
    with serving({"first": causal.model, "second": other}) as url:
        live = Live(url, "first", causal.model, causal.folder)
        for name, factor in ((None, 1), ("first", 1), ("second", 2)):
            named = {"model": name} if name else {}
            for path in (
                "/vllm/classify",
                "/sglang/v1/score",
                "/jina/v2/rerank",
                "/infinity/rerank",
                "/openrlhf/get_reward",
                "/slime",
            ):
                body, read = ONE[path]
                assert read(live.post(path, body | named).json()) == pytest.approx(factor * causal.scores[0], abs=2e-6)
            for path in [path for path in ONE if not path.startswith("/kserve")]:  # whose address names the model
                body, read = ONE[path]
                reply = live.post(path, body, headers={"X-Guerdon-Model": name} if name else {})
                assert read(reply.json()) == pytest.approx(factor * causal.scores[0], abs=2e-6), path
        assert [card["id"] for card in live.get("/vllm/v1/models").json()["data"]] == ["first", "second"]
        assert live.get("/kserve/v2/models").json() == {"models": ["first", "second"]}
        assert live.post("/kserve/v1/models/second:predict", {"instances": [{"messages": chat(PROMPT, ANSWERS[0])}]}).json()["predictions"] == pytest.approx([2 * causal.scores[0]], abs=2e-6)  # fmt: skip
