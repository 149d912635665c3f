"""What a request says: messages with nothing but what is scored, and headers that know it again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from guerdon.types import Conversation, Message


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages with nothing but what is scored."""
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def line(conversation: Conversation) -> dict[str, Any]:
    """One of a stream."""
    return {"messages": plain(conversation)}


def group(prompt: Conversation, completions: Sequence[str | Sequence[Message]]) -> dict[str, Any]:
    """Completions of one prompt."""
    return {
        "prompt": plain(prompt),
        "completions": [one if isinstance(one, str) else plain(one) for one in completions],
    }


def headers_of(timeout: float) -> dict[str, str]:
    """Of one request: the same at each attempt, so that it is known for the same."""
    return {"Idempotency-Key": uuid.uuid4().hex, "X-Guerdon-Timeout": f"{timeout:g}"}
