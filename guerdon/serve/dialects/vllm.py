"""vLLM's pooling routes, as read in vllm 0.33.0 (vllm/entrypoints/pooling): classify, pooling, score, rerank.

`input` is text that a chat template has written, or token ids; `messages` is one conversation. Either is given the opening
token exactly once, so `add_special_tokens` changes nothing. The number is the reward with `use_activation: false`, else
its sigmoid. Options that would make it a different reward (another template, another cut) are refused with 400, and so
is a request with an item that cannot be scored, as vLLM refuses a request whole.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from guerdon import __version__
from guerdon.serve.call import Item, Refused, Served
from guerdon.serve.dialects import wire
from guerdon.serve.dialects.wire import Body, Reply
from guerdon.serve.service import Service
from guerdon.types import Score

# Where /score finds its pairs: first and second of a pair, by the names that vLLM takes.
_PAIRS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError", 503: "ServiceUnavailableError"}
_OTHER_REWARD = (
    "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "instruction",
    "dimensions", "max_tokens_per_query", "max_tokens_per_doc", "mm_processor_kwargs",
)  # fmt: skip


def routes(service: Service) -> list[BaseRoute]:
    """Where the routes lie: /classify, /pooling, /score, /rerank, with the aliases under /v1 and /v2 that vLLM has."""

    async def classify(request: Request, body: Body) -> Response:
        scores, served = await _single(service, request, body)
        data = [
            {"index": index, "label": wire.LABEL, "probs": [value], "num_classes": 1}
            for index, value in enumerate(_values(scores, body))
        ]
        return Reply(_listed("classify-", request, body, served, scores, data))

    async def pooling(request: Request, body: Body) -> Response:
        if body.get("task") not in (None, "classify"):
            raise Refused(400, f"task {str(body['task'])[:40]!r} is not served: a reward model has only 'classify'")
        write = _writer(body)
        scores, served = await _single(service, request, body)
        values = _values(scores, body)
        data = [{"index": index, "object": "pooling", "data": write(value)} for index, value in enumerate(values)]
        return Reply(_listed("pooling-", request, body, served, scores, data))

    async def score(request: Request, body: Body) -> Response:
        queries, documents = _pairs(body)
        scores, served = await _scored(service, request, body, list(map(wire.pair, queries, documents)), queries)
        data = [
            {"index": index, "object": "score", "score": value} for index, value in enumerate(_values(scores, body))
        ]
        return Reply(_listed("score-", request, body, served, scores, data))

    async def rerank(request: Request, body: Body) -> Response:
        query, documents = _document(body.get("query"), "query"), _documents(body.get("documents"), "documents")
        top = wire.field(body, "top_n", int, 0)
        if top < 0:
            raise Refused(400, f"top_n must not be below 0, got {top}")
        items = [wire.pair(query, document) for document in documents]
        scores, served = await _scored(service, request, body, items, [query] * len(items))
        values, usage = _values(scores, body), wire.tokens(scores)
        return Reply(
            {
                "id": wire.new_id("score-", request, body.get("request_id")),
                "model": served.name,
                "usage": {"prompt_tokens": usage, "total_tokens": usage},
                "results": [
                    {
                        "index": index,
                        "document": {"text": documents[index], "multi_modal": None},
                        "relevance_score": values[index],
                    }
                    for index in wire.ranking(scores, top)
                ],
            }
        )

    return [
        wire.post("/classify", classify, refuse),
        wire.post("/pooling", pooling, refuse),
        *(wire.post(path, score, refuse) for path in ("/score", "/v1/score")),
        *(wire.post(path, rerank, refuse) for path in ("/rerank", "/v1/rerank", "/v2/rerank")),
        wire.get("/v1/models", lambda request: Reply(wire.cards(service)), refuse),
        wire.get("/version", lambda request: Reply({"version": __version__}), refuse),
        *(wire.get(path, lambda request: Response(), refuse) for path in ("/health", "/ping")),
    ]


def refuse(refused: Refused) -> Response:
    """vLLM's error envelope. Schema errors and items are 400, a full queue 503, which its callers know to try again."""
    if refused.status == 401:
        return Reply({"error": "Unauthorized"}, 401, refused.headers)
    status = 503 if refused.kind == "overloaded" else {422: 400}.get(refused.status, refused.status)
    kind = _TYPES.get(status, HTTPStatus(status).phrase)
    error = {"message": refused.message, "type": kind, "param": None, "code": status}
    return Reply({"error": error}, status, refused.headers)


async def _single(service: Service, request: Request, body: Body) -> tuple[list[Score], Served]:
    """Scores of `input` or of `messages`."""
    if ("input" in body) == ("messages" in body):
        raise Refused(400, "write either input or messages")
    if "messages" in body:
        return await _scored(service, request, body, [Item(messages=wire.conversation(body["messages"]))])
    return await _scored(service, request, body, wire.rendered(body["input"], "input"))


async def _scored(
    service: Service, request: Request, body: Body, items: list[Item], prompts: Sequence[object] | None = None
) -> tuple[list[Score], Served]:
    wire.field(body, "use_activation", bool)
    if "normalize" in body:
        raise Refused(400, "normalize was removed from vLLM; write use_activation")
    for name in _OTHER_REWARD:
        if body.get(name):
            raise Refused(400, f"{name} would make this another reward than the one that was trained; leave it out")
    cut = wire.field(body, "truncate_prompt_tokens", int, -1)
    served = wire.served(service, request, body)
    if cut != -1 and cut < served.max_length:
        raise Refused(
            400, f"truncate_prompt_tokens is {cut}; the scoring contract cuts at {served.max_length}, leave it out"
        )
    scores, served = await wire.score(service, request, body, items, prompts)
    wire.require(scores)
    return scores, served


def _values(scores: Sequence[Score], body: Body) -> list[float]:
    """The reward where the caller turned the activation off, else its sigmoid."""
    return [float(found) if body.get("use_activation") is False else wire.sigmoid(found) for found in scores]


def _writer(body: Body) -> Any:
    """How /pooling writes one number: a list, or little-endian float32 in base64."""
    form = wire.field(body, "encoding_format", str, "float")
    if form == "float":
        return lambda value: [value]
    if form == "base64" and body.get("embed_dtype", "float32") == "float32" and body.get("endianness") != "big":
        return lambda value: base64.b64encode(struct.pack("<f", value)).decode()
    raise Refused(400, "encoding_format must be float, or base64 with float32 in little-endian order")


def _pairs(body: Body) -> tuple[list[str], list[str]]:
    """Queries and documents of the same length: one query for all documents, or one each."""
    for first, second in _PAIRS:
        if first in body and second in body:
            queries, documents = _documents(body[first], first), _documents(body[second], second)
            if len(queries) == 1:
                return queries * len(documents), documents
            if len(queries) == len(documents):
                return queries, documents
            raise Refused(400, f"{len(queries)} {first} and {len(documents)} {second}: give one for all, or one each")
    raise Refused(400, "write queries and documents (or items), data_1 and data_2, or text_1 and text_2")


def _documents(value: Any, where: str) -> list[str]:
    if isinstance(value, list) and value:
        return [_document(entry, f"{where}[{number}]") for number, entry in enumerate(value)]
    return [_document(value, where)]


def _document(value: Any, where: str) -> str:
    """A text, or an object whose `content` holds text parts."""
    return wire.content(value["content"] if isinstance(value, dict) and "content" in value else value, where)


def _listed(
    prefix: str, request: Request, body: Body, served: Served, scores: Sequence[Score], data: list[Body]
) -> Body:
    return {
        "id": wire.new_id(prefix, request, body.get("request_id")),
        "object": "list",
        "created": wire.now(),
        "model": served.name,
        "data": data,
        "usage": wire.usage(scores),
    }
