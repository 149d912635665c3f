"""The OpenAPI document: what FastAPI knows of the native routes and, beside it, the bodies and headers that are read by hand,
the answers that any route may give, and the routes of the dialects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, Route

from guerdon.serve import schemas

STREAM_QUERY = ("model", "reward", "run", "step", "contract")  # of a stream, whose lines have no place for them
_TEXT, _NUMBER = {"type": "string", "maxLength": 256}, {"type": "number"}
_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Guerdon-Model": ("name of the model, where the body has none", _TEXT),
    "X-Guerdon-Reward": ("rule for an ensemble, where the body has none", _TEXT),
    "X-Guerdon-Run": ("policy run, where the body has none", _TEXT),
    "X-Guerdon-Step": ("step of the run, where the body has none", {"type": "integer", "minimum": 0}),
    "X-Guerdon-KL": ("nats between policy and reference, where the body has none", _NUMBER),
    "X-Guerdon-Timeout": ("seconds after which the answer is of no use: 504", _NUMBER | {"exclusiveMinimum": 0}),
    "If-Match": ("contract hash: 412 unless the model has this contract", _TEXT),
    "Idempotency-Key": ("a retry with it is not scored again", _TEXT | {"minLength": 1}),
}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "password": {"type": "http", "scheme": "basic", "description": "any name, the key as password"},
}
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorReply"}}}
_ANY = {
    "401": "no API key, or a wrong one",
    "405": "this route has another method",
    "429": "too much is waiting (Retry-After), or too many wrong keys",
    "500": "the server made a mistake; its log has the traceback under the request id",
}
_IDEMPOTENT = ("/v1/score", "/v1/best_of_n")
_SCORED = (*_IDEMPOTENT, "/v1/score/stream")


def document(app: FastAPI, dialects: Iterable[tuple[str, str, Sequence[BaseRoute]]]) -> dict[str, Any]:
    """The document of an application. `dialects` are (name, prefix, routes); the prefix is empty at the root."""
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    bodies = (schemas.ScoreRequest, schemas.BestOfNRequest, schemas.SwapRequest, schemas.ErrorReply)
    _, more = models_json_schema([(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}")
    parts = found["components"]
    parts["schemas"] = {name: one for name, one in parts["schemas"].items() if "ValidationError" not in name} | more[
        "$defs"
    ]
    parts["parameters"] = {
        name: {"name": name, "in": "header", "description": text, "required": False, "schema": schema}
        for name, (text, schema) in _HEADERS.items()
    }
    parts["securitySchemes"] = _KEYS
    found["security"] = [{name: []} for name in _KEYS]
    for path, operations in found["paths"].items():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]  # FastAPI's own, which no route here gives
            for status, text in _ANY.items():
                operation["responses"].setdefault(status, {"description": text, "content": _ERROR})
            if path in _SCORED:
                operation.setdefault("parameters", []).extend(_headers(path in _IDEMPOTENT))
    query = schemas.Options.model_json_schema()["properties"]
    found["paths"]["/v1/score/stream"]["post"]["parameters"] += [
        {"name": name, "in": "query", "required": False, "schema": query[name]} for name in STREAM_QUERY
    ]
    for name, prefix, routes in dialects:
        for route in routes:
            if isinstance(route, Route):
                _add(found["paths"], name, prefix, route)
    return found


def _headers(is_idempotent: bool) -> list[dict[str, str]]:
    names = [name for name in _HEADERS if is_idempotent or name != "Idempotency-Key"]
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _add(paths: dict[str, Any], dialect: str, prefix: str, route: Route) -> None:
    path = re.sub(r"{(\w+):\w+}", r"{\1}", (prefix + route.path).rstrip("/") or "/")
    names = re.findall(r"{(\w+)}", path)
    named = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    body = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    for method in sorted((route.methods or set()) - {"HEAD"}):
        is_post = method == "POST"
        paths.setdefault(path, {})[method.lower()] = {
            "tags": [dialect],
            "summary": "In the fields of the dialect (docs/dialects.md)",
            "parameters": named + (_headers(False) if is_post else []),
            "responses": {
                "200": {"description": "as the dialect answers"},
                "default": {"description": "an error in the envelope of the dialect"},
            },
        } | ({"requestBody": body} if is_post else {})
