"""Guerdon's own API: /v1/score, /v1/score/stream, /v1/best_of_n, /v1/models, /v1/info, /health, /ready, /metrics."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from guerdon import __version__
from guerdon.serve import replies, schemas
from guerdon.serve.bodies import completions_of, items_of, json_object, prompt_of, require_known, turns_of
from guerdon.serve.cache import ReplyCache
from guerdon.serve.call import Call, Item, Refused, call_of
from guerdon.serve.models import Loaded
from guerdon.serve.openapi import STREAM_QUERY
from guerdon.serve.service import Measured, Service
from guerdon.serve.stream import LineScores

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorReply, "description": text}
    for status, text in {
        400: "the request cannot be read",
        401: "no API key, or a wrong one",
        404: "no such model",
        408: "the body did not arrive in time",
        412: "the model has another contract",
        413: "too many bytes, items or tokens",
        422: "the idempotency key belongs to another request",
        429: "too much is waiting (Retry-After), or too many wrong keys",
        503: "the server is stopping",
        504: "the deadline (X-Guerdon-Timeout) passed",
    }.items()
}


def body_of(name: str) -> dict[str, Any]:
    """The OpenAPI entry for a request body with the schema of that name."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def router(service: Service, dialects: Sequence[str] = ()) -> APIRouter:
    """All native routes. Bodies are read by hand, so that a score does not wait for a validation it does not need."""
    config = service.config
    cache = ReplyCache(config.cache_seconds, config.cache_mb * 1e6)
    api = APIRouter()

    def answered(handle: Callable[[Request, dict[str, Any]], Awaitable[dict[str, Any]]]) -> Any:
        """A route around a handler: reads the object, answers what is refused, replies from the cache to a retry."""

        async def answer(request: Request) -> Response:
            try:
                raw = await request.body()
                key = request.headers.get("idempotency-key")
                known = False
                if key is None:
                    content = replies.dumps(await handle(request, json_object(raw)))
                else:
                    if not 0 < len(key) <= 256:
                        raise Refused(400, "Idempotency-Key must have 1 to 256 characters")

                    async def make() -> bytes:
                        return replies.dumps(await handle(request, json_object(raw)))

                    tags = [request.headers.get(f"x-guerdon-{name}", "") for name in ("model", "run", "step", "reward")]
                    digest = sha256(raw + repr((tags, request.headers.get("if-match"))).encode()).digest()
                    whose = (request.scope.get("guerdon.key", ""), request.scope["path"], key)
                    content, known = await cache.once(whose, digest, make)
                    if known:
                        service.metrics.cached.inc()
                headers = {"Idempotency-Replayed": "true"} if known else {}
                contract = json.loads(content).get("contract") if known else request.scope.get("guerdon.contract")
                return Response(
                    content, 200, headers | ({"ETag": f'"{contract}"'} if contract else {}), "application/json"
                )
            except Refused as refused:
                request.scope["guerdon.reason"] = refused.kind
                return replies.refuse(refused, request.scope.get("guerdon.id", ""))

        return answer

    async def score(request: Request, body: dict[str, Any]) -> dict[str, Any]:
        require_known(body, schemas.ScoreRequest.model_fields)
        call, items = call_of(request, body), items_of(body)
        measured, reference = await _with_reference(service, items, call, body)
        _note(request, measured)
        return replies.score_reply(measured, call.reward, reference)

    async def best_of_n(request: Request, body: dict[str, Any]) -> dict[str, Any]:
        require_known(body, schemas.BestOfNRequest.model_fields)
        call, items = call_of(request, body), completions_of(body)
        answers = body.get("answers")
        if answers is not None and not (
            isinstance(answers, list)
            and len(answers) == len(items)
            and all(answer is None or isinstance(answer, str) for answer in answers)
        ):
            raise Refused(400, "answers must be a list with one text or null for each completion")
        measured, reference = await _with_reference(service, items, call, body)
        _note(request, measured)
        index, margin = replies.best(body["completions"], measured.scores)
        scale = measured.served.temperature or 1.0
        return replies.score_reply(measured, call.reward, reference) | {
            "index": index,
            "margin": margin,
            "kl_bound": replies.kl_bound(len(items)),
            "scale": scale,
            "votes": replies.votes(answers, measured.scores, scale) if answers else [],
        }

    async def stream(request: Request) -> Response:
        try:
            query: dict[str, Any] = dict(request.query_params)
            require_known(query, STREAM_QUERY, "the address of a stream")
            if isinstance(step := query.get("step"), str) and step.isascii() and step.isdigit() and len(step) < 18:
                query["step"] = int(step)
            call = call_of(request, query)
            service.require(call, service.loaded(call.model))
            return LineScores(service, call)
        except Refused as refused:
            return replies.refuse(refused, request.scope.get("guerdon.id", ""))

    async def models() -> Response:
        data = [model_info(service.loaded(name)) for name in service.names]
        return replies.reply({"object": "list", "data": data})

    async def info() -> Response:
        loaded = [service.loaded(name) for name in service.names]
        limits = {
            "max_items": config.max_items,
            "max_body": int(config.max_body * 1e6),
            "body_seconds": config.body_seconds,
        }
        return replies.reply(
            {
                "name": "guerdon",
                "version": __version__,
                "default_model": service.names[0],
                "models": [model_info(one) for one in loaded],
                "load": {one.served.name: _load(service, one) for one in loaded},
                "limits": limits,
                "dialects": list(dialects),
            }
        )

    async def swap(request: Request, name: str) -> Response:
        try:
            if not (request.scope.get("guerdon.admin") and request.scope.get("guerdon.key")):
                raise Refused(403, "only an admin key may swap a model: guerdon serve-key add NAME --admin", kind="key")
            body = json_object(await request.body())
            require_known(body, schemas.SwapRequest.model_fields)
            path, force = body.get("path"), body.get("force", False)
            if not isinstance(path, str) or not path or not isinstance(force, bool):
                raise Refused(400, "a swap needs a text `path` and may have `force`: true or false")
            await service.swap(name, path, force=force)
            return replies.reply(model_info(service.loaded(name)))
        except Refused as refused:
            return replies.refuse(refused, request.scope.get("guerdon.id", ""))

    async def health() -> Response:
        return replies.reply({"status": "ok"})

    async def ready() -> Response:
        if service.is_ready:
            return replies.reply({"status": "ready"})
        return replies.reply({"status": "draining" if service.is_draining else "full"}, 503)

    async def metrics() -> Response:
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    def add(path: str, handler: Any, method: str, model: Any, summary: str, **more: Any) -> None:
        api.add_api_route(
            path, handler, methods=[method], response_model=None, summary=summary,
            responses={200: {"model": model}} | {k: v for k, v in _PROBLEMS.items() if method == "POST" or k == 401} | more.pop("responses", {}),
            **more,
        )  # fmt: skip

    add(
        "/v1/score",
        answered(score),
        "POST",
        schemas.ScoreReply,
        "Score conversations",
        openapi_extra=body_of("ScoreRequest"),
    )
    add(
        "/v1/best_of_n",
        answered(best_of_n),
        "POST",
        schemas.BestOfNReply,
        "Choose among completions of one prompt",
        openapi_extra=body_of("BestOfNRequest"),
    )
    lines = {"requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {"type": "string"}}}}}
    add(
        "/v1/score/stream",
        stream,
        "POST",
        schemas.Scored,
        "Score lines as they come, in the order of completion",
        openapi_extra=lines,
    )
    add("/v1/models", models, "GET", schemas.ModelsReply, "The models that are served")
    add("/v1/models/{name}/swap", swap, "POST", schemas.ModelInfo, "Put another model in its place (admin key)",
        openapi_extra=body_of("SwapRequest"), responses={403: _PROBLEMS[401], 409: _PROBLEMS[422]})  # fmt: skip
    add("/v1/info", info, "GET", schemas.InfoReply, "Version, models, load and limits")
    add("/health", health, "GET", schemas.Health, "Is the process alive")
    for path, handler in (("/health", health), ("/ready", ready)):  # load balancers ask for the head alone
        api.add_api_route(path, handler, methods=["HEAD"], response_model=None, include_in_schema=False)
    add("/ready", ready, "GET", schemas.Health, "Are requests welcome", responses={503: {"model": schemas.Health}})
    api.add_api_route("/metrics", metrics, methods=["GET"], response_model=None, summary="Counters for Prometheus",
                      responses={200: {"content": {"text/plain": {}}}})  # fmt: skip
    return api


async def _with_reference(
    service: Service, items: list[Item], call: Call, body: dict[str, Any]
) -> tuple[Measured, float | None]:
    """Scores of the items, and the reward that probabilities compare with: a number, a completion of the same prompt that is
    scored along, or what the model brings."""
    reference = body.get("reference")
    if reference is None:
        measured = await service.measure(items, call)
        return measured, measured.served.reference
    if isinstance(reference, int | float) and not isinstance(reference, bool):
        if not abs(reference) < 1e300:
            raise Refused(400, "reference must be a finite number")
        return await service.measure(items, call), float(reference)
    if body.get("prompt") is None:
        raise Refused(400, "a reference completion needs a prompt; else reference is a number")
    messages = (*prompt_of(body["prompt"]), *turns_of(reference, "reference", "assistant"))
    call = replace(call, groups=None)
    measured = await service.measure([*items, Item(messages=messages)], call, unwatched=1)
    *scores, last = measured.scores
    distances = None if measured.distances is None else measured.distances[:-1]
    return replace(measured, scores=scores, distances=distances), last.mean if last.status == "ok" else None


def _note(request: Request, measured: Measured) -> None:
    """What the log and the headers say about a request."""
    request.scope["guerdon.contract"] = measured.served.contract
    request.scope["guerdon.log"] = {
        "model": measured.served.name,
        "items": len(measured.scores),
        "tokens": sum(score.tokens for score in measured.scores),
    }


def model_info(loaded: Loaded) -> dict[str, Any]:
    """A model as /v1/models shows it; the first four fields are those of OpenAI's list."""
    served = loaded.served
    members: Any = getattr(loaded.model, "models", (loaded.model,))
    return {
        "id": served.name,
        "object": "model",
        "created": int(loaded.since),
        "owned_by": "guerdon",
        "contract": served.contract,
        "fingerprint": served.fingerprint,
        "max_length": served.max_length,
        "members": served.members,
        "rules": list(served.rules),
        "reward": served.rule,
        "temperature": served.temperature,
        "reference": served.reference,
        "shares_prefix": all(member.shares_prefix for member in members),
        "out_of_distribution": loaded.novelty is not None,
    }


def _load(service: Service, loaded: Loaded) -> dict[str, Any]:
    return {
        "queue_tokens": loaded.queue.tokens,
        "queue_limit": loaded.queue.limit,
        "tokens_per_second": round(loaded.rate, 1),
        "tokens_per_character": round(loaded.estimate.ratio, 4),
        "drain_seconds": round(loaded.drain, 3),
        "active_runs": len(service.active_runs(loaded.served.name)),
    }
