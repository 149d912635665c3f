"""Anthropic HH rows: two whole transcripts of `Human:` and `Assistant:` turns. Strength goes into a column `margin`."""

from __future__ import annotations

import re
from typing import Any

from guerdon.data.foreign.limits import Unsupported, sides_of
from guerdon.data.messages import Messages
from guerdon.types import Comparison

HOLDS = frozenset({"strength", "annotator"})
_NAMES = {"user": "Human", "assistant": "Assistant"}
_MARKER = re.compile(r"\n\n(?:Human|Assistant):")


def to_row(comparison: Comparison) -> dict[str, Any]:
    """The row of a decided pair.

    Raises Unsupported for a ranking of more than two, a tie, a soft label, roles other than user and assistant, text that
    holds a marker of a turn, and white space round a turn, which the format does not keep.
    """
    chosen, rejected = sides_of(comparison, "HH")
    row: dict[str, Any] = {
        "chosen": _transcript((*comparison.prompt, *chosen)),
        "rejected": _transcript((*comparison.prompt, *rejected)),
    }
    return row if comparison.strength is None else row | {"margin": comparison.strength}


def _transcript(messages: Messages) -> str:
    for message in messages:
        if message["role"] not in _NAMES:
            raise Unsupported(f"has a turn of {message['role']}, and HH knows only Human and Assistant")
        text = message["content"]
        if _MARKER.search(f"\n\n{text}"):
            raise Unsupported("has 'Human:' or 'Assistant:' at the start of a paragraph, which HH reads as a new turn")
        if text != text.strip():
            raise Unsupported("has white space round a turn, which HH does not keep; trim it or use --format trl")
    return "".join(f"\n\n{_NAMES[message['role']]}: {message['content']}" for message in messages)
