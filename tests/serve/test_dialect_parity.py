"""The reward of a conversation is the same number through every dialect, whatever else is asked at the same time."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import struct

import httpx2
import pytest
from dialect_server import ANSWERS, PROMPT, TALKS, Live, causal, encoder  # noqa: F401

from guerdon.serve.dialects.wire import sigmoid


async def ask(client, path, body):
    reply = await client.post(path, json=body)
    assert reply.status_code == 200, f"{path}: {reply.status_code} {reply.text}"
    return reply.json()


async def each(client, path, bodies, read):
    """The answers to single requests, sent at once."""
    return [read(found) for found in await asyncio.gather(*(ask(client, path, body) for body in bodies))]


def placed(results, value):
    """Scores of a ranking in the order of its documents, after checking that it comes best first."""
    values = [row[value] for row in results]
    assert values == sorted(values, reverse=True)
    return [row[value] for row in sorted(results, key=lambda row: row["index"])]


PAIRS = [{"query": PROMPT, "documents": ANSWERS}]
ANSWERED = [{"prompt": PROMPT, "response": answer} for answer in ANSWERS]


def bare(live):
    """Texts without the opening token, as verl sends them."""
    opening = live.model.encoder.tokenizer.bos_token or live.model.encoder.tokenizer.cls_token
    return [text.removeprefix(opening) for text in live.texts]


def verify_body(talk):
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": talk[1]["content"]}]}
    return {"responses_create_params": {"input": talk[:1]}, "response": {"output": [message]}}


def tensor(name, data):
    return {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data}


# name -> (is it a sigmoid, how to ask for the rewards of TALKS)
WAYS = {
    "vllm-classify-messages": (False, lambda c, s: each(c, "/vllm/classify", [{"messages": t, "use_activation": False} for t in TALKS], lambda r: r["data"][0]["probs"][0])),
    "vllm-classify-input": (True, lambda c, s: each(c, "/vllm/classify", [{"input": s.texts}], lambda r: [row["probs"][0] for row in r["data"]])),
    "vllm-classify-bare": (False, lambda c, s: each(c, "/vllm/classify", [{"input": t, "use_activation": False, "model": s.name} for t in bare(s)], lambda r: r["data"][0]["probs"][0])),
    "vllm-classify-ids": (False, lambda c, s: each(c, "/vllm/classify", [{"input": s.ids, "use_activation": False}], lambda r: [row["probs"][0] for row in r["data"]])),
    "vllm-pooling": (False, lambda c, s: each(c, "/vllm/pooling", [{"input": s.texts, "task": "classify", "use_activation": False}], lambda r: [row["data"][0] for row in r["data"]])),
    "vllm-pooling-base64": (False, lambda c, s: each(c, "/vllm/pooling", [{"messages": t, "encoding_format": "base64", "use_activation": False} for t in TALKS], lambda r: struct.unpack("<f", base64.b64decode(r["data"][0]["data"]))[0])),
    "vllm-score": (False, lambda c, s: each(c, "/vllm/score", [{"queries": PROMPT, "documents": ANSWERS, "use_activation": False}], lambda r: [row["score"] for row in r["data"]])),
    "vllm-v1-score": (True, lambda c, s: each(c, "/vllm/v1/score", [{"text_1": [PROMPT] * 5, "text_2": ANSWERS}], lambda r: [row["score"] for row in r["data"]])),
    "vllm-rerank": (True, lambda c, s: each(c, "/vllm/rerank", PAIRS, lambda r: placed(r["results"], "relevance_score"))),
    "vllm-v1-rerank": (False, lambda c, s: each(c, "/vllm/v1/rerank", [PAIRS[0] | {"use_activation": False}], lambda r: placed(r["results"], "relevance_score"))),
    "vllm-v2-rerank": (True, lambda c, s: each(c, "/vllm/v2/rerank", PAIRS, lambda r: placed(r["results"], "relevance_score"))),
    "sglang-classify": (False, lambda c, s: each(c, "/sglang/classify", [{"text": s.texts}], lambda r: [row["embedding"][0] for row in r])),
    "sglang-classify-one": (False, lambda c, s: each(c, "/sglang/classify", [{"input_ids": ids} for ids in s.ids], lambda r: r["embedding"][0])),
    "sglang-embeddings": (False, lambda c, s: each(c, "/sglang/v1/embeddings", [{"input": t, "model": "default"} for t in bare(s)], lambda r: r["data"][-1]["embedding"][-1])),
    "sglang-v1-classify": (False, lambda c, s: each(c, "/sglang/v1/classify", [{"input": s.texts}], lambda r: [row["logits"][0] for row in r["data"]])),
    "sglang-v1-score": (False, lambda c, s: each(c, "/sglang/v1/score", [{"query": PROMPT, "items": ANSWERS}], lambda r: [row[0] for row in r["scores"]])),
    "sglang-v1-score-ids": (False, lambda c, s: each(c, "/sglang/v1/score", [{"query": ids[:3], "items": [ids[3:]]} for ids in s.ids], lambda r: r["scores"][0][0])),
    "sglang-v1-rerank": (False, lambda c, s: each(c, "/sglang/v1/rerank", PAIRS, lambda r: placed(r, "score"))),
    "tei-rerank": (True, lambda c, s: each(c, "/tei/rerank", [{"query": PROMPT, "texts": ANSWERS}], lambda r: placed(r, "score"))),
    "tei-invocations": (False, lambda c, s: each(c, "/tei/invocations", [{"query": PROMPT, "texts": ANSWERS, "raw_scores": True}], lambda r: placed(r, "score"))),
    "tei-predict-text": (False, lambda c, s: each(c, "/tei/predict", [{"inputs": t, "raw_scores": True} for t in s.texts], lambda r: r[0]["score"])),
    "tei-predict-pair": (True, lambda c, s: each(c, "/tei/predict", [{"inputs": [PROMPT, a]} for a in ANSWERS], lambda r: r[0]["score"])),
    "tei-predict-batch": (False, lambda c, s: each(c, "/tei/predict", [{"inputs": [[PROMPT, ANSWERS[0]], *([t] for t in s.texts[1:])], "raw_scores": True}], lambda r: [row[0]["score"] for row in r])),
    "tei-vertex": (True, lambda c, s: each(c, "/tei/vertex", [{"instances": [{"inputs": t} for t in s.texts]}], lambda r: [row[0]["score"] for row in r["predictions"]])),
    "jina-v1": (True, lambda c, s: each(c, "/jina/v1/rerank", PAIRS, lambda r: placed(r["results"], "relevance_score"))),
    "jina-v2": (False, lambda c, s: each(c, "/jina/v2/rerank", [PAIRS[0] | {"raw_scores": True}], lambda r: placed(r["results"], "relevance_score"))),
    "infinity-classify": (True, lambda c, s: each(c, "/infinity/classify", [{"input": s.texts}], lambda r: [row[0]["score"] for row in r["data"]])),
    "infinity-rerank": (False, lambda c, s: each(c, "/infinity/v1/rerank", [PAIRS[0] | {"raw_scores": True}], lambda r: placed(r["results"], "relevance_score"))),
    "openrlhf": (False, lambda c, s: each(c, "/openrlhf/get_reward", [{"query": [t], "prompts": [s.asked], "labels": [""]} for t in s.texts], lambda r: r["rewards"][0])),
    "openrlhf-scores": (True, lambda c, s: each(c, "/openrlhf/get_reward", [{"query": s.texts, "prompts": [], "labels": []}], lambda r: r["scores"])),
    "slime-user": (False, lambda c, s: each(c, "/slime/", [body | {"label": None} for body in ANSWERED], lambda r: r)),
    "slime-messages": (False, lambda c, s: each(c, "/slime/score", [{"prompt": t[:1], "response": t[1]["content"]} for t in TALKS], lambda r: r["score"])),
    "slime-rendered": (False, lambda c, s: each(c, "/slime/?prompt=rendered", [{"prompt": t[:30], "response": t[30:]} for t in s.texts], lambda r: r)),
    "nemo-gym": (False, lambda c, s: each(c, "/nemo-gym/verify", list(map(verify_body, TALKS)), lambda r: r["reward"])),
    "kserve-v1": (False, lambda c, s: each(c, f"/kserve/v1/models/{s.name}:predict", [{"instances": [*s.texts[:2], {"messages": TALKS[2]}, *ANSWERED[3:]]}], lambda r: r["predictions"])),
    "kserve-v2-text": (False, lambda c, s: each(c, f"/kserve/v2/models/{s.name}/infer", [{"inputs": [tensor("text", s.texts)]}], lambda r: r["outputs"][0]["data"])),
    "kserve-v2-pair": (False, lambda c, s: each(c, f"/kserve/v2/models/{s.name}/infer", [{"inputs": [tensor("prompt", [PROMPT] * 5), tensor("response", ANSWERS)]}], lambda r: r["outputs"][0]["data"])),
    "kserve-v2-messages": (False, lambda c, s: each(c, f"/kserve/v2/models/{s.name}/infer", [{"inputs": [tensor("messages", list(map(json.dumps, TALKS)))]}], lambda r: r["outputs"][0]["data"])),
}  # fmt: skip


def flat(found):
    return [value for entry in found for value in (entry if isinstance(entry, list) else [entry])]


@pytest.mark.parametrize("which", ["causal", "encoder"])
def test_every_dialect_gives_the_models_own_reward_under_mixed_load(which, request):
    live: Live = request.getfixturevalue(which)
    expected = live.scores
    assert max(expected) - min(expected) > 0.1  # the texts are told apart, so that the order of rows is tested

    async def run():
        async with httpx2.AsyncClient(base_url=live.url, timeout=60) as client:
            asked = [(name, ask) for name, (_, ask) in WAYS.items() for _ in range(2)]
            random.Random(0).shuffle(asked)
            return zip(asked, await asyncio.gather(*(ask(client, live) for _, ask in asked)), strict=True)

    for (name, _), found in asyncio.run(run()):
        wanted = [sigmoid(score) if WAYS[name][0] else score for score in expected]
        assert flat(found) == pytest.approx(wanted, abs=1e-6), name


def test_a_rendered_prompt_is_known_by_its_end(causal):  # noqa: F811
    """slime's prompts are rendered or not, as its options say; the template's own ending tells."""
    scores = [causal.post("/slime/", {"prompt": causal.asked, "response": answer}).json() for answer in ANSWERS]
    assert scores == pytest.approx(causal.scores, abs=1e-6)
    quoted = causal.post("/slime/?prompt=user", {"prompt": causal.asked, "response": ANSWERS[0]}).json()
    assert not math.isclose(quoted, causal.scores[0], abs_tol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.5, -1.5, 800.0, -800.0])
def test_the_sigmoid_never_overflows(value):
    assert 0 <= sigmoid(value) <= 1
    assert sigmoid(value) + sigmoid(-value) == pytest.approx(1)
