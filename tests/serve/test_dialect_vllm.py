"""The vLLM dialect field by field, against vLLM 0.33.0's own classes as they are recorded in `vllm_shapes`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import vllm_shapes
from dialect_server import ANSWERS, BROKEN, PROMPT, TALKS, causal  # noqa: F401
from pydantic import BaseModel
from vllm_source import vllm_classes

from guerdon.serve.dialects import vllm
from guerdon.serve.service import Refused

REQUESTS = {
    "/classify": ({"input": ["<s>hello"], "model": "causal"}, vllm_shapes.ClassificationResponse),
    "/pooling": ({"messages": TALKS[0]}, vllm_shapes.PoolingResponse),
    "/score": ({"queries": PROMPT, "documents": ANSWERS}, vllm_shapes.ScoreResponse),
    "/rerank": ({"query": PROMPT, "documents": ANSWERS}, vllm_shapes.RerankResponse),
}
RECORDS = [
    value for value in vars(vllm_shapes).values()
    if isinstance(value, type) and issubclass(value, vllm_shapes.Shape) and value is not vllm_shapes.Shape
]  # fmt: skip


@pytest.mark.parametrize("path", REQUESTS)
def test_replies_have_vllms_fields_and_no_others(causal, path):  # noqa: F811
    body, shape = REQUESTS[path]
    reply = causal.post("/vllm" + path, body | {"request_id": "abc"})
    found = shape.model_validate_json(reply.content)
    assert found.model_fields_set == shape.model_fields.keys()
    assert found.model == "causal"
    assert found.id.endswith("-abc")
    assert found.usage.prompt_tokens == found.usage.total_tokens > 0
    other = causal.post("/vllm" + path, body, headers={"X-Request-Id": "xyz"}).json()
    assert other["id"].endswith("-xyz")


@pytest.mark.skipif("VLLM_SOURCE" not in os.environ, reason="VLLM_SOURCE does not name an unpacked vLLM 0.33.0")
def test_the_records_are_vllms_own_classes():
    with vllm_classes(Path(os.environ["VLLM_SOURCE"])) as classes:
        for record in RECORDS:
            real = classes[record.__name__]
            assert issubclass(real, BaseModel)
            vllm_shapes.same_fields(record, real)
        fields = {name: set(classes[name].model_fields) for name in classes if name.endswith("Request")}
        common, completion, chat = map(set, (vllm_shapes.COMMON, vllm_shapes.COMPLETION, vllm_shapes.CHAT))
        assert fields["ClassificationCompletionRequest"] == common | completion
        assert fields["ClassificationChatRequest"] == common | chat
        assert fields["PoolingChatRequest"] == common | chat | set(vllm_shapes.POOLING)
        assert fields["ScoreDataRequest"] == common | set(vllm_shapes.SCORING) | {"data_1", "data_2"}
        assert fields["RerankRequest"] == common | set(vllm_shapes.SCORING) | {"query", "documents", "top_n"}
        for path, (body, _) in REQUESTS.items():
            name = {"/classify": "ClassificationCompletionRequest", "/pooling": "PoolingChatRequest"}.get(path)
            classes[name or {"/score": "ScoreQueriesDocumentsRequest"}.get(path, "RerankRequest")].model_validate(body)


def test_one_label_and_one_class(causal):  # noqa: F811
    row = causal.post("/vllm/classify", {"messages": TALKS[0]}).json()["data"][0]
    assert (row["index"], row["label"], row["num_classes"], len(row["probs"])) == (0, "LABEL_0", 1, 1)
    assert 0 < row["probs"][0] < 1  # the activation is on unless it is turned off


def test_the_best_come_first_and_top_n_cuts(causal):  # noqa: F811
    order = sorted(range(5), key=lambda i: -causal.scores[i])
    for top, kept in ((0, 5), (2, 2), (9, 5)):
        rows = causal.post("/vllm/rerank", {"query": PROMPT, "documents": ANSWERS, "top_n": top}).json()["results"]
        assert [row["index"] for row in rows] == order[:kept]
        assert [row["document"] for row in rows] == [{"text": ANSWERS[i], "multi_modal": None} for i in order[:kept]]


def test_pairs_are_one_for_all_or_one_each(causal):  # noqa: F811
    def scores(body):
        return [row["score"] for row in causal.post("/vllm/score", body | {"use_activation": False}).json()["data"]]

    for body in (
        {"queries": [PROMPT], "items": ANSWERS},
        {"data_1": [PROMPT] * 5, "data_2": ANSWERS},
        {"text_1": PROMPT, "text_2": [{"content": [{"type": "text", "text": answer}]} for answer in ANSWERS]},
    ):
        assert scores(body) == pytest.approx(causal.scores, abs=1e-6)


@pytest.mark.parametrize("body", [
    {"input": "hello", "messages": TALKS[0]},
    {"model": "causal"},
    {"input": []},
    {"input": [["a"]]},
    {"input": [1, -1]},
    {"input": "hello", "use_activation": "no"},
    {"input": "hello", "normalize": True},
    {"input": "hello", "truncate_prompt_tokens": 8},
    {"messages": TALKS[0], "chat_template": "{{ messages }}"},
    {"messages": TALKS[0], "chat_template_kwargs": {"a": 1}},
    {"messages": TALKS[0], "add_generation_prompt": True},
    {"messages": TALKS[0], "continue_final_message": True},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    {"messages": [{"role": "wizard", "content": "abracadabra"}]},
    {"input": ["fine", BROKEN]},
    {"messages": []},
    {"input": [10**7]},
])  # fmt: skip
def test_what_cannot_be_the_trained_reward_is_refused_with_400(causal, body):  # noqa: F811
    reply = causal.post("/vllm/classify", body)
    assert reply.status_code == 400, reply.text
    error = vllm_shapes.ErrorResponse.model_validate_json(reply.content).error
    assert (error.type, error.code) == ("BadRequestError", 400)
    assert len(error.message) > 10


@pytest.mark.parametrize(("path", "body"), [
    ("/pooling", {"input": "hello", "task": "token_classify"}),
    ("/pooling", {"input": "hello", "dimensions": 1}),
    ("/pooling", {"input": "hello", "encoding_format": "bytes"}),
    ("/pooling", {"input": "hello", "encoding_format": "base64", "endianness": "big"}),
    ("/score", {"queries": ["a", "b"], "documents": ["a", "b", "c"]}),
    ("/score", {"queries": [], "documents": ["a"]}),
    ("/score", {"queries": "a"}),
    ("/score", {"queries": "a", "documents": "b", "instruction": "be nice"}),
    ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}),
    ("/rerank", {"query": "a", "documents": ["b"], "max_tokens_per_doc": 3}),
    ("/rerank", {"query": ["a"], "documents": ["b"]}),
    ("/rerank", {"documents": ["b"]}),
])  # fmt: skip
def test_so_it_is_on_the_other_routes(causal, path, body):  # noqa: F811
    reply = causal.post("/vllm" + path, body)
    assert reply.status_code == 400, reply.text
    vllm_shapes.ErrorResponse.model_validate_json(reply.content)


def test_fields_that_change_no_score_are_accepted(causal):  # noqa: F811
    harmless = {"user": "u", "priority": 0, "cache_salt": "abc", "truncation_side": "left", "padding": "do_not_pad"}
    harmless |= {"truncate_prompt_tokens": -1, "add_special_tokens": True, "media_io_kwargs": None}
    body = {"input": causal.texts[0], "use_activation": False}
    found = [causal.post("/vllm/classify", b).json()["data"][0]["probs"] for b in (body, body | harmless)]
    assert found[0] == found[1] == pytest.approx([causal.scores[0]], abs=1e-6)


def test_models_are_listed(causal):  # noqa: F811
    found = vllm_shapes.ModelList.model_validate_json(causal.get("/vllm/v1/models").content)
    assert [(card.id, card.max_model_len) for card in found.data] == [("causal", causal.model.encoder.max_length)]
    assert causal.get("/vllm/health").content == b""
    assert causal.get("/vllm/version").json().keys() == {"version"}


@pytest.mark.parametrize(("refused", "status", "kind"), [
    (Refused(400, "why"), 400, "BadRequestError"),
    (Refused(404, "why"), 404, "NotFoundError"),
    (Refused(413, "why"), 413, "Request Entity Too Large"),
    (Refused(422, "why"), 400, "BadRequestError"),
    (Refused(429, "why", retry_after=2.5, kind="overloaded"), 503, "ServiceUnavailableError"),
    (Refused(429, "why", retry_after=9, kind="guessing"), 429, "Too Many Requests"),
    (Refused(503, "why", retry_after=1), 503, "ServiceUnavailableError"),
    (Refused(504, "why"), 504, "Gateway Timeout"),
])  # fmt: skip
def test_errors_have_vllms_envelope(refused, status, kind):
    reply = vllm.refuse(refused)
    error = vllm_shapes.ErrorResponse.model_validate_json(reply.body).error
    assert (reply.status_code, error.code, error.type, error.message) == (status, status, kind, "why")
    assert ("retry-after" in reply.headers) == (refused.retry_after is not None)


def test_a_missing_key_is_answered_as_vllm_does():
    reply = vllm.refuse(Refused(401, "no key"))
    assert (reply.status_code, bytes(reply.body)) == (401, b'{"error":"Unauthorized"}')


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"input": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"input":"\\ud800"}'])  # fmt: skip
def test_bodies_that_are_not_json_objects(causal, content):  # noqa: F811
    import httpx2

    reply = httpx2.post(causal.url + "/vllm/classify", content=content)
    assert reply.status_code == 400
    vllm_shapes.ErrorResponse.model_validate_json(reply.content)


def test_an_unknown_model_is_404(causal):  # noqa: F811
    reply = causal.post("/vllm/classify", {"model": "nobody \ud800", "input": "hello"})
    assert reply.status_code == 404
    assert vllm_shapes.ErrorResponse.model_validate_json(reply.content).error.type == "NotFoundError"
