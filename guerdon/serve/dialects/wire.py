"""What the dialects share: reading a JSON body, the usual shapes of a thing to score, and replies that are always JSON.

A dialect reads a body into items and a call, asks the service once, and writes the scores out as its callers expect.
Whatever it cannot read, and every item that could not be scored where the dialect has no place for that, is `Refused`;
the dialect's own `refuse` turns that into its error envelope. No reply ever holds NaN.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from guerdon.serve.bodies import json_object
from guerdon.serve.call import Call, Item, Refused, Served, call_of
from guerdon.serve.service import Service
from guerdon.types import Conversation, Message, Score

Body = dict[str, Any]
Refuse = Callable[[Refused], Response]
LABEL = "LABEL_0"  # the one label of a checkpoint with `num_labels=1`, as transformers names it


class Reply(JSONResponse):
    """JSON without NaN. Half of a surrogate pair, which a caller may have sent and which is no text, becomes `?`."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def post(path: str, handle: Callable[[Request, Body], Awaitable[Response]], refuse: Refuse) -> Route:
    """A route whose handler gets the JSON object that was sent; what is refused is answered by `refuse`. The contract of the
    model that scored stands in the header ETag.
    """

    async def answer(request: Request) -> Response:
        try:
            reply = await handle(request, json_object(await request.body()))
        except Refused as refused:
            return _refused(request, refused, refuse)
        except RecursionError:  # what can be read is not always what can be written back
            return _refused(request, Refused(400, "the body is nested too deeply", kind="json"), refuse)
        if contract := request.scope.get("guerdon.contract"):
            reply.headers["ETag"] = f'"{contract}"'
        return reply

    return Route(path, answer, methods=["POST"])


def get(path: str, handle: Callable[[Request], Response], refuse: Refuse) -> Route:
    """A route that is only read."""

    async def answer(request: Request) -> Response:
        try:
            return handle(request)
        except Refused as refused:
            return _refused(request, refused, refuse)

    return Route(path, answer, methods=["GET"])


def _refused(request: Request, refused: Refused, refuse: Refuse) -> Response:
    request.scope["guerdon.reason"] = refused.kind  # for the log and the counts
    return refuse(refused)


def field(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """An optional field of the kind asked for; null counts as left out. Raises Refused (400)."""
    value = body.get(name)
    if value is None:
        return default
    if (isinstance(value, bool) and kind is not bool) or not isinstance(value, kind):
        raise Refused(400, f"{name} must be {_NAMES[kind]}, got {type(value).__name__}")
    return value


_NAMES: dict[Any, str] = {str: "a text", bool: "true or false", int: "a whole number", list: "a list"}


def text(value: Any, where: str) -> str:
    """A text that must be there. Raises Refused (400)."""
    if not isinstance(value, str):
        raise Refused(400, f"{where} must be a text, got {type(value).__name__ if value is not None else 'nothing'}")
    return value


def texts(value: Any, where: str, *, empty: bool = False) -> list[str]:
    """A text, or a list of texts, as a list. Raises Refused (400), also for an empty list unless that is allowed."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or (not value and not empty):
        raise Refused(400, f"{where} must be a text or a list of texts" + ("" if empty else " that is not empty"))
    return [text(entry, f"{where}[{number}]") for number, entry in enumerate(value)]


def content(value: Any, where: str) -> str:
    """The text of a message: a text, or a list of parts that hold text. Raises Refused (400) for images and the like."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value)
    ):
        return "".join(part["text"] for part in value)
    return text(value, where)


def conversation(value: Any, where: str = "messages") -> Conversation:
    """A list of messages with `role` and `content`. Raises Refused (400)."""
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise Refused(400, f"{where} must be a list of messages that is not empty")
    return tuple(
        Message(
            role=text(message.get("role"), f"{where}[{number}].role"),
            content=content(message.get("content"), f"{where}[{number}].content"),
        )
        for number, message in enumerate(value)
    )


def pair(query: str, document: str) -> Item:
    """A query and a document that answers it, as one conversation: the user asks, the assistant answers."""
    return Item(messages=(Message(role="user", content=query), Message(role="assistant", content=document)))


def rendered(value: Any, where: str) -> list[Item]:
    """Texts that a chat template has written already, or their token ids: text, [text], [id] or [[id]]."""
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        rows = value if isinstance(value[0], list) else [value]
        return [Item(ids=_ids(row, where)) for row in rows]
    return [Item(text=entry) for entry in texts(value, where)]


def _ids(row: Any, where: str) -> tuple[int, ...]:
    if not isinstance(row, list) or not row or not all(type(entry) is int and 0 <= entry < 2**31 for entry in row):
        raise Refused(400, f"{where} must hold token ids: a list of whole numbers from 0 on that is not empty")
    return tuple(row)


async def score(
    service: Service, request: Request, body: Body, items: Sequence[Item], prompts: Sequence[object] | None = None
) -> tuple[list[Score], Served]:
    """The scores of the items, in order, and the model they come from. `prompts` are equal where items answer the same.

    Raises Refused as the service does.
    """
    call: Call = call_of(request, body)
    if prompts is not None:
        numbers: dict[object, int] = {}
        call = replace(call, groups=tuple(numbers.setdefault(prompt, len(numbers)) for prompt in prompts))
    measured = await service.measure(items, call)
    found, served = measured.scores, measured.served
    request.scope["guerdon.contract"] = served.contract
    request.scope["guerdon.log"] = {"model": served.name, "items": len(found), "tokens": tokens(found)}
    return found, served


def served(service: Service, request: Request, body: Body) -> Served:
    """The model that a request names, in its body or in X-Guerdon-Model. Raises Refused (404)."""
    return service.model(field(body, "model", str) or request.headers.get("x-guerdon-model"))


def models(service: Service) -> list[Served]:
    """Every model that is served, the default one first."""
    return [service.model(name) for name in service.names]


def require(scores: Sequence[Score], what: str = "input", status: int = 422) -> None:
    """Raises Refused (kind `item`) when an item could not be scored, in dialects that have no place to say so."""
    for number, found in enumerate(scores):
        if found.status != "ok":
            raise Refused(status, f"{what} {number} cannot be scored: {found.reason or found.status}", kind="item")


def tokens(scores: Sequence[Score]) -> int:
    """Tokens of all scored sequences together: what usage counts report."""
    return sum(found.tokens for found in scores)


def usage(scores: Sequence[Score]) -> Body:
    """Usage counts of the OpenAI kind, for a request that generates nothing."""
    count = tokens(scores)
    return {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0, "prompt_tokens_details": None}


def cards(service: Service) -> Body:
    """The list of models of the OpenAI kind."""
    data = [
        {"id": served.name, "object": "model", "created": 0, "owned_by": "guerdon", "root": served.name}
        | {"parent": None, "max_model_len": served.max_length, "permission": []}
        for served in models(service)
    ]
    return {"object": "list", "data": data}


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), without overflow."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def ranking(scores: Sequence[Score], top: int | None = None) -> list[int]:
    """Indices, best first, equal ones in the order they came in; the best `top` only, when that is a positive number.

    Rewards are compared before any sigmoid, so that saturation never makes a tie.
    """
    order = sorted(range(len(scores)), key=lambda index: -float(scores[index]))
    return order[:top] if top is not None and top > 0 else order


def new_id(prefix: str, request: Request | None = None, given: Any = None) -> str:
    """`prefix` and an id: the one in X-Request-Id, else the one `given` in the body, else a new one."""
    known = (request.headers.get("x-request-id") if request else None) or (given if isinstance(given, str) else None)
    return prefix + (known[:128] if known else uuid.uuid4().hex)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
