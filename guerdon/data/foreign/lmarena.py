"""LMArena votes: two whole conversations, the models behind them, and who won; one row per vote.

`model_a` was shown on the left. Older files hold the conversations as JSON text, newer ones as lists; `judge` names the
voter where the file does. Upstream: lmsys/chatbot_arena_conversations and lmarena-ai/arena-human-preference-100k.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from guerdon.data.fields import Data, need
from guerdon.data.foreign.extras import KEY, extras_of, judgement_from, require_agreement
from guerdon.data.foreign.limits import Unsupported
from guerdon.data.messages import Messages, Unusable, common_start, messages_of
from guerdon.types import Answer, DataError, Judgement, Question

WINNERS: dict[str, tuple[Answer, tuple[float, ...]]] = {
    "model_a": ("ranked", (0.0, 1.0)),
    "model_b": ("ranked", (1.0, 0.0)),
    "tie": ("ranked", (0.0, 0.0)),
    "tie (bothbad)": ("all_bad", ()),
    "both_bad": ("all_bad", ()),
}


def fits(data: Data) -> bool:
    return all(name in data for name in ("model_a", "model_b", "winner", "conversation_a", "conversation_b"))


def judge(data: Data) -> list[Judgement]:
    """The vote of a row."""
    a, b = (_conversation(need(data, name), name) for name in ("conversation_a", "conversation_b"))
    extras = data.get(KEY)
    if isinstance(extras, Mapping):
        return [_exact(data, extras, a, b)]
    winner = need(data, "winner")
    if winner not in WINNERS:
        if winner is None:
            raise Unusable("no label")
        raise DataError(f"'winner' is {winner!r}; write one of {', '.join(WINNERS)}")
    turns = common_start([a, b])
    id = str(data.get("question_id") or data.get("id") or "")
    models = (str(data["model_a"]), str(data["model_b"]))
    question = Question(a[:turns], (a[turns:], b[turns:]), models, str(data.get("source") or ""), id)
    answer, ranks = WINNERS[winner]
    rater = str(data.get("judge") or data.get("judge_hash") or "unknown")
    name = id or f"{rater} {hash_of(a, b)}"
    return [Judgement(name, rater, "human", question, (0, 1), answer, ranks, submitted_at=_seconds(data.get("tstamp")))]


def _exact(data: Data, extras: Mapping[str, Any], a: Messages, b: Messages) -> Judgement:
    about = extras.get("question") or {}
    turns, order = int(about.get("turns", 0)), extras.get("order") or [0, 1]
    answers = [(), ()]  # type: list[Messages]
    answers[order[0]], answers[order[1]] = a[turns:], b[turns:]
    question = Question(
        a[:turns], tuple(answers), tuple(about.get("models", ())), about.get("source", ""), about.get("id", "")
    )
    judgement = judgement_from(extras, question)
    require_agreement(data.get("winner"), _winner(judgement), "'winner'")
    return judgement


def to_row(judgement: Judgement) -> dict[str, Any]:
    """The row of a vote on two answers.

    Raises Unsupported for more than two candidates, and for skips and flags, which are no votes.
    """
    question = judgement.question
    if len(question.completions) > 2:
        raise Unsupported(
            f"judges {len(question.completions)} answers, and LMArena votes are on two; use --format judgements"
        )
    left, right = judgement.order or (0, 1)
    models = question.models or ("unknown", "unknown")
    conversations = [[*question.prompt, *question.completions[side]] for side in (left, right)]
    about = {
        "id": question.id,
        "source": question.source,
        "models": list(question.models),
        "turns": len(question.prompt),
    }
    return {
        "question_id": judgement.id,
        "model_a": models[left],
        "model_b": models[right],
        "winner": _winner(judgement),
        "judge": judgement.rater,
        "conversation_a": conversations[0],
        "conversation_b": conversations[1],
        "turn": sum(message["role"] == "assistant" for message in conversations[0]),
        "anony": True,
        "language": "",
        "tstamp": None if math.isnan(judgement.submitted_at) else judgement.submitted_at,
        KEY: {**extras_of(judgement), "question": about},
    }


def _winner(judgement: Judgement) -> str:
    if judgement.answer == "all_bad":
        return "tie (bothbad)"
    if judgement.answer != "ranked":
        raise Unsupported(f"is a {judgement.answer}, and LMArena holds votes only; use --format judgements to keep it")
    left, right = judgement.order or (0, 1)
    gap = judgement.ranks[left] - judgement.ranks[right]
    return "tie" if gap == 0 else "model_a" if gap < 0 else "model_b"


def _conversation(value: object, name: str) -> Messages:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(f"{name!r} is text that is no JSON list of messages; export the file again") from None
    found = messages_of(value, name)
    if not found:
        raise Unusable("empty answer")
    return found


def _seconds(value: object) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def hash_of(*conversations: Messages) -> str:
    """A short name for conversations that have none."""
    import hashlib

    return hashlib.sha256(json.dumps(conversations).encode()).hexdigest()[:16]
