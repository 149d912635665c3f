"""infinity-emb, as read in infinity-emb 0.0.78: /classify, /rerank and /models, with the same paths under /v1.

Scores are sigmoids unless `raw_scores` is true, and rankings come best first. `input` holds texts that a chat template
has written; a query with a document is a conversation of two turns. A request with an item that cannot be scored is
refused whole with 422.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from guerdon.serve.call import Item, Refused, Served
from guerdon.serve.dialects import wire
from guerdon.serve.dialects.wire import Body, Reply
from guerdon.serve.service import Service
from guerdon.types import Score

_DEFAULT = "default/not-specified"  # what infinity takes a request without a model to ask for


def routes(service: Service) -> list[BaseRoute]:
    """Every path with and without /v1, because infinity's own prefix can be set to either."""

    async def classify(request: Request, body: Body) -> Response:
        if not isinstance(body.get("input"), list):
            raise Refused(422, "input must be a list of texts that is not empty")
        items = [Item(text=entry) for entry in wire.texts(body["input"], "input")]
        scores, served = await _scored(service, request, body, items, None)
        rows = [[{"score": value, "label": wire.LABEL}] for value in _values(scores, body)]
        return Reply({"object": "classify", "data": rows} | _tail(served, scores))

    async def rerank(request: Request, body: Body) -> Response:
        query = wire.text(body.get("query"), "query")
        if not isinstance(body.get("documents"), list):
            raise Refused(422, "documents must be a list of texts that is not empty")
        documents = wire.texts(body["documents"], "documents")
        top = wire.field(body, "top_n", int)
        if top is not None and top < 1:
            raise Refused(422, f"top_n must be above 0, got {top}")
        items = [wire.pair(query, document) for document in documents]
        scores, served = await _scored(service, request, body, items, [query] * len(items))
        values, keep = _values(scores, body), wire.field(body, "return_documents", bool, False)
        results = [
            {"relevance_score": values[index], "index": index, "document": documents[index] if keep else None}
            for index in wire.ranking(scores, top)
        ]
        return Reply({"object": "rerank", "results": results} | _tail(served, scores))

    def models(request: Request) -> Response:
        data = [
            {"id": served.name, "stats": {}, "object": "model", "owned_by": "infinity", "created": 0}
            | {"backend": "torch", "capabilities": ["classify", "rerank"]}
            for served in wire.models(service)
        ]
        return Reply({"data": data, "object": "list"})

    return [
        *(wire.post(f"{prefix}/classify", classify, refuse) for prefix in ("", "/v1")),
        *(wire.post(f"{prefix}/rerank", rerank, refuse) for prefix in ("", "/v1")),
        *(wire.get(f"{prefix}/models", models, refuse) for prefix in ("", "/v1")),
        wire.get("/health", lambda request: Reply({"unix": time.time()}), refuse),
    ]


def refuse(refused: Refused) -> Response:
    """FastAPI's `detail` for what cannot be read (422), the OpenAI envelope for the rest; an unknown model is 400."""
    if refused.kind in ("invalid", "json") and refused.status in (400, 422):
        detail = [{"type": "value_error", "loc": ["body"], "msg": refused.message}]
        return Reply({"detail": detail}, 422, refused.headers)
    if refused.status in (401, 403):
        return Reply({"detail": "Unauthorized"}, 401, refused.headers)
    status = 400 if refused.status == 404 else refused.status
    error = {"message": refused.message, "type": None, "param": None, "code": status}
    return Reply({"error": error}, status, refused.headers)


async def _scored(
    service: Service, request: Request, body: Body, items: list[Item], prompts: Sequence[object] | None
) -> tuple[list[Score], Served]:
    wire.field(body, "raw_scores", bool)
    named = {name: value for name, value in body.items() if name != "model" or value != _DEFAULT}
    scores, served = await wire.score(service, request, named, items, prompts)
    wire.require(scores)
    return scores, served


def _values(scores: Sequence[Score], body: Body) -> list[float]:
    return [float(found) if body.get("raw_scores") else wire.sigmoid(found) for found in scores]


def _tail(served: Served, scores: Sequence[Score]) -> Body:
    count = wire.tokens(scores)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"model": served.name, "usage": usage, "id": wire.new_id("infinity-"), "created": wire.now()}
