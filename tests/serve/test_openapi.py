"""Schemathesis over the OpenAPI document: whatever is sent, nothing is answered with 5xx."""

from __future__ import annotations

import re

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from serving import service_of
from starlette.testclient import TestClient

from guerdon.serve.app import DIALECTS, create_app
from guerdon.serve.keys import KeyRing, add_key


@schemathesis.serializer("application/x-ndjson")
def as_lines(context, value):
    return str(value).encode("utf-8", "surrogatepass")


def keys(folder):
    add_key(folder / "keys.json", "me")
    return folder / "keys.json"


service = service_of()
schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service))


def few(examples):
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@schema.include(tag=list(DIALECTS)).parametrize()
@few(5)
def test_no_request_breaks_a_dialect(case):
    require_no_fault(case)


@schema.exclude(tag=list(DIALECTS)).parametrize()
@few(25)
def test_no_request_breaks_the_server(case):
    require_no_fault(case)


def require_no_fault(case):
    if case.path == "/ready":
        pytest.skip("503 is its answer while the queue is full")
    response = case.call()
    if response.status_code == 504 and "X-Guerdon-Timeout" in case.headers:
        return  # its deadline was too near
    case.validate_response(response, checks=[not_a_server_error])
    assert response.status_code < 500


def names_of(operation, place=None):
    parts = schema.raw_schema["components"]["parameters"]
    given = [parts[one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in operation["parameters"]]
    return {one["name"] for one in given if place in (None, one["in"])}


def test_the_document_knows_headers_queries_and_the_answers_of_any_route():
    paths = schema.raw_schema["paths"]
    score, stream = paths["/v1/score"]["post"], paths["/v1/score/stream"]["post"]
    tags = {f"X-Guerdon-{name}" for name in ("Model", "Reward", "Run", "Step", "KL", "Timeout")}
    assert names_of(score) == tags | {"If-Match", "Idempotency-Key"}
    assert names_of(stream, "query") == {"model", "reward", "run", "step", "contract"}
    assert all(
        {"401", "405", "429", "500"} <= one["responses"].keys() for one in (score, stream, paths["/health"]["get"])
    )
    assert {name for way in schema.raw_schema["security"] for name in way} == {"bearer", "header", "password"}
    assert schema.raw_schema["components"]["schemas"]["ScoreRequest"]["additionalProperties"] is False


def test_every_route_of_every_dialect_is_in_the_document():
    paths = schema.raw_schema["paths"]
    found = {operation["tags"][0] for one in paths.values() for operation in one.values() if "tags" in operation}
    assert found == set(DIALECTS)
    assert {"X-Guerdon-Run", "model"} <= names_of(paths["/kserve/v1/models/{model}:predict"]["post"])
    for path, operations in paths.items():
        for operation in operations.values():
            assert set(re.findall(r"{(\w+)}", path)) == names_of({"parameters": []} | operation, "path")


def test_a_dialect_at_the_root_leaves_native_routes_as_they_are(tmp_path):
    app = create_app(service, dialect="sglang", keys=KeyRing(keys(tmp_path)))
    document = app.openapi()
    assert "tags" not in document["paths"]["/v1/score"]["post"]
    assert document["paths"]["/classify"]["post"]["tags"] == ["sglang"]
    client = TestClient(app)
    assert client.post("/v1/score", json={}).json()["error"]["kind"] == "key"  # in the native envelope


def test_the_page_of_routes_needs_nothing_else():
    page = TestClient(create_app(service)).get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in schema.raw_schema["paths"]:
        assert path in page.text
    for said in ("http://", "https://", "<script", "src="):
        assert said not in page.text
    assert "rule for an ensemble" in page.text
