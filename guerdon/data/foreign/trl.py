"""TRL preference rows, conversational: `prompt`, `chosen`, `rejected` as message lists, `margin` for the strength."""

from __future__ import annotations

from typing import Any

from guerdon.data.foreign.limits import Unsupported, sides_of
from guerdon.data.messages import common_start
from guerdon.types import Comparison

HOLDS = frozenset({"strength", "annotator"})


def to_row(comparison: Comparison) -> dict[str, Any]:
    """The row of a decided pair. A comparison without a prompt has none here either (TRL's implicit prompt).

    Raises Unsupported for a ranking of more than two, a tie, a soft label, and answers without a prompt that start with
    the same messages, which every reader takes for the prompt.
    """
    chosen, rejected = sides_of(comparison, "TRL")
    row: dict[str, Any] = {"prompt": list(comparison.prompt)} if comparison.prompt else {}
    if not comparison.prompt and common_start([chosen, rejected]):
        raise Unsupported("has no prompt, but answers that start with the same messages, which TRL reads as the prompt")
    row |= {"chosen": list(chosen), "rejected": list(rejected)}
    return row if comparison.strength is None else row | {"margin": comparison.strength}
