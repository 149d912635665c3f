"""HelpSteer3 rows: `context`, `response1`, `response2` and `overall_preference` from -3 (response1 much better) to 3.

`individual_preference` holds the score and the reasoning of each rater. Strength is part of the label: 1, 2 or 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guerdon.data.foreign.limits import Unsupported, require_pair
from guerdon.data.messages import Messages
from guerdon.types import Comparison, Judgement

HOLDS = frozenset({"strength", "annotator"})


def to_row(comparison: Comparison, judgements: Sequence[Judgement] = ()) -> dict[str, Any]:
    """The row of a pair or a tie. `judgements` are those behind it.

    Raises Unsupported for a ranking of more than two, a soft label, answers that are not one assistant message, and a
    decided pair whose strength is not 1, 2 or 3: the format has no preference without one.
    """
    require_pair(comparison, "HelpSteer3")
    first, second = map(_text, comparison.completions)
    return {
        "domain": comparison.source or "general",
        "language": "",
        "context": list(comparison.prompt),
        "response1": first,
        "response2": second,
        "overall_preference": score_of(comparison.ranks, comparison.strength),
        "individual_preference": [
            {"score": score_of(judgement.ranks, judgement.strength), "reasoning": judgement.rationale}
            for judgement in judgements
            if len(judgement.ranks) == 2
            and (judgement.strength in (1, 2, 3) or judgement.ranks[0] == judgement.ranks[1])
        ],
    }


def score_of(ranks: Sequence[float], strength: float | None) -> int:
    """-3..3, negative where the first is better."""
    sign = (ranks[0] > ranks[1]) - (ranks[0] < ranks[1])
    if sign == 0:
        return 0
    if strength not in (1, 2, 3):
        said = "no strength" if strength is None else f"strength {strength:g}"
        raise Unsupported(
            f"has {said}, and HelpSteer3 says how much better by 1, 2 or 3; ask raters for it, or use --format trl"
        )
    return sign * int(strength)


def _text(answer: Messages) -> str:
    if len(answer) != 1 or answer[0]["role"] != "assistant":
        raise Unsupported("has an answer of several turns; HelpSteer3 takes one assistant message each")
    return answer[0]["content"]
