"""SGLang, TEI, infinity, Jina and Cohere field by field: replies, orders, defaults, and what is refused in which envelope."""

from __future__ import annotations

import importlib
import json

import httpx2
import pytest
from dialect_server import ANSWERS, BROKEN, PROMPT, TALKS, causal  # noqa: F401

from guerdon.serve.dialects import infinity, jina, sglang, tei
from guerdon.serve.dialects.wire import sigmoid
from guerdon.serve.service import Refused
from tests.adapters.consumers import consumers


@pytest.fixture(scope="module")
def best(causal):  # noqa: F811
    """Indices of the answers, best first."""
    return sorted(range(5), key=lambda i: -causal.scores[i])


def near(value):
    return pytest.approx(value, abs=1e-6)


# SGLang, recorded from sglang 0.5.23: python/sglang/srt/entrypoints/openai/protocol.py and its http_server.py


def test_sglang_answers_one_text_without_brackets(causal):  # noqa: F811
    one = causal.post("/sglang/classify", {"text": causal.texts[0], "rid": "mine"}).json()
    assert one.keys() == {"embedding", "meta_info"}
    assert one["embedding"] == near([causal.scores[0]])
    assert one["meta_info"]["prompt_tokens"] == len(causal.ids[0])
    assert (one["meta_info"].keys(), one["meta_info"]["id"]) == ({"id", "prompt_tokens", "e2e_latency"}, "mine")
    assert isinstance(causal.post("/sglang/classify", {"text": causal.texts[:1]}).json(), list)
    pairs = causal.post("/sglang/classify", {"text": [[PROMPT, answer] for answer in ANSWERS]}).json()
    assert [row["embedding"][0] for row in pairs] == near(causal.scores)


def test_sglang_under_v1(causal, best):  # noqa: F811
    found = causal.post("/sglang/v1/embeddings", {"input": causal.texts[:2], "model": "default"}).json()
    tokens = sum(map(len, causal.ids[:2]))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
    rows = [{"embedding": [near(causal.scores[i])], "index": i, "object": "embedding"} for i in range(2)]
    assert found == {"data": rows, "model": "causal", "object": "list", "usage": usage}
    found = causal.post("/sglang/v1/classify", {"input": causal.texts[0]}).json()
    assert found.keys() == {"id", "object", "created", "model", "data", "usage"}
    row = {"index": 0, "label": "LABEL_0", "probs": [1.0], "num_classes": 1, "logits": [near(causal.scores[0])]}
    assert found["data"] == [row]
    found = causal.post("/sglang/v1/score", {"query": PROMPT, "items": ANSWERS[0], "label_token_ids": [1, 2]}).json()
    assert found.keys() == {"scores", "model", "usage", "object"}
    assert (found["scores"], found["object"]) == ([[near(causal.scores[0])]], "scoring")
    rows = causal.post("/sglang/v1/rerank", {"query": PROMPT, "documents": ANSWERS, "top_n": 2}).json()
    assert [row["index"] for row in rows] == best[:2]
    assert rows[0].keys() == {"score", "document", "index", "meta_info"}
    assert (rows[0]["score"], rows[0]["document"]) == (near(causal.scores[best[0]]), ANSWERS[best[0]])
    bare = causal.post("/sglang/v1/rerank", {"query": PROMPT, "documents": ANSWERS, "return_documents": False}).json()
    assert bare[0].keys() == {"score", "index", "meta_info"}


def test_sglang_says_what_it_serves(causal):  # noqa: F811
    assert [card["id"] for card in causal.get("/sglang/v1/models").json()["data"]] == ["causal"]
    info = causal.get("/sglang/get_model_info").json()
    assert (info["model_path"], info["is_generation"]) == ("causal", False)
    assert causal.get("/sglang/health_generate").content == b""


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/embeddings", {"input": " \n"}),
    ("/v1/embeddings", {"input": ["fine", ""]}),
    ("/v1/embeddings", {"input": []}),
    ("/v1/embeddings", {"input": "fine", "encoding_format": "base64"}),
    ("/v1/embeddings", {"input": BROKEN}),
    ("/v1/classify", {"text": "fine"}),
    ("/v1/score", {"query": "a", "items": ["b"], "apply_softmax": True}),
    ("/v1/score", {"query": "a", "items": ["b"], "item_first": True}),
    ("/v1/score", {"query": [1, 2], "items": ["b"]}),
    ("/v1/score", {"items": ["b"]}),
    ("/v1/rerank", {"query": "a", "documents": ["b", " "]}),
    ("/v1/rerank", {"query": "", "documents": ["b"]}),
    ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}),
    ("/v1/rerank", {"query": "a", "documents": ["b"], "instruct": "be nice"}),
])  # fmt: skip
def test_sglang_refuses_with_400(causal, path, body):  # noqa: F811
    reply = causal.post("/sglang" + path, body)
    assert reply.status_code == 400, reply.text
    error = reply.json()
    assert error.keys() == {"object", "message", "type", "param", "code"}
    assert (error["object"], error["type"], error["code"]) == ("error", "BadRequestError", 400)


@pytest.mark.parametrize("body", [{"text": "a", "input_ids": [1]}, {}, {"text": [["a"]]}, {"text": ""}, {"text": BROKEN}])  # fmt: skip
def test_sglangs_native_route_has_an_envelope_of_its_own(causal, body):  # noqa: F811
    reply = causal.post("/sglang/classify", body)
    assert reply.status_code == 400
    assert reply.json() == {"error": {"message": reply.json()["error"]["message"]}}


# TEI, recorded from router/src/http/types.rs and server.rs


def test_tei_ranks_with_a_bare_list(causal, best):  # noqa: F811
    rows = causal.post("/tei/rerank", {"query": PROMPT, "texts": ANSWERS}).json()
    assert rows == [{"index": i, "score": near(sigmoid(causal.scores[i]))} for i in best]
    rows = causal.post("/tei/", {"query": PROMPT, "texts": ANSWERS, "raw_scores": True, "return_text": True}).json()
    assert rows == [{"index": i, "text": ANSWERS[i], "score": near(causal.scores[i])} for i in best]


def test_tei_reads_two_texts_as_one_pair(causal):  # noqa: F811
    for inputs, one in (
        (causal.texts[0], True),
        ([causal.texts[0]], True),
        ([PROMPT, ANSWERS[0]], True),
        ([[causal.texts[0]]], False),
        ([[PROMPT, ANSWERS[0]]], False),
    ):
        found = causal.post("/tei/predict", {"inputs": inputs, "raw_scores": True}).json()
        row = [{"score": near(causal.scores[0]), "label": "LABEL_0"}]
        assert found == (row if one else [row])


def test_tei_vertex_tells_the_two_kinds_apart(causal, best):  # noqa: F811
    instances = [{"inputs": [PROMPT, ANSWERS[0]], "raw_scores": True}, {"query": PROMPT, "texts": ANSWERS}]
    reply = causal.post("/tei/vertex", {"instances": instances})
    first, second = reply.json()["predictions"]
    assert first == [{"score": near(causal.scores[0]), "label": "LABEL_0"}]
    assert [row["index"] for row in second] == best
    assert reply.headers["x-compute-tokens"] == str(len(causal.ids[0]) + sum(map(len, causal.ids)))


def test_tei_info_and_health(causal):  # noqa: F811
    info = causal.get("/tei/info").json()
    assert info.keys() == {
        "model_id", "model_sha", "model_dtype", "model_type", "max_concurrent_requests", "max_input_length",
        "max_batch_tokens", "max_batch_requests", "max_client_batch_size", "auto_truncate", "tokenization_workers",
        "version", "sha", "docker_label",
    }  # fmt: skip
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert info["max_input_length"] == causal.model.encoder.max_length
    assert [causal.get(f"/tei{path}").status_code for path in ("/health", "/ping", "/")] == [200] * 3


@pytest.mark.parametrize(("path", "body", "status", "kind"), [
    ("/rerank", {"query": "a", "texts": []}, 400, "Empty"),
    ("/predict", {"inputs": ""}, 400, "Empty"),
    ("/predict", {"inputs": []}, 400, "Empty"),
    ("/predict", {"inputs": ["a", "b", "c"]}, 422, "Validation"),
    ("/predict", {"inputs": [["a"], "b"]}, 422, "Validation"),
    ("/predict", {"inputs": {"text": "a"}}, 422, "Validation"),
    ("/predict", {"inputs": [["a"], [BROKEN]]}, 422, "Tokenizer"),
    ("/predict", {"inputs": "fox " * 600, "truncate": False}, 422, "Validation"),
    ("/rerank", {"texts": ["a"]}, 422, "Validation"),
    ("/rerank", {"query": "a", "texts": ["b"], "raw_scores": 1}, 422, "Validation"),
    ("/embed", {"inputs": "a"}, 424, "Backend"),
    ("/similarity", {"inputs": {}}, 424, "Backend"),
])  # fmt: skip
def test_tei_refuses(causal, path, body, status, kind):  # noqa: F811
    reply = causal.post("/tei" + path, body)
    assert (reply.status_code, reply.json()["error_type"]) == (status, kind), reply.text
    assert reply.json().keys() == {"error", "error_type"}


def test_tei_cuts_unless_told_not_to(causal):  # noqa: F811
    assert causal.post("/tei/predict", {"inputs": "fox " * 600}).status_code == 200
    assert causal.post("/tei/predict", {"inputs": "fox " * 600, "truncate": True}).status_code == 200


# infinity-emb 0.0.78: its own classes


@pytest.fixture(scope="module")
def pymodels():
    with consumers("infinity_emb"):
        yield importlib.import_module("infinity_emb.fastapi_schemas.pymodels")


@pytest.mark.filterwarnings("ignore:Importing from:DeprecationWarning")
def test_infinitys_own_classes_read_the_replies(causal, best, pymodels):  # noqa: F811
    body = {"query": PROMPT, "documents": ANSWERS, "return_documents": True, "top_n": 3}
    pymodels.RerankInput(
        **body
    )  # what is sent is a request of its kind; its server would strip texts, this one does not
    reply = causal.post("/infinity/rerank", body)
    found = pymodels.ReRankResult.model_validate_json(reply.content)
    assert reply.json().keys() == pymodels.ReRankResult.model_fields.keys()
    assert [row.index for row in found.results] == best[:3]
    assert [row.document for row in found.results] == [ANSWERS[i] for i in best[:3]]
    assert [row.relevance_score for row in found.results] == near([sigmoid(causal.scores[i]) for i in best[:3]])
    reply = causal.post("/infinity/v1/classify", {"input": causal.texts, "raw_scores": True})
    found = pymodels.ClassifyResult.model_validate_json(reply.content)
    assert reply.json().keys() == pymodels.ClassifyResult.model_fields.keys()
    assert [row[0].score for row in found.data] == near(causal.scores)
    assert found.data[0][0].label == "LABEL_0"
    found = pymodels.OpenAIModelInfo.model_validate_json(causal.get("/infinity/models").content)
    assert [entry.id for entry in found.data] == ["causal"]
    assert isinstance(causal.get("/infinity/health").json()["unix"], float)


def test_infinity_leaves_documents_out_by_default(causal):  # noqa: F811
    rows = causal.post("/infinity/rerank", {"query": PROMPT, "documents": ANSWERS}).json()["results"]
    assert {row["document"] for row in rows} == {None}


@pytest.mark.parametrize(("path", "body", "status"), [
    ("/classify", {"input": "one text"}, 422),
    ("/classify", {"input": []}, 422),
    ("/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, 422),
    ("/rerank", {"documents": ["b"]}, 422),
    ("/rerank", {"query": "a", "documents": [BROKEN]}, 422),
    ("/rerank", {"query": "a", "documents": ["b"], "model": "nobody"}, 400),
])  # fmt: skip
def test_infinity_refuses(causal, path, body, status):  # noqa: F811
    reply = causal.post("/infinity" + path, body)
    assert reply.status_code == status, reply.text
    assert reply.json().keys() in ({"detail"}, {"error"})
    if "error" in reply.json():
        assert reply.json()["error"].keys() == {"message", "type", "param", "code"}


# Jina and Cohere, whose own clients are in test_dialect_callers


def test_jina_and_cohere_share_a_path(causal, best):  # noqa: F811
    body = {"model": "causal", "query": PROMPT, "documents": [{"text": answer} for answer in ANSWERS], "top_n": 2}
    found = causal.post("/jina/v1/rerank", body).json()
    assert found.keys() == {"id", "results", "meta", "model", "object", "usage"}
    assert found["usage"]["total_tokens"] == sum(map(len, causal.ids))
    assert found["meta"]["api_version"] == {"version": "1"}
    assert found["results"] == [
        {"index": i, "relevance_score": near(sigmoid(causal.scores[i])), "document": {"text": ANSWERS[i]}} for i in best[:2]
    ]  # fmt: skip
    found = causal.post("/jina/v2/rerank", body | {"documents": ANSWERS}).json()
    assert found.keys() == {"id", "results", "meta"}
    assert found["results"][0].keys() == {"index", "relevance_score"}


@pytest.mark.parametrize(("body", "status"), [
    ({"query": "a", "documents": "b"}, 400),
    ({"query": "a", "documents": []}, 400),
    ({"query": "a", "documents": [{"title": "b"}]}, 400),
    ({"query": "a", "documents": ["b"], "top_n": 0}, 400),
    ({"query": "a", "documents": ["b"], "max_tokens_per_doc": 5}, 400),
    ({"query": "a", "documents": ["b"], "rank_fields": ["title"]}, 400),
    ({"query": "a", "documents": ["b"], "model": "nobody"}, 404),
    ({"query": "a", "documents": ["b", BROKEN]}, 422),
])  # fmt: skip
def test_jina_refuses(causal, body, status):  # noqa: F811
    reply = causal.post("/jina/v2/rerank", body)
    assert (reply.status_code, reply.json().keys()) == (status, {"message", "detail"}), reply.text


# All of them


@pytest.mark.parametrize(("dialect", "status"), [(sglang, 503), (tei, 429), (infinity, 429), (jina, 429)])
def test_a_full_queue_says_when_to_come_again(dialect, status):
    reply = dialect.refuse(Refused(429, "full", retry_after=2.2, kind="overloaded"))
    assert (reply.status_code, reply.headers["retry-after"]) == (status, "3")


@pytest.mark.parametrize("dialect", [sglang, tei, infinity, jina])
def test_a_wrong_key_is_401(dialect):
    assert dialect.refuse(Refused(401, "no key", kind="key")).status_code == 401


@pytest.mark.parametrize("path", ["/sglang/classify", "/sglang/v1/rerank", "/tei/rerank", "/tei/predict", "/jina/v1/rerank", "/infinity/rerank"])  # fmt: skip
@pytest.mark.parametrize("content", [b"", b"nonsense", b"[1]", b'"text"', b'{"query": Infinity}'])
def test_broken_bodies(causal, path, content):  # noqa: F811
    reply = httpx2.post(causal.url + path, content=content)
    assert reply.status_code == (422 if path.split("/")[1] in ("tei", "infinity") else 400)
    json.loads(reply.content)


def test_equal_rewards_keep_their_order_and_saturation_makes_no_ties(causal):  # noqa: F811
    from guerdon.serve.dialects.wire import ranking
    from guerdon.types import Score

    assert ranking([Score(1), Score(2), Score(1), Score(2)]) == [1, 3, 0, 2]
    assert sigmoid(50) == sigmoid(60) == 1
    assert ranking([Score(50), Score(60)]) == [1, 0]
    rows = causal.post("/jina/rerank", {"query": PROMPT, "documents": [TALKS[0][1]["content"]] * 3}).json()["results"]
    assert [row["index"] for row in rows] == [0, 1, 2]
