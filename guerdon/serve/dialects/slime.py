"""slime's remote reward (`--rm-type remote_rm`), as its client calls it: POST {"prompt", "response", "label"}.

The body of the reply *is* the reward: a bare number at `/`, and at `/score` an object for `--reward-key score`. A sample
that cannot be scored is answered with null, at `/score` with `"score": null` and the reason: slime leaves such a sample
without a reward, whereas it would try an error again for minutes.

A `prompt` of messages is a conversation that `response` continues. A text that ends the way the model's own chat template
asks for an answer has been written by that template, and so has the response that follows it; any other text is what the
user said. `?prompt=rendered` or `?prompt=user` in the address settles it.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from guerdon.serve.call import Item, Refused
from guerdon.serve.dialects import wire
from guerdon.serve.dialects.wire import Body, Reply
from guerdon.serve.service import Service
from guerdon.types import Message


def routes(service: Service) -> list[BaseRoute]:
    """/ answers with the number alone, /score with an object."""

    async def number(request: Request, body: Body) -> Response:
        found = await _score(service, request, body)
        return Reply(float(found) if found.status == "ok" else None)

    async def keyed(request: Request, body: Body) -> Response:
        found = await _score(service, request, body)
        ok = found.status == "ok"
        reply = {"score": float(found) if ok else None, "status": found.status, "reason": found.reason or None}
        reply |= {"tokens": found.tokens, "truncated": found.truncated}
        return Reply(reply | ({"std": found.std} if ok and found.members else {}))

    return [wire.post("/", number, refuse), wire.post("/score", keyed, refuse)]


def refuse(refused: Refused) -> Response:
    """slime reads the status alone: anything but 200 is tried again up to ten times, then ends the rollout."""
    return Reply({"error": refused.message}, refused.status, refused.headers)


async def _score(service: Service, request: Request, body: Body) -> Any:
    prompt, response = body.get("prompt"), wire.text(body.get("response"), "response")
    form = request.query_params.get("prompt", "auto")
    if form not in ("auto", "rendered", "user"):
        raise Refused(400, f"?prompt={form[:20]} is not known; write rendered or user")
    if isinstance(prompt, list):
        item = Item(messages=(*wire.conversation(prompt, "prompt"), Message(role="assistant", content=response)))
    else:
        said = wire.text(prompt, "prompt")
        asks = form == "rendered" or (form == "auto" and _asks(wire.served(service, request, body).tokenizer, said))
        item = Item(text=said + response) if asks else wire.pair(said, response)
    scores, _ = await wire.score(service, request, body, [item])
    return scores[0]


def _asks(tokenizer: Any, said: str) -> bool:
    """Whether a text ends with what the chat template writes where the answer is to come."""
    message = [Message(role="user", content="?")]
    try:
        bare, asking = (
            str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=ask))
            for ask in (False, True)
        )
    except Exception:  # templates raise what they like
        return False
    return len(asking) > len(bare) and asking.startswith(bare) and said.endswith(asking[len(bare) :])
