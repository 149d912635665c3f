"""Native replies: scores written out as JSON, in ASCII and without NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from guerdon.serve.call import Refused, Served
from guerdon.serve.service import Measured
from guerdon.types import Score

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def dumps(value: Any) -> bytes:
    """JSON in ASCII. Raises ValueError for NaN: that is our error, never an answer."""
    return _encode(value).encode("ascii")


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(dumps(value), status, headers, "application/json")


def refuse(refused: Refused, request_id: str = "") -> Response:
    """The native error envelope."""
    detail: dict[str, Any] = {"message": refused.message, "kind": refused.kind, "request": request_id}
    if refused.retry_after is not None:
        detail["retry_after"] = round(refused.retry_after, 3)
    return reply({"error": detail}, refused.status, refused.headers)


def number(value: float | None) -> float | None:
    """A finite number; None for NaN and what is missing."""
    return value if value is not None and math.isfinite(value) else None


def probability(score: Score, served: Served, reference: float | None) -> float | None:
    """That it beats the reference: sigmoid((reward - reference) / temperature), of the mean of an ensemble's members, for which
    the temperature was measured. None without a temperature or a reference.
    """
    if served.temperature is None or reference is None or score.status != "ok":
        return None
    return 0.5 * (1 + math.tanh((score.mean - reference) / served.temperature / 2))


def rows(measured: Measured, reference: float | None) -> list[dict[str, Any]]:
    """Each score as the API shows it."""
    served, far = measured.served, measured.far
    distances = [None] * len(measured.scores) if measured.distances is None else measured.distances.tolist()
    found = []
    for score, distance in zip(measured.scores, distances, strict=True):
        distance = number(distance)
        ok = score.status == "ok"
        found.append(
            {
                "value": float(score) if ok else None,
                "std": number(score.std) if ok else None,
                "probability": probability(score, served, reference),
                "out_of_distribution": None if distance is None else distance > far,
                "distance": distance,
                "tokens": score.tokens,
                "truncated": score.truncated,
                "status": score.status,
                "reason": score.reason or None,
                "members": list(score.members),
                "contract": served.contract,
            }
        )
    return found


def score_reply(measured: Measured, reward: str | None, reference: float | None) -> dict[str, Any]:
    """The reply to a scoring request."""
    return {
        "model": measured.served.name,
        "contract": measured.served.contract,
        "reward": reward or measured.served.rule,
        "reference": reference,
        "tokens": sum(score.tokens for score in measured.scores),
        "scores": rows(measured, reference),
    }


def kl_bound(n: int) -> float:
    """Nats by which the best of n can differ from the policy at most: log n - (n - 1) / n (Hilton; Stiennon et al. 2020)."""
    return math.log(n) - (n - 1) / n if n else 0.0


def best(texts: Sequence[Any], scores: Sequence[Score]) -> tuple[int | None, float | None]:
    """Index of the highest reward, the first of equals, and its margin over the best different completion."""
    ok = [n for n, score in enumerate(scores) if score.status == "ok"]
    if not ok:
        return None, None
    index = max(ok, key=lambda n: (float(scores[n]), -n))
    others = [float(scores[n]) for n in ok if texts[n] != texts[index]]
    return index, float(scores[index]) - max(others) if others else None


def votes(answers: Sequence[str | None], scores: Sequence[Score], scale: float) -> list[dict[str, Any]]:
    """Final answers, most weight first. A scored completion votes for its answer with weight exp(reward / scale), which a
    shift of all rewards leaves as it is.
    """
    ok = [(n, answer) for n, answer in enumerate(answers) if answer is not None and scores[n].status == "ok"]
    top = max((float(scores[n]) for n, _ in ok), default=0.0)
    members: dict[str, list[int]] = {}
    for n, answer in ok:
        members.setdefault(answer, []).append(n)
    weight = {n: math.exp((float(scores[n]) - top) / scale) for n, _ in ok}
    total = math.fsum(weight.values()) or 1.0
    table = [
        {
            "answer": answer,
            "count": len(found),
            "share": math.fsum(weight[n] for n in found) / total,
            "best": max(found, key=lambda n: (float(scores[n]), -n)),
        }
        for answer, found in members.items()
    ]
    return sorted(table, key=lambda vote: -vote["share"])
