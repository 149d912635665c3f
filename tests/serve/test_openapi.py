"""Schemathesis over the OpenAPI document: whatever is sent, nothing is answered with 5xx."""

from __future__ import annotations

import json
import re

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from serving import service_of
from starlette.testclient import TestClient

from guerdon.serve.app import DIALECTS, create_app
from guerdon.serve.keys import KeyRing, add_key
from guerdon.serve.run_routes import run_routes
from guerdon.serve.watch import Watch


@schemathesis.serializer("application/x-ndjson")
def as_lines(context, value):
    return str(value).encode("utf-8", "surrogatepass")


def keys(folder):
    add_key(folder / "keys.json", "me")
    return folder / "keys.json"


service = service_of()
service.watch = seen = Watch(service)
app = create_app(service, routes=run_routes(seen))
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture(scope="module", autouse=True)
def watching():
    seen.start()
    yield
    seen.stop()


def few(examples):
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@schema.include(tag=list(DIALECTS)).parametrize()
@few(5)
def test_no_request_breaks_a_dialect(case):
    require_no_fault(case)


@schema.exclude(tag=list(DIALECTS)).parametrize()
@few(40)
def test_no_request_breaks_the_server(case):
    require_no_fault(case)


def require_no_fault(case):
    if case.path == "/ready":
        pytest.skip("503 is its answer while the queue is full")
    # Each call here has an event loop of its own: one that gives up early would leave its batch behind in a loop that is gone,
    # and the next call would wait for it. tests/serve/test_faults.py has deadlines, in one loop, as a server has.
    case.headers.pop("X-Guerdon-Timeout", None)
    response = case.call()
    case.validate_response(response, checks=[not_a_server_error])
    assert response.status_code < 500


TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TAGS = {"run": "r", "step": 1, "kl": 0.5, "model": "rm", "reward": "mean", "contract": "letters", "reference": 0.5}
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
ASKED = {"instructions": "i", "input": TALK[:1]}
RIGHT = [
    ("/v1/score", {"conversations": [TALK, TALK]} | TAGS | {"kl": [0.5, 1]}),
    ("/v1/score", {"messages": TALK} | TAGS),
    ("/v1/score", {"texts": ["a"]} | TAGS),
    ("/v1/score", {"ids": [[1, 2]]} | TAGS),
    ("/v1/best_of_n", {"prompt": "p", "completions": ["a", TALK[1:]], "answers": ["a", None]} | TAGS | {"kl": [1, 1]}),
    ("/v1/score/stream?run=r&step=1", {"messages": TALK, "id": "one"}),
    ("/v1/models/rm/swap", {"path": "other", "force": True}),
    ("/runs/r/steps/1", {"kl": 0.5}),
    ("/kserve/v2/models/rm/infer", {"inputs": [TENSOR], "id": "i"}),
    ("/kserve/v1/models/rm:predict", {"instances": ["a", {"messages": TALK}]}),
    ("/nemo-gym/verify", {"responses_create_params": ASKED, "response": {"output": TALK[1:]}}),
]
NONSENSE = [
    *("null", "true", "-1", "1e999", "-1" + "0" * 400, '"\\ud800"', '"\\u00b2"', "[]", "{}", "[null]", '[["a"]]', '[{}]'),
    '"' + "x" * 5000 + '"', "[" * 960 + "]" * 960,
]  # fmt: skip


def spoiled(value, how):
    """JSON texts of a value with one part of it, each in turn, replaced."""
    yield how
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, part in parts:
        for other in spoiled(part, how):
            texts = {
                key: json.dumps(one) for key, one in (value.items() if isinstance(value, dict) else enumerate(value))
            }
            texts[place] = other
            if isinstance(value, dict):
                yield "{" + ", ".join(f'"{key}": {one}' for key, one in texts.items()) + "}"
            else:
                yield "[" + ", ".join(texts.values()) + "]"


@pytest.mark.parametrize(("path", "body"), RIGHT)
def test_no_spoiled_part_of_a_right_request_is_our_mistake(path, body, tmp_path, monkeypatch, request):
    monkeypatch.setattr("guerdon.model.load.HfApi", lambda: 1 / 0)  # what a swap names is asked for nowhere
    key = add_key(tmp_path / "keys.json", "me", admin=True)
    own = service_of()
    own.watch = watch = Watch(own)
    watch.start()
    request.addfinalizer(watch.stop)
    made = create_app(own, keys=KeyRing(tmp_path / "keys.json"), routes=run_routes(watch))
    client = TestClient(made, raise_server_exceptions=False, headers={"X-API-Key": key})
    assert client.post(path, json=body).status_code in (200, 404, 422)
    for how in NONSENSE:
        for sent in spoiled(body, how):
            reply = client.post(path, content=sent)
            assert reply.status_code < 500, f"{sent[:2000]}: {reply.text}"
            assert "the stream failed" not in reply.text, sent[:2000]


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
    page = TestClient(app).get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in schema.raw_schema["paths"]:
        assert path in page.text
    for said in ("http://", "https://", "<script", "src="):
        assert said not in page.text
    assert "rule for an ensemble" in page.text
