"""GET /runs, GET /runs/{run}, GET /runs/{run}/page and POST /runs/{run}/steps/{step}: what the watch knows, as JSON and as pages."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute

from guerdon.serve import replies, schemas
from guerdon.serve.bodies import json_object
from guerdon.serve.call import Refused
from guerdon.serve.run_page import run_page, runs_page
from guerdon.serve.watch import Watch

# What a page says is kept by no cache, framed by no other page, and its address is sent nowhere.
_HEADERS = {"Cache-Control": "no-store", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}
_PAGE: dict[str, Any] = {"content": {"text/html": {"schema": {"type": "string"}}}}
_JSON: dict[str, Any] = {"content": {"application/json": {"schema": {"type": "object"}}}}
_STEP = {
    "type": "object",
    "properties": {"kl": {"type": "number", "description": "mean of the step, nats per sequence"}},
}


def run_routes(watch: Watch) -> list[BaseRoute]:
    """The routes of the watched runs."""

    async def runs(request: Request) -> Response:
        found = await watch.summaries()
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(runs_page(found, time.time()), headers=_HEADERS)
        return replies.reply({"runs": found})

    async def view(request: Request, run: str) -> Response:
        return replies.reply(await _view(watch, run, request.query_params.get("last")))

    async def page(request: Request, run: str) -> Response:
        found = await _view(watch, run, None)
        return HTMLResponse(await asyncio.to_thread(run_page, found, time.time()), headers=_HEADERS)

    async def end(request: Request, run: str, step: str) -> Response:
        kl = _kl(await request.body())
        if not (step.isascii() and step.isdigit() and len(step) < 17):
            raise Refused(404, "a step is a whole number, 0 or more", kind="run")
        found = await watch.close_step(run, int(step), kl)
        if found is None:
            raise Refused(404, f"this run has no step {step}; score its samples first", kind="run")
        return replies.reply(found)

    api = APIRouter()

    def add(path: str, handler: Any, summary: str, answer: dict[str, Any], method: str = "GET", **more: Any) -> None:
        problems: dict[int | str, Any] = {status: {"model": schemas.ErrorReply} for status in (400, 401, 404, 413)}
        api.add_api_route(path, _refusing(handler), methods=[method], response_model=None, summary=summary,
                          responses=problems | {200: answer}, **more)  # fmt: skip

    body = {"requestBody": {"required": False, "content": {"application/json": {"schema": _STEP}}}}
    last = {
        "name": "last",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**8},
    }
    add(
        "/runs",
        runs,
        "The runs that are watched, the last seen first",
        {"content": _JSON["content"] | _PAGE["content"]},
    )
    add("/runs/{run:path}/page", page, "The same as a page that keeps itself up to date", _PAGE)
    add(
        "/runs/{run:path}/steps/{step}", end, "A step is over; what the monitor says", _JSON, "POST", openapi_extra=body
    )
    add("/runs/{run:path}", view, "Verdict, reason and series of a run", _JSON, openapi_extra={"parameters": [last]})
    return list(api.routes)


def _refusing(handler: Callable[..., Awaitable[Response]]) -> Any:
    """The handler, with what it refuses written as an answer; its signature is kept for the OpenAPI page."""

    @functools.wraps(handler)
    async def answer(*args: Any, **kwargs: Any) -> Response:
        try:
            return await handler(*args, **kwargs)
        except Refused as refused:
            scope = kwargs["request"].scope
            scope["guerdon.reason"] = refused.kind
            return replies.refuse(refused, scope.get("guerdon.id", ""))

    return answer


async def _view(watch: Watch, run: str, last: str | None) -> dict[str, Any]:
    if last is not None and not (last.isascii() and last.isdigit() and len(last) < 10):
        raise Refused(400, "last must be a whole number of steps")
    found = await watch.view(run, None if last is None else int(last))
    if found is None:
        raise Refused(404, "no call has named this run; see GET /runs", kind="run")
    return found


def _kl(raw: bytes) -> float | None:
    body = json_object(raw) if raw else {}
    if body.keys() - {"kl"}:
        raise Refused(400, 'the body may only hold "kl", the mean KL of the step in nats per sequence')
    kl = body.get("kl")
    if kl is None:
        return None
    if isinstance(kl, bool) or not isinstance(kl, int | float) or not abs(kl) < 1e300:
        raise Refused(400, f"kl must be a finite number of nats per sequence, got {str(kl)[:40]}")
    return float(kl)
