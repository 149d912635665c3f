"""What formats for pairs have in common: what they cannot hold, said the same way."""

from __future__ import annotations

from guerdon.data.messages import Messages
from guerdon.types import Comparison, DataError


class Unsupported(DataError):
    """A comparison or judgement that a format has no place for; the text goes on after its name: `has a tie; ...`."""


def sides_of(comparison: Comparison, format: str) -> tuple[Messages, Messages]:
    """(chosen, rejected) of a decided pair with a hard label. Raises Unsupported for a ranking, a tie or a soft label."""
    require_pair(comparison, format)
    first, second = comparison.completions
    if comparison.ranks[0] == comparison.ranks[1]:
        raise Unsupported(
            f"is a tie, and {format} can only say chosen and rejected; leave ties out (--skip-unsupported)"
        )
    return (first, second) if comparison.ranks[0] < comparison.ranks[1] else (second, first)


def require_pair(comparison: Comparison, format: str) -> None:
    """Raise Unsupported for more than two completions and for probabilities."""
    if len(comparison.completions) > 2:
        raise Unsupported(
            f"ranks {len(comparison.completions)} answers, and {format} holds pairs; write the pairs (--pairs) or use "
            "--format guerdon, which keeps rankings whole"
        )
    if comparison.probabilities:
        raise Unsupported(
            f"has a soft label, and {format} has no place for one; use --labels majority or --format guerdon"
        )
