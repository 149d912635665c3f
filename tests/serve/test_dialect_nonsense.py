"""Whatever JSON comes in, every dialect answers with JSON, without NaN and without a fault of its own."""

from __future__ import annotations

import json
import random

import httpx2
import pytest
from dialect_server import BROKEN, TALKS, causal  # noqa: F401

PATHS = [
    *("/vllm/classify", "/vllm/pooling", "/vllm/score", "/vllm/rerank"),
    *("/sglang/classify", "/sglang/v1/embeddings", "/sglang/v1/classify", "/sglang/v1/score", "/sglang/v1/rerank"),
    *("/tei/rerank", "/tei/predict", "/tei/vertex", "/jina/v1/rerank", "/jina/v2/rerank"),
    *("/infinity/classify", "/infinity/rerank", "/openrlhf/get_reward", "/slime/", "/slime/score"),
    *("/nemo-gym/verify", "/nemo-gym/seed_session"),
    *("/kserve/v1/models/causal:predict", "/kserve/v2/models/causal/infer"),
]
FIELDS = {
    "vllm": "model input messages use_activation task encoding_format embed_dtype endianness queries documents items data_1 data_2 text_1 text_2 query top_n truncate_prompt_tokens request_id run step reward contract",
    "sglang": "model input text input_ids rid query items documents top_n return_documents encoding_format apply_softmax",
    "tei": "inputs query texts raw_scores return_text truncate instances",
    "jina": "model query documents top_n return_documents raw_scores max_tokens_per_doc rank_fields",
    "infinity": "model input query documents top_n return_documents raw_scores",
    "openrlhf": "query prompts labels",
    "slime": "prompt response label model",
    "nemo-gym": "responses_create_params response resources_session_id",
    "kserve": "instances inputs id",
}
INNER = "role content type text input output instructions name shape datatype data messages prompt response inputs query texts refusal".split()
PLAIN = [None, True, False, 0, -1, 3, 1e300, 2**70, "", " ", "hello", "a" * 300, BROKEN, "causal", "BYTES", "message", "assistant", "user", "float", "base64", "text", [], {}]  # fmt: skip
WHOLE = [TALKS[0], TALKS[0][:1], ["hello", "fox"], [["hello"]], [[1, 2], [3]], [1, 2, 3], [[["x"]]], [1]]


def value(rng, depth=0):
    kind = rng.random()
    if kind < 0.45 or depth > 3:
        return rng.choice(PLAIN)
    if kind < 0.65:
        return rng.choice(WHOLE)
    if kind < 0.82:
        return [value(rng, depth + 1) for _ in range(rng.randint(1, 3))]
    return {name: value(rng, depth + 1) for name in rng.sample(INNER, rng.randint(1, 4))}


def body(rng, path):
    """Some of the dialect's own fields; often a right request with one field changed."""
    names = FIELDS[path.split("/")[1]].split()
    return {name: value(rng) for name in rng.sample(names, min(len(names), rng.randint(1, 5)))}


def never(name):
    raise AssertionError(f"{name} in a reply")


@pytest.mark.parametrize("path", PATHS)
def test_nonsense_is_answered(causal, path):  # noqa: F811
    rng = random.Random(path)
    with httpx2.Client(base_url=causal.url, timeout=30) as client:
        for _ in range(60):
            sent = json.dumps(body(rng, path))
            reply = client.post(path, content=sent, headers={"X-Guerdon-Run": "", "Content-Type": "application/json"})
            assert reply.status_code < 500, f"{path} {sent}: {reply.status_code} {reply.text}"
            json.loads(reply.content.decode("utf-8"), parse_constant=never)
