"""The web application: native routes, dialects under their prefixes and one of them at the root, behind one door."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from guerdon import __version__
from guerdon.serve import native, replies
from guerdon.serve.call import Refused
from guerdon.serve.docs_page import docs_page
from guerdon.serve.door import Door, Refuse, refusal
from guerdon.serve.keys import KeyRing
from guerdon.serve.openapi import document
from guerdon.serve.service import Service
from guerdon.types import ConfigError

# One file each in serve/dialects/; `nemo_gym` is mounted at /nemo-gym.
DIALECTS = ("vllm", "sglang", "tei", "jina", "infinity", "openrlhf", "slime", "nemo_gym", "kserve")
_DIRECT = ("/v1/score",)  # answered by its handler itself, without the layers of the framework
_ABOUT = (
    "Rewards of conversations from frozen, checked reward models. Each score says how it came about; none is invented."
)


def create_app(
    service: Service, dialect: str | None = None, keys: KeyRing | None = None, routes: list[BaseRoute] | None = None
) -> FastAPI:
    """The application around a service.

    dialect  the one that also answers at the root, where the native API has no route of its own
    keys     every route asks for one of them; None: no route does
    routes   further routes, of the watched runs
    """
    name = None if dialect is None else dialect.replace("-", "_")
    if name is not None and name not in DIALECTS:
        raise ConfigError(f"--dialect {dialect}: is not known; choose one of {', '.join(DIALECTS)}")
    found = {one: module for one in DIALECTS if (module := _dialect(one)) is not None}
    envelopes: dict[str, Refuse] = {}
    refuse = refusal(envelopes, replies.refuse)
    app = FastAPI(
        title="Guerdon",
        version=__version__,
        description=_ABOUT,
        exception_handlers={HTTPException: functools.partial(_http_error, refuse)},
        docs_url=None,
        redoc_url=None,
    )
    api = native.router(service, list(found))
    direct = {route.path: route.endpoint for route in api.routes if isinstance(route, Route) and route.path in _DIRECT}
    app.router.routes.extend([*api.routes, *(routes or [])])
    spoken: list[tuple[str, str, list[BaseRoute]]] = []
    for one, module in found.items():
        prefix = "/" + one.replace("_", "-")
        spoken.append((one, prefix, module.routes(service)))
        app.router.routes.extend(_mounted(*spoken[-1][1:]))
        envelopes[prefix] = module.refuse
    if name is not None and name in found:
        own = {getattr(route, "path", "") for route in app.routes}
        at_root = [route for route in found[name].routes(service) if route.path not in own]
        app.router.routes.extend(at_root)
        spoken.append((name, "", at_root))
        envelopes |= {route.path: found[name].refuse for route in at_root}
    whole = functools.cache(lambda: document(app, spoken))
    app.openapi = whole  # type: ignore[method-assign]
    app.router.routes.append(Route("/docs", lambda _: HTMLResponse(docs_page(whole())), methods=["GET"]))
    app.add_middleware(Door, service=service, keys=keys, refuse=refuse, direct=direct)
    return app


def _mounted(prefix: str, routes: list[BaseRoute]) -> list[BaseRoute]:
    """The routes under a prefix. One at `/` answers at the bare prefix too, without sending its caller on."""
    bare = [route for route in routes if isinstance(route, Route) and route.path == "/"]
    return [
        *(Route(prefix, route.endpoint, methods=list(route.methods or ())) for route in bare),
        Mount(prefix, routes=routes),
    ]


def _dialect(name: str) -> Any:
    """The module of a dialect; None where this release does not have it."""
    if importlib.util.find_spec("guerdon.serve.dialects") is None:
        return None
    path = f"guerdon.serve.dialects.{name}"
    return importlib.import_module(path) if importlib.util.find_spec(path) else None


async def _http_error(choose: Callable[[str], Refuse], request: Request, error: Exception) -> Response:
    """404 and 405 of the router, in the envelope of the dialect."""
    assert isinstance(error, HTTPException)
    words = {404: f"there is nothing at {request.scope['path'][:200]}; see /docs", 405: "this route has another method"}
    refused = Refused(error.status_code, words.get(error.status_code, str(error.detail)), kind="route")
    refuse = choose(request.scope["path"])
    is_native = refuse is replies.refuse
    response = replies.refuse(refused, request.scope.get("guerdon.id", "")) if is_native else refuse(refused)
    response.status_code = refused.status  # which TEI's own errors would change
    response.headers.update(error.headers or {})
    return response
