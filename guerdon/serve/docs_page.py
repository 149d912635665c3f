"""The page at /docs: every route of the OpenAPI document with its fields, in one file that fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from guerdon.diagnose.page import Html, document, element, grid, wrap

STYLE = """
h3 { margin: 30px 0 4px; } h3 code, td:first-child { font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
td:first-child:not(:last-child) { width: 34%; } h3 + p { margin-bottom: 0; } a { color: var(--accent); }
"""


def docs_page(api: Mapping[str, Any]) -> str:
    """The document as a page: native routes first, each with what it takes and gives, then those of the dialects."""
    schemas: Mapping[str, Any] = api["components"]["schemas"]
    parts: list[Html] = [
        element("p", f"{api['info']['title']} {api['info']['version']}", "kicker"),
        element("h1", "Routes of this server"),
        Html(
            f'<p>{escape(api["info"]["description"])} The same for programs: <a href="openapi.json">openapi.json</a>.</p>'
        ),
    ]
    dialects: dict[str, list[tuple[str, str]]] = {}
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            if operation.get("tags"):
                dialects.setdefault(operation["tags"][0], []).append((method.upper(), path))
            else:
                parts += _route(method.upper(), path, operation, schemas)
    parts.append(element("h2", "Headers"))
    headers = api["components"]["parameters"].values()
    parts.append(grid((), [(one["name"], one["description"]) for one in headers], numbers_from=2))
    for name, routes in dialects.items():
        parts += [element("h2", f"Dialect: {name}"), grid((), [(f"{m} {path}",) for m, path in routes], numbers_from=2)]
    return document("Routes of this server", parts, style=STYLE)


def _route(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[Html]:
    yield wrap("h3", [element("code", f"{method} {path}")])
    yield element("p", operation.get("summary", ""))
    query = [(one["name"], "in the query") for one in operation.get("parameters", ()) if one.get("in") == "query"]
    for says, part in (("takes", operation.get("requestBody", {})), ("answers", operation["responses"].get("200", {}))):
        reference = part.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
        fields = schemas.get(reference.rpartition("/")[2], {}).get("properties", {})
        rows = [(name, one.get("description", "")) for name, one in fields.items()]
        if rows := rows + (query if says == "takes" else []):
            yield element("p", says, "note")
            yield grid((), rows, numbers_from=2)
