"""OpenAI preference tuning: `input.messages`, then one assistant message each, preferred and not.

No ties, no strength, no raters, no further columns; both outputs are one assistant message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guerdon.data.containers import describe
from guerdon.data.fields import Data, need
from guerdon.data.foreign.limits import Unsupported, sides_of
from guerdon.data.messages import Messages, Unusable, messages_of, turns_of
from guerdon.types import Comparison, DataError

HOLDS: frozenset[str] = frozenset()  # of strength, annotator, weight: none


def fits(data: Data) -> bool:
    return all(name in data for name in ("input", "preferred_output", "non_preferred_output"))


def convert(data: Data) -> Comparison:
    """A pair. Tools of the input are left behind."""
    given = need(data, "input")
    if not isinstance(given, Mapping):
        raise DataError(f"'input' is {describe(given)}; write an object with 'messages'")
    prompt = messages_of(need(given, "messages"), "input.messages")
    sides = tuple(_output(need(data, name), name) for name in ("preferred_output", "non_preferred_output"))
    return Comparison(prompt, sides, (0.0, 1.0))


def _output(value: object, name: str) -> Messages:
    answer = turns_of(value, name, "assistant")
    if not answer:
        raise Unusable("empty answer")
    return answer


def to_row(comparison: Comparison) -> dict[str, Any]:
    """The row of a decided pair. Raises Unsupported for what the format has no place for."""
    chosen, rejected = sides_of(comparison, "OpenAI preference tuning")
    if not comparison.prompt:
        raise Unsupported("has no prompt, and OpenAI preference tuning needs input messages")
    for answer in (chosen, rejected):
        if len(answer) != 1 or answer[0]["role"] != "assistant":
            raise Unsupported(
                "has an answer of several turns; OpenAI preference tuning takes one assistant message each"
            )
    given = {"messages": list(comparison.prompt), "tools": [], "parallel_tool_calls": True}
    return {"input": given, "preferred_output": list(chosen), "non_preferred_output": list(rejected)}
