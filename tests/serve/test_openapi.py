"""Schemathesis over the OpenAPI document: whatever is sent, nothing is answered with 5xx."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from serving import service_of

from guerdon.serve.app import create_app


@schemathesis.serializer("application/x-ndjson")
def as_lines(context, value):
    return str(value).encode("utf-8", "surrogatepass")


service = service_of()
schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service))


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_server(case):
    if case.path == "/ready":
        pytest.skip("503 is its answer while the queue is full")
    response = case.call()
    case.validate_response(response, checks=[not_a_server_error])
    assert response.status_code < 500
