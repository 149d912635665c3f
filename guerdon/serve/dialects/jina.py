"""The rerank routes of Jina and Cohere: /v1/rerank and /v2/rerank, as their published clients read them.

Jina and Cohere share the path /v1/rerank, so its reply has the fields of both. `relevance_score` is the sigmoid of the
reward; `raw_scores: true`, which neither of them knows, gives the reward itself. Results come best first. A request with a
document that cannot be scored is refused whole with 422.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from guerdon.serve.call import Refused
from guerdon.serve.dialects import wire
from guerdon.serve.dialects.wire import Body, Reply
from guerdon.serve.service import Service


def routes(service: Service) -> list[BaseRoute]:
    """/v1/rerank (Jina, Cohere v1), /v2/rerank (Cohere v2), and /rerank, which is v1."""

    async def first(request: Request, body: Body) -> Response:
        return Reply(await _rerank(service, request, body, version=1))

    async def second(request: Request, body: Body) -> Response:
        return Reply(await _rerank(service, request, body, version=2))

    def models(request: Request) -> Response:
        names = [{"name": served.name, "endpoints": ["rerank"]} for served in wire.models(service)]
        return Reply({"models": names})

    return [
        *(wire.post(path, first, refuse) for path in ("/rerank", "/v1/rerank")),
        wire.post("/v2/rerank", second, refuse),
        wire.get("/v1/models", models, refuse),
    ]


def refuse(refused: Refused) -> Response:
    """The message under both names: Cohere's clients read `message`, Jina's `detail`."""
    return Reply({"message": refused.message, "detail": refused.message}, refused.status, refused.headers)


async def _rerank(service: Service, request: Request, body: Body, version: int) -> Body:
    query = _document(body.get("query"), "query")
    listed = body.get("documents")
    if not isinstance(listed, list) or not listed:
        raise Refused(400, "documents must be a list that is not empty")
    documents = [_document(entry, f"documents[{number}]") for number, entry in enumerate(listed)]
    top = wire.field(body, "top_n", int)
    if top is not None and top < 1:
        raise Refused(400, f"top_n must be at least 1, got {top}")
    if body.get("rank_fields") not in (None, ["text"]):
        raise Refused(400, "rank_fields must be left out, or be ['text']: documents are texts")
    cut, longest = wire.field(body, "max_tokens_per_doc", int), wire.served(service, request, body).max_length
    if cut is not None and cut < longest:
        raise Refused(400, f"max_tokens_per_doc is {cut}; the scoring contract cuts at {longest}, leave it out")
    raw, keep = wire.field(body, "raw_scores", bool, False), wire.field(body, "return_documents", bool, version == 1)
    items = [wire.pair(query, document) for document in documents]
    scores, served = await wire.score(service, request, body, items, [query] * len(items))
    wire.require(scores, "document")
    usage = wire.tokens(scores)
    reply: Body = {
        "id": wire.new_id("", request),
        "results": [
            {"index": index, "relevance_score": float(scores[index]) if raw else wire.sigmoid(scores[index])}
            | ({"document": {"text": documents[index]}} if keep else {})
            for index in wire.ranking(scores, top)
        ],
        "meta": {"api_version": {"version": str(version)}, "billed_units": {"search_units": 1}},
    }
    if version == 1:
        reply |= {"model": served.name, "object": "list"}
        reply |= {"usage": {"prompt_tokens": usage, "total_tokens": usage}}
    return reply


def _document(value: Any, where: str) -> str:
    """A text, or an object that holds it as `text`."""
    return wire.text(value.get("text") if isinstance(value, dict) else value, where)
