"""What a reply says. Whatever is not a finite number becomes a score of status `error`, never a reward."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from guerdon.client.retry import BUSY, Failure, retry_after
from guerdon.types import ContractError, Score, ScoringError

FAULTS = {  # status -> what to do; these are faults of the call, the same for every row
    401: "give the server's key as token=, or in GUERDON_TOKEN",
    403: "the key does not allow it; ask with another (token=, GUERDON_TOKEN)",
    404: "look at the address, and at the name of the model",
}


@dataclass(frozen=True, slots=True)
class Best:
    """Which completion of a prompt is best.

    index     of the best; None when none has a reward
    scores    one for each completion
    margin    reward between the best and the best different one; None when there is none
    kl_bound  nats that taking the best of n can cost at most: log n - (n - 1) / n; None without an answer
    """

    index: int | None
    scores: list[Score]
    margin: float | None = None
    kl_bound: float | None = None


def refused(call: str, status: int, headers: Any, content: bytes) -> Failure:
    """Why an answer other than 200 has no scores. Raises ContractError for 412 and ScoringError for 401, 403 and 404: no row is to
    blame, and no other try could help.
    """
    text = " ".join(_message(content).split())[:200]
    answer = f"{call} answered {status}{f' ({text})' if text else ''}"
    if status == 412:
        raise ContractError(
            f"{answer}: the server has another model than the one that was pinned; pin the new one or ask the old"
        )
    if status == 404 and "/runs/" in call:
        raise ScoringError(f"{answer}: score samples of this run and this step first")
    if status in FAULTS:
        raise ScoringError(f"{answer}: {FAULTS[status]}")
    return Failure(answer, status in BUSY, retry_after(headers.get("Retry-After")))


def _message(content: bytes) -> str:
    """What an error says: the message in our server's envelope, or the beginning of whatever it is."""
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return content[:500].decode("utf-8", "replace")


def document_of(call: str, content: bytes) -> Any | Failure:
    """The JSON of a reply."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return Failure(f"{call} answered with something that is not JSON")


def scores_of(call: str, reply: Any, n: int) -> list[Score] | Failure:
    """The n scores of a reply, or why there are none."""
    rows = reply.get("scores") if isinstance(reply, dict) else None
    if not isinstance(rows, list) or len(rows) != n:
        what = f"{len(rows)} scores for {n} conversations" if isinstance(rows, list) else "no list 'scores'"
        return Failure(f"{call} answered with {what}")
    return [score_of(row) for row in rows]


def best_of(call: str, reply: Any, n: int) -> Best | Failure:
    """The choice that a reply makes among n completions, or why there is none. The chosen one has a reward, or it is no choice."""
    scores = scores_of(call, reply, n)
    if isinstance(scores, Failure):
        return scores
    index = reply.get("index")
    is_one = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < n and scores[index].status == "ok"
    if not is_one and (index is not None or any(score.status == "ok" for score in scores)):
        return Failure(
            f"{call} answered with the choice {str(index)[:40]!r}, which is none of the {n} completions that have a reward"
        )
    return Best(index, scores, number_of(reply.get("margin")), number_of(reply.get("kl_bound")))


def unusable(reply: Any, scores: list[Score]) -> Score | None:
    """The first score whose row says that it is one and is none."""
    pairs = zip(reply["scores"], scores, strict=True)
    return next((score for row, score in pairs if unusable_row(row, score)), None)


def score_of(row: Any) -> Score:
    """One score of a reply; of status `error` when it does not hold what it must."""
    if not isinstance(row, dict) or row.get("status") not in ("ok", "masked", "error"):
        return Score(0, "error", reason="the server's reply has a row without a status of ok, masked or error")
    tokens = row.get("tokens")
    tokens = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else 0
    truncated, reason = row.get("truncated") is True, str(row.get("reason") or "")
    far = row.get("out_of_distribution")
    more: dict[str, Any] = {
        "distance": number_of(row.get("distance")),
        "out_of_distribution": far if isinstance(far, bool) else None,
        "contract": str(row.get("contract") or ""),
    }
    if row["status"] != "ok":
        return Score(0, row["status"], tokens, truncated, reason or f"the server said {row['status']}", **more)
    value, listed = number_of(row.get("value")), row.get("members")
    if value is None:
        return Score(0, "error", tokens, truncated, f"the server's reward is {row.get('value')!r}, not a number")
    members = [number_of(member) for member in listed] if isinstance(listed, list) else []
    if any(member is None for member in members):
        return Score(0, "error", tokens, truncated, "the server's reply has a member that is not a number")
    voted, probability = tuple(member for member in members if member is not None), number_of(row.get("probability"))
    return Score(value, "ok", tokens, truncated, "", voted, probability=probability, **more)


def number_of(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def unusable_row(row: Any, score: Score) -> bool:
    """Is it an error only because the row holds no usable reward, not because the server said so?"""
    return score.status == "error" and not (isinstance(row, dict) and row.get("status") == "error")
