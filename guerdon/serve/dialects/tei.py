"""Text Embeddings Inference, as read in its router (router/src/http): /predict, /rerank, /vertex, /info, /health.

`inputs` as one text is what a chat template has written; a pair, and a query with texts, is a conversation of two turns.
Scores are sigmoids unless `raw_scores` is true, and lists come best first. A request with an item that cannot be scored is
refused whole with 422. Cutting is the contract's business: with `truncate: false` a cut item is refused too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from guerdon import __version__
from guerdon.serve.call import Item, Refused
from guerdon.serve.dialects import wire
from guerdon.serve.dialects.wire import Body, Reply
from guerdon.serve.service import Service
from guerdon.types import Score

# HTTP status and error_type of what is refused, by the status it has elsewhere.
_ERRORS = {
    400: (422, "Validation"), 413: (422, "Validation"), 422: (422, "Tokenizer"), 404: (424, "Backend"),
    429: (429, "Overloaded"), 503: (503, "Unhealthy"), 504: (429, "Overloaded"),
}  # fmt: skip


def routes(service: Service) -> list[BaseRoute]:
    """As TEI lays them out for a model of one label: /rerank, which / and /invocations are too, and /predict."""

    async def predict(request: Request, body: Body) -> Response:
        answer, count = await _predict(service, request, body)
        return Reply(answer, headers=_headers(count))

    async def rerank(request: Request, body: Body) -> Response:
        answer, count = await _rerank(service, request, body)
        return Reply(answer, headers=_headers(count))

    async def vertex(request: Request, body: Body) -> Response:
        instances = body.get("instances")
        if not isinstance(instances, list) or not all(isinstance(entry, dict) for entry in instances):
            raise Refused(400, "instances must be a list of requests")
        found = [await (_rerank if "texts" in entry else _predict)(service, request, entry) for entry in instances]
        return Reply({"predictions": [answer for answer, _ in found]}, headers=_headers(sum(n for _, n in found)))

    async def other(request: Request, body: Body) -> Response:
        raise Refused(404, "model is not an embedding model")

    return [
        wire.post("/predict", predict, refuse),
        *(wire.post(path, rerank, refuse) for path in ("/rerank", "/invocations", "/")),
        wire.post("/vertex", vertex, refuse),
        *(wire.post(f"/{path}", other, refuse) for path in ("embed", "embed_all", "embed_sparse", "similarity")),
        wire.get("/info", _info(service), refuse),
        *(wire.get(path, lambda request: Response(), refuse) for path in ("/health", "/ping", "/")),
    ]


def refuse(refused: Refused) -> Response:
    """TEI's envelope: 422 for what cannot be read or scored, 429 when overloaded, 424 for the wrong kind of model."""
    if refused.status in (401, 403):
        return Response(status_code=401, headers=refused.headers)
    status, kind = _ERRORS.get(refused.status, (refused.status, "Backend"))
    if refused.kind == "empty":
        status, kind = 400, "Empty"
    return Reply({"error": refused.message, "error_type": kind}, status, refused.headers)


async def _predict(service: Service, request: Request, body: Body) -> tuple[Any, int]:
    single, items = _inputs(body.get("inputs"))
    scores = await _scored(service, request, body, items, None)
    rows = [[{"score": value, "label": wire.LABEL}] for value in _values(scores, body)]
    return (rows[0] if single else rows), wire.tokens(scores)


async def _rerank(service: Service, request: Request, body: Body) -> tuple[Any, int]:
    query = wire.text(body.get("query"), "query")
    if body.get("texts") == []:
        raise Refused(400, "`texts` cannot be empty", kind="empty")
    documents = wire.texts(body.get("texts"), "texts")
    items = [wire.pair(query, document) for document in documents]
    scores = await _scored(service, request, body, items, [query] * len(items))
    values, keep = _values(scores, body), wire.field(body, "return_text", bool, False)
    ranks = [
        {"index": index} | ({"text": documents[index]} if keep else {}) | {"score": values[index]}
        for index in wire.ranking(scores)
    ]
    return ranks, wire.tokens(scores)


async def _scored(
    service: Service, request: Request, body: Body, items: list[Item], prompts: Sequence[object] | None
) -> list[Score]:
    wire.field(body, "raw_scores", bool)
    truncate = wire.field(body, "truncate", bool)
    unnamed = {name: value for name, value in body.items() if name != "model"}  # TEI serves one model, and names none
    scores, served = await wire.score(service, request, unnamed, items, prompts)
    wire.require(scores)
    if truncate is False and any(found.truncated for found in scores):
        raise Refused(400, f"`inputs` must have at most {served.max_length} tokens")
    return scores


def _values(scores: Sequence[Score], body: Body) -> list[float]:
    return [float(found) if body.get("raw_scores") else wire.sigmoid(found) for found in scores]


def _inputs(value: Any) -> tuple[bool, list[Item]]:
    """One text, one pair, or a batch of both; and whether it was one, which is answered without a batch's brackets.

    Strings in a list are one pair, never two texts: that is how TEI reads them.
    """
    if value in ("", []):
        raise Refused(400, "`inputs` cannot be empty", kind="empty")
    if isinstance(value, list) and isinstance(value[0], list):
        return False, [_sequence(entry, f"inputs[{number}]") for number, entry in enumerate(value)]
    return True, [_sequence([value] if isinstance(value, str) else value, "inputs")]


def _sequence(value: Any, where: str) -> Item:
    entries = wire.texts(value, where)
    if len(entries) > 2 or isinstance(value, str):
        raise Refused(400, f"{where} must be one text or a pair of texts; a batch is a list of lists")
    return Item(text=entries[0]) if len(entries) == 1 else wire.pair(*entries)


def _headers(count: int) -> dict[str, str]:
    return {"x-compute-tokens": str(count)}


def _info(service: Service) -> Callable[[Request], Response]:
    def info(request: Request) -> Response:
        served = service.model(None)
        labels = {"id2label": {"0": wire.LABEL}, "label2id": {wire.LABEL: 0}}
        return Reply(
            {
                "model_id": served.name,
                "model_sha": served.contract,
                "model_dtype": "float32",
                "model_type": {"reranker": labels},
                "max_concurrent_requests": 512,
                "max_input_length": served.max_length,
                "max_batch_tokens": 16384,
                "max_batch_requests": None,
                "max_client_batch_size": 1024,
                "auto_truncate": True,
                "tokenization_workers": 1,
                "version": __version__,
                "sha": None,
                "docker_label": None,
            }
        )

    return info
