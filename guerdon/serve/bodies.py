"""From the body of a native request to items. Hand-written checks: they sit in the path of every score."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from guerdon.serve.call import Item, Refused

FORMS = ("messages", "conversations", "prompt", "texts", "ids")
LINE_FORMS = ("messages", "prompt", "text", "ids")


def json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body, in UTF-8. Raises Refused (400) for anything else; NaN, infinities and numbers as large as
    that (1e999) are none.
    """
    try:
        body = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON ({str(error)[:120]})", kind="json") from None
    if not isinstance(body, dict):
        raise Refused(400, f"the body must be a JSON object, not a {type(body).__name__}", kind="json")
    return body


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def require_known(body: Mapping[str, Any], known: Collection[str], what: str = "this request") -> None:
    """Raise Refused (400) for a name that means nothing here: it was mistyped, and what it asks for would not be done."""
    for name in body:
        if name not in known:
            raise Refused(400, f"{what} has no '{name[:80]}'; it may have {', '.join(known)}", kind="field")


def items_of(body: Mapping[str, Any]) -> list[Item]:
    """The items of a request, which has exactly one of `FORMS`. Raises Refused (400)."""
    given = [form for form in FORMS if body.get(form) is not None]
    if len(given) != 1:
        raise Refused(
            400,
            "write exactly one of conversations, messages, prompt (with completions), texts and ids; got "
            + (" and ".join(given) or "none"),
        )
    form = given[0]
    if form != "prompt" and body.get("completions") is not None:
        raise Refused(400, f"completions go with prompt, not with {form}")
    value = body[form]
    if form == "conversations":
        return [
            Item(messages=talk) for talk in _lists(value, "conversations", "conversations, each a list of messages")
        ]
    if form == "messages":
        return [Item(messages=_list(value, "messages", "messages"))]
    if form == "prompt":
        return completions_of(body)
    if form == "texts":
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise Refused(400, "texts must be a list of texts")
        return [Item(text=text) for text in value]
    rows = _lists(value, "ids", "lists of token ids")
    for row in rows:
        if not all(type(id) is int for id in row):
            raise Refused(400, "ids must be a list of lists of whole numbers")
    return [Item(ids=tuple(row)) for row in rows]


def completions_of(body: Mapping[str, Any]) -> list[Item]:
    """One item for each of the `completions` of a `prompt`. Raises Refused (400)."""
    prompt = prompt_of(body.get("prompt"))
    completions = body.get("completions")
    if not isinstance(completions, list):
        raise Refused(400, "completions must be a list, of texts or of lists of messages")
    return [Item(messages=(*prompt, *turns_of(one, "completions", "assistant"))) for one in completions]


def prompt_of(value: Any) -> tuple[Any, ...]:
    """The messages of a prompt: a list of them, or a text that the user says."""
    return turns_of(value, "prompt", "user")


def turns_of(value: Any, where: str, role: str) -> tuple[Any, ...]:
    """Messages as they are, or a text as one message of that role. Raises Refused (400)."""
    if isinstance(value, str):
        return ({"role": role, "content": value},)
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        return tuple(value)
    raise Refused(400, f"{where}: write a text or a list of messages")


def line_of(body: Mapping[str, Any]) -> Item:
    """The item in a line of a stream. Raises Refused (400)."""
    require_known(body, (*LINE_FORMS, "completion", "id"), "a line")
    given = [form for form in LINE_FORMS if body.get(form) is not None]
    if len(given) != 1 or (given == ["prompt"]) != (body.get("completion") is not None):
        raise Refused(400, "a line holds messages, or prompt and completion, or text, or ids")
    value = body[given[0]]
    if given == ["prompt"]:
        return Item(messages=(*prompt_of(value), *turns_of(body["completion"], "completion", "assistant")))
    if given == ["messages"]:
        return Item(messages=_list(value, "messages", "messages"))
    if given == ["text"]:
        if not isinstance(value, str):
            raise Refused(400, "text must be a text")
        return Item(text=value)
    if not all(type(id) is int for id in _list(value, "ids", "token ids")):
        raise Refused(400, "ids must be whole numbers")
    return Item(ids=tuple(value))


def _list(value: Any, where: str, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(400, f"{where} must be a list of {what}, not a {type(value).__name__}")
    return value


def _lists(value: Any, where: str, what: str) -> list[list[Any]]:
    for one in _list(value, where, what):
        if not isinstance(one, list):
            raise Refused(400, f"{where} must be a list of {what}, not of {type(one).__name__}")
    return value  # type: ignore[no-any-return]
