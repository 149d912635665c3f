"""GET /runs, GET /runs/{id}, GET /runs/{id}/page and POST /runs/{id}/steps/{step}: what the watch knows, as JSON and as pages."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from guerdon.serve.call import Refused
from guerdon.serve.run_page import run_page, runs_page
from guerdon.serve.watch import Watch

LARGEST = 1 << 16  # bytes of a body
# A page that shows a run: nothing it says is kept by a cache, framed by another page, or sent on as an address.
HEADERS = {"Cache-Control": "no-store", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}


def routes(watch: Watch, refuse: Callable[[Refused], Response]) -> list[Route]:
    """The routes of the watch; `refuse` writes what cannot be answered."""

    async def runs(request: Request) -> Response:
        found = await watch.summaries()
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(runs_page(found, time.time()), headers=HEADERS)
        return JSONResponse({"runs": found})

    async def run(request: Request) -> Response:
        try:
            return JSONResponse(await _view(watch, request))
        except Refused as refused:
            return refuse(refused)

    async def page(request: Request) -> Response:
        try:
            view = await _view(watch, request)
        except Refused as refused:
            return refuse(refused)
        return HTMLResponse(await asyncio.to_thread(run_page, view, time.time()), headers=HEADERS)

    async def end(request: Request) -> Response:
        try:
            kl = _kl(await _body(request))
            step = request.path_params["step"]
            found = await watch.close_step(request.path_params["run"], step, kl)
            if found is None:
                raise Refused(404, f"run and step {step} are not known; score its samples first", kind="run")
            return JSONResponse(found)
        except Refused as refused:
            return refuse(refused)

    return [
        Route("/runs", runs, methods=["GET"]),
        Route("/runs/{run}", run, methods=["GET"]),
        Route("/runs/{run}/page", page, methods=["GET"]),
        Route("/runs/{run}/steps/{step:int}", end, methods=["POST"]),
    ]


async def _view(watch: Watch, request: Request) -> dict[str, Any]:
    last = request.query_params.get("last")
    if last is not None and not (last.isascii() and last.isdigit() and len(last) < 10):
        raise Refused(400, "last must be a whole number of steps")
    view = await watch.view(request.path_params["run"], None if last is None else int(last))
    if view is None:
        raise Refused(404, "no call has named this run; see GET /runs", kind="run")
    return view


async def _body(request: Request) -> Any:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST:
            raise Refused(413, f"the body has more than {LARGEST:,} bytes", kind="size")
    try:
        return json.loads(content) if content else {}
    except (ValueError, RecursionError):
        raise Refused(400, 'the body is not JSON; send {"kl": nats per sequence} or nothing') from None


def _kl(body: Any) -> float | None:
    if not isinstance(body, dict) or body.keys() - {"kl"}:
        raise Refused(400, 'the body may only hold "kl", the mean KL of the step in nats per sequence')
    kl = body.get("kl")
    if kl is None:
        return None
    if isinstance(kl, bool) or not isinstance(kl, int | float) or not math.isfinite(kl):
        raise Refused(400, f"kl must be a finite number of nats per sequence, got {str(kl)[:40]}")
    return float(kl)
