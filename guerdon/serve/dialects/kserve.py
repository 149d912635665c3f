"""KServe's V1 and V2 (Open Inference) protocols over HTTP: health, metadata and inference of every served model.

V1 takes instances: a text that a chat template has written, {"messages": [...]} or {"prompt", "response"}; its predictions
are rewards, null where one could not be scored. V2 takes BYTES tensors of shape [n], by name: `text`; or `prompt` and
`response`; or `messages`, each a conversation in JSON. Its output `reward` is FP32 of shape [n], which has no place for a
missing number: a request with an item that cannot be scored is refused whole with 400. Rewards are raw.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from guerdon import __version__
from guerdon.serve.call import Item, Refused, Served
from guerdon.serve.dialects import wire
from guerdon.serve.dialects.wire import Body, Reply
from guerdon.serve.service import Service
from guerdon.types import Message

_INPUTS = ("text", "prompt", "response", "messages")


def routes(service: Service) -> list[BaseRoute]:
    """V1 under /v1/models, V2 under /v2. A model's version is its contract hash."""

    async def predict(request: Request, body: Body) -> Response:
        instances = body.get("instances")
        if not isinstance(instances, list):
            raise Refused(400, "instances must be a list")
        items = [_instance(entry, f"instances[{number}]") for number, entry in enumerate(instances)]
        scores, _ = await wire.score(service, request, _path(request), items)
        return Reply({"predictions": [float(found) if found.status == "ok" else None for found in scores]})

    async def infer(request: Request, body: Body) -> Response:
        items = _tensors(body.get("inputs"))
        scores, served = await wire.score(service, request, _path(request), items)
        wire.require(scores, "row")
        values = [float(found) for found in scores]
        head = {
            "model_name": served.name,
            "model_version": served.contract,
            "id": wire.new_id("", None, body.get("id")),
        }
        output = {"name": "reward", "shape": [len(values)], "datatype": "FP32", "data": values}
        return Reply(head | {"outputs": [output]})

    def named(request: Request) -> Served:
        served, version = service.model(_path(request)["model"]), _path(request)["contract"]
        if version not in (None, served.contract):
            raise Refused(
                404,
                f"{served.name} has no version '{str(version)[:80]}', only {served.contract or 'one'}",
                kind="model",
            )
        return served

    def model(request: Request) -> Response:
        return Reply({"name": named(request).name, "ready": True})

    def metadata(request: Request) -> Response:
        served = named(request)
        inputs = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in _INPUTS]
        outputs = [{"name": "reward", "datatype": "FP32", "shape": [-1]}]
        head = {"name": served.name, "versions": [served.contract] if served.contract else [], "platform": "guerdon"}
        return Reply(head | {"inputs": inputs, "outputs": outputs})

    def ready(request: Request) -> Response:
        return Reply({"ready": service.is_ready}, 200 if service.is_ready else 503)

    def server(request: Request) -> Response:
        return Reply({"name": "guerdon", "version": __version__, "extensions": []})

    def names(request: Request) -> Response:
        return Reply({"models": [served.name for served in wire.models(service)]})

    versioned = ("/v2/models/{model:path}/versions/{version}", "/v2/models/{model:path}")
    return [
        wire.post("/v1/models/{model:path}:predict", predict, refuse),
        wire.get("/v1/models", names, refuse),
        wire.get("/v1/models/{model:path}", model, refuse),
        wire.get("/", lambda request: Reply({"status": "alive"}), refuse),
        wire.get("/v2", server, refuse),
        wire.get("/v2/health/live", lambda request: Reply({"live": True}), refuse),
        wire.get("/v2/health/ready", ready, refuse),
        wire.get("/v2/models", names, refuse),
        *(wire.post(f"{path}/infer", infer, refuse) for path in versioned),
        *(wire.get(f"{path}/ready", model, refuse) for path in versioned),
        *(wire.get(path, metadata, refuse) for path in versioned),
    ]


def refuse(refused: Refused) -> Response:
    """`{"error": message}`; what cannot be read or scored is 400."""
    status = 400 if refused.status == 422 else refused.status
    return Reply({"error": refused.message}, status, refused.headers)


def _path(request: Request) -> dict[str, Any]:
    """The model that the address names, and the contract hash where it names a version."""
    parts = request.path_params
    return {"model": parts["model"], "contract": parts.get("version")}


def _instance(entry: Any, where: str) -> Item:
    if isinstance(entry, str):
        return Item(text=entry)
    if isinstance(entry, dict) and "messages" in entry:
        return Item(messages=wire.conversation(entry["messages"], f"{where}.messages"))
    if isinstance(entry, dict) and "prompt" in entry:
        return _answered(entry["prompt"], entry.get("response"), where)
    raise Refused(400, f"{where} must be a text, or hold messages, or prompt and response")


def _answered(prompt: Any, response: Any, where: str) -> Item:
    """A prompt, as a text or as messages, and the response to it."""
    answer = wire.text(response, f"{where}.response")
    if isinstance(prompt, list):
        said = wire.conversation(prompt, f"{where}.prompt")
        return Item(messages=(*said, Message(role="assistant", content=answer)))
    return wire.pair(wire.text(prompt, f"{where}.prompt"), answer)


def _tensors(inputs: Any) -> list[Item]:
    """The rows of named BYTES tensors."""
    if not isinstance(inputs, list) or not all(isinstance(tensor, dict) for tensor in inputs):
        raise Refused(400, "inputs must be a list of tensors")
    rows = {wire.text(tensor.get("name"), "the name of a tensor"): _row(tensor) for tensor in inputs}
    if rows.keys() == {"text"}:
        return [Item(text=value) for value in rows["text"]]
    if rows.keys() == {"messages"}:
        return [_written(value, number) for number, value in enumerate(rows["messages"])]
    if rows.keys() == {"prompt", "response"} and len(rows["prompt"]) == len(rows["response"]):
        return list(map(wire.pair, rows["prompt"], rows["response"]))
    raise Refused(400, "inputs must be one tensor text, one tensor messages, or prompt and response of the same length")


def _row(tensor: Body) -> list[str]:
    data, shape = tensor.get("data"), tensor.get("shape")
    if tensor.get("datatype") != "BYTES" or not isinstance(data, list) or shape not in ([len(data)], [len(data), 1]):
        raise Refused(400, f"tensor {str(tensor.get('name'))[:40]!r} must be BYTES with one shape [n] of n texts")
    return [wire.text(entry, "data") for entry in data]


def _written(value: str, number: int) -> Item:
    try:
        return Item(messages=wire.conversation(json.loads(value), f"messages[{number}]"))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"messages[{number}] is not a conversation in JSON") from error
