"""SGLang's routes for reward models, as read in sglang 0.5.23: /classify, /v1/embeddings, /v1/classify, /v1/score, /v1/rerank.

SGLang answers with raw rewards, but for `/v1/classify`, whose softmax over one label is always 1; the reward stands beside
it as `logits`. Texts are what a chat template has written and get the opening token exactly once. A request with an item
that cannot be scored is refused whole with 400.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from guerdon.serve.call import Item, Refused, Served
from guerdon.serve.dialects import wire
from guerdon.serve.dialects.wire import Body, Reply
from guerdon.serve.service import Service
from guerdon.types import Score

_DEFAULT = "default"  # what SGLang's callers write when they do not care
_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError", 503: "ServiceUnavailableError"}


def routes(service: Service) -> list[BaseRoute]:
    """The native route /classify and those of the OpenAI kind under /v1."""

    async def classify(request: Request, body: Body) -> Response:
        started = time.perf_counter()
        single, items = _native(body)
        scores, _ = await _scored(service, request, body, items)
        seconds, given = time.perf_counter() - started, body.get("rid")
        ids = given if isinstance(given, list) and len(given) == len(items) else [given] * len(items)
        rows = [
            {"embedding": [float(found)], "meta_info": _meta(found, wire.new_id("", None, name), seconds)}
            for found, name in zip(scores, ids, strict=True)
        ]
        return Reply(rows[0] if single else rows)

    async def embeddings(request: Request, body: Body) -> Response:
        if wire.field(body, "encoding_format", str, "float") != "float" or body.get("dimensions") is not None:
            raise Refused(400, "a reward is one number: encoding_format must be float, and dimensions left out")
        scores, served = await _scored(service, request, body, _input(body))
        data = [
            {"embedding": [float(found)], "index": index, "object": "embedding"} for index, found in enumerate(scores)
        ]
        return Reply({"data": data, "model": served.name, "object": "list", "usage": wire.usage(scores)})

    async def v1_classify(request: Request, body: Body) -> Response:
        scores, served = await _scored(service, request, body, _input(body))
        data = [
            {"index": index, "label": wire.LABEL, "probs": [1.0], "num_classes": 1, "logits": [float(found)]}
            for index, found in enumerate(scores)
        ]
        head = {"id": wire.new_id("classify-"), "object": "list", "created": wire.now(), "model": served.name}
        return Reply(head | {"data": data, "usage": wire.usage(scores)})

    async def v1_score(request: Request, body: Body) -> Response:
        if body.get("apply_softmax"):
            raise Refused(400, "softmax over the one label of a reward model is always 1; leave apply_softmax out")
        if body.get("item_first") or body.get("score_extraction_token_id") is not None:
            raise Refused(400, "a query is the user's turn and an item the answer; leave item_first and the like out")
        items = _joined(body.get("query"), body.get("items"))
        scores, served = await _scored(service, request, body, items, [0] * len(items))
        return Reply(
            {
                "scores": [[float(found)] for found in scores],
                "model": served.name,
                "usage": wire.usage(scores),
                "object": "scoring",
            }
        )

    async def v1_rerank(request: Request, body: Body) -> Response:
        query = _filled(wire.content(body.get("query"), "query"), "query")
        documents = [_filled(entry, "documents") for entry in wire.texts(body.get("documents"), "documents")]
        top = wire.field(body, "top_n", int)
        if top is not None and top < 1:
            raise Refused(400, f"top_n must be at least 1, got {top}")
        if body.get("instruct"):
            raise Refused(400, "instruct would make this another reward than the one that was trained; leave it out")
        started = time.perf_counter()
        items = [wire.pair(query, document) for document in documents]
        scores, _ = await _scored(service, request, body, items, [query] * len(items))
        seconds = time.perf_counter() - started
        keep = wire.field(body, "return_documents", bool, True)
        return Reply(
            [
                {"score": float(scores[index])}
                | ({"document": documents[index]} if keep else {})
                | {"index": index, "meta_info": _meta(scores[index], wire.new_id(""), seconds)}
                for index in wire.ranking(scores, top)
            ]
        )

    return [
        wire.post("/classify", classify, refuse_native),
        wire.post("/v1/embeddings", embeddings, refuse),
        wire.post("/v1/classify", v1_classify, refuse),
        wire.post("/v1/score", v1_score, refuse),
        wire.post("/v1/rerank", v1_rerank, refuse),
        wire.get("/v1/models", lambda request: Reply(wire.cards(service)), refuse),
        *(wire.get(path, _info(service), refuse) for path in ("/model_info", "/get_model_info")),
        *(wire.get(path, lambda request: Response(), refuse) for path in ("/health", "/health_generate")),
    ]


def refuse(refused: Refused) -> Response:
    """The envelope of the /v1 routes. What cannot be read or scored is 400, a full queue 503."""
    if refused.status == 401:
        return Reply({"error": "Unauthorized"}, 401, refused.headers)
    status = _status(refused)
    kind = _TYPES.get(status, HTTPStatus(status).phrase)
    error = {"object": "error", "message": refused.message, "type": kind, "param": None, "code": status}
    return Reply(error, status, refused.headers)


def refuse_native(refused: Refused) -> Response:
    """The envelope of /classify."""
    if refused.status == 401:
        return refuse(refused)
    return Reply({"error": {"message": refused.message}}, _status(refused), refused.headers)


def _status(refused: Refused) -> int:
    return 503 if refused.kind == "overloaded" else {422: 400}.get(refused.status, refused.status)


async def _scored(
    service: Service, request: Request, body: Body, items: list[Item], prompts: Sequence[object] | None = None
) -> tuple[list[Score], Served]:
    named = {name: value for name, value in body.items() if name != "model" or value != _DEFAULT}
    scores, served = await wire.score(service, request, named, items, prompts)
    wire.require(scores)
    return scores, served


def _native(body: Body) -> tuple[bool, list[Item]]:
    """The items of /classify, and whether one was sent without brackets, which is answered without them too."""
    if (body.get("text") is None) == (body.get("input_ids") is None):
        raise Refused(400, "write either text or input_ids")
    if (ids := body.get("input_ids")) is not None:
        return bool(isinstance(ids, list) and ids and not isinstance(ids[0], list)), _input({"input": ids})
    value = body["text"]
    if isinstance(value, list) and value and isinstance(value[0], list):
        return False, [_pair(entry, f"text[{number}]") for number, entry in enumerate(value)]
    return isinstance(value, str), _input({"input": value}, "text")


def _input(body: Body, where: str = "input") -> list[Item]:
    items = wire.rendered(body.get("input"), where)
    for item in items:
        if item.text is not None:
            _filled(item.text, where)
    return items


def _filled(value: str, where: str) -> str:
    if not value.strip():
        raise Refused(400, f"{where} must not be empty or white space only")
    return value


def _pair(value: Any, where: str) -> Item:
    entries = wire.texts(value, where)
    if len(entries) != 2:
        raise Refused(400, f"{where} must be a pair of texts, query and document")
    return wire.pair(*entries)


def _joined(query: Any, items: Any) -> list[Item]:
    """Query and items of /v1/score: texts, or token ids that follow one another."""
    if isinstance(query, list):
        start, rest = wire.rendered(query, "query"), wire.rendered(items, "items")
        if len(start) == 1 and all(item.ids is not None for item in (*start, *rest)):
            return [replace(item, ids=(*(start[0].ids or ()), *(item.ids or ()))) for item in rest]
        raise Refused(400, "query and items must be texts both, or token ids both")
    prompt = wire.text(query, "query")
    return [wire.pair(prompt, entry) for entry in wire.texts(items, "items")]


def _meta(found: Score, name: str, seconds: float) -> Body:
    return {"id": name, "prompt_tokens": found.tokens, "e2e_latency": seconds}


def _info(service: Service) -> Callable[[Request], Response]:
    def info(request: Request) -> Response:
        served = service.model(None)
        facts = {"model_path": served.name, "served_model_name": served.name, "tokenizer_path": served.name}
        return Reply(facts | {"is_generation": False, "weight_version": served.contract or "default"})

    return info
