"""NeMo Gym's resources server, as read in nemo_gym/base_resources_server.py: /verify, /seed_session, /close_session.

`/verify` gets what the policy was asked (`responses_create_params`, an OpenAI Responses request) and what it answered
(`response`), and sends all of it back with the reward. The conversation is the instructions, the input messages and the
one message of the answer; reasoning is left out, it is not part of the answer.

The protocol can say that a sample must not be counted, and wants a number all the same: a sample that cannot be scored
has `mask_sample: true`, reward 0.0, and the reason. `failure_kind` is `verifier_error` for a sample that cannot be read or
scored, and `judge_failed` when the server was overloaded, stopping or too late.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from guerdon.serve.call import Item, Refused
from guerdon.serve.dialects import wire
from guerdon.serve.dialects.wire import Body, Reply
from guerdon.serve.service import Service
from guerdon.types import Conversation, Message

logger = logging.getLogger("guerdon.serve")
_BUSY = (408, 429, 503, 504)


def routes(service: Service) -> list[BaseRoute]:
    """No state is kept for a session, so that seeding and closing one only say so."""

    async def verify(request: Request, body: Body) -> Response:
        if not isinstance(body.get("responses_create_params"), dict) or not isinstance(body.get("response"), dict):
            raise Refused(422, "responses_create_params and response must be objects")
        found: Body = {"reward": 0.0, "mask_sample": False, "failure_kind": None, "failure_reason": None}
        try:
            item = Item(messages=_conversation(body["responses_create_params"], body["response"]))
            scores, _ = await wire.score(service, request, {}, [item])
            wire.require(scores, "sample")
            found["reward"] = float(scores[0])
        except Refused as refused:
            if refused.status not in (400, 422, *_BUSY):
                raise
            kind = "judge_failed" if refused.status in _BUSY else "verifier_error"
            found |= {"mask_sample": True, "failure_kind": kind, "failure_reason": refused.message}
            logger.warning("/verify: sample masked: %s", refused.message)
        return Reply({name: value for name, value in body.items() if name != "_ng_rollout_id"} | found)

    async def session(request: Request, body: Body) -> Response:
        name = body.get("resources_session_id")
        return Reply({} if name is None else {"resources_session_id": name})

    return [
        wire.post("/verify", verify, refuse),
        wire.post("/seed_session", session, refuse),
        wire.post("/close_session", session, refuse),
        wire.get("/reverify_mode", lambda request: Reply("stateless"), refuse),
    ]


def refuse(refused: Refused) -> Response:
    """FastAPI's own errors: a body that cannot be read is 422."""
    status = 422 if refused.status == 400 else refused.status
    return Reply({"detail": refused.message}, status, refused.headers)


def _conversation(asked: Body, answered: Body) -> Conversation:
    """What was asked and answered, as messages. Raises Refused (400) when there is more to it than text."""
    instructions, given = asked.get("instructions"), asked.get("input")
    start = [Message(role="system", content=instructions)] if isinstance(instructions, str) and instructions else []
    if isinstance(given, str):
        prompt = [Message(role="user", content=given)]
    else:
        prompt = [_message(entry, "input") for entry in _entries(given, "input")]
    answer = [_message(entry, "output") for entry in _entries(answered.get("output"), "output")]
    if len(answer) != 1 or answer[0]["role"] != "assistant":
        raise Refused(400, f"the response holds {len(answer)} messages, not one answer")
    return (*start, *prompt, *answer)


def _entries(value: Any, where: str) -> list[Body]:
    """The messages of a Responses list. Reasoning is left out; tool calls cannot be read as a conversation of texts."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Refused(400, f"{where} must be a list of messages")
    entries = [entry for entry in value if entry.get("type", "message") != "reasoning"]
    other = next((entry["type"] for entry in entries if entry.get("type", "message") != "message"), None)
    if other is not None:
        raise Refused(400, f"{where} holds a {str(other)[:40]}, and only messages can be scored")
    return entries


def _message(entry: Body, where: str) -> Message:
    content = entry.get("content")
    if isinstance(content, list):  # a refusal is an answer too
        content = [{"text": part.get("text", part.get("refusal"))} for part in content if isinstance(part, dict)]
    return Message(
        role=wire.text(entry.get("role"), f"{where}.role"), content=wire.content(content, f"{where}.content")
    )
