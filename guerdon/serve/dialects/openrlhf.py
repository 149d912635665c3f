"""OpenRLHF's remote reward, as its client calls it and its own server answers (openrlhf 0.11): POST /get_reward.

`query` holds prompt and answer as the chat template wrote them, special tokens included; none is doubled. `rewards` are raw
and feed the advantage, `scores` are their sigmoids, between 0 and 1 as its dynamic filtering wants them. An empty
`query`, which OpenRLHF sends to the servers it has nothing for, is answered with empty lists.

A query that cannot be scored has null in both lists. Where none could be, `rewards` is null itself: OpenRLHF, which sends
one query at a time, then has a sample without a reward, and neither retries nor invents one. `errors` says why.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from guerdon.serve.call import Item, Refused
from guerdon.serve.dialects import wire
from guerdon.serve.dialects.wire import Body, Reply
from guerdon.serve.service import Service
from guerdon.types import Score


def routes(service: Service) -> list[BaseRoute]:
    """/get_reward, where OpenRLHF's own server has it, and the bare prefix."""

    async def get_reward(request: Request, body: Body) -> Response:
        if "query" not in body:
            raise Refused(400, "query must be a list of texts: prompt and answer as the chat template wrote them")
        items = [Item(text=entry) for entry in wire.texts(body["query"], "query", empty=True)]
        prompts = body.get("prompts")
        known = isinstance(prompts, list) and len(prompts) == len(items)
        keys = list(map(str, prompts)) if known and isinstance(prompts, list) else None
        scores, _ = await wire.score(service, request, body, items, keys)
        return Reply(_answer(scores))

    return [wire.post(path, get_reward, refuse) for path in ("/get_reward", "/")]


def refuse(refused: Refused) -> Response:
    """OpenRLHF reads the status alone: anything but 200 is tried again up to five times, a second apart."""
    return Reply({"error": refused.message}, refused.status, refused.headers)


def _answer(scores: Sequence[Score]) -> Body:
    if scores and all(found.status != "ok" for found in scores):
        return {"rewards": None, "scores": None, "extra_logs": {}, "errors": [found.reason for found in scores]}
    ok = [found.status == "ok" for found in scores]
    logs: Body = {"guerdon_tokens": [float(found.tokens) for found in scores]}
    logs["guerdon_truncated"] = [float(found.truncated) for found in scores]
    if any(found.members for found in scores):
        logs["guerdon_disagreement"] = [found.std if fine else None for found, fine in zip(scores, ok, strict=True)]
    reply: Body = {
        "rewards": [float(found) if fine else None for found, fine in zip(scores, ok, strict=True)],
        "scores": [wire.sigmoid(found) if fine else None for found, fine in zip(scores, ok, strict=True)],
        "extra_logs": logs,
    }
    if not all(ok):
        reply["errors"] = [None if fine else found.reason for found, fine in zip(scores, ok, strict=True)]
    return reply
