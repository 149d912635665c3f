"""The store behind the least HTTP there can be: what the benchmarks of durability and latency drive.

    python -m benchmarks.collect_server URL STUDY PORT

GET /next?rater=R, POST /judgements, POST /undo?rater=R, GET /counts. No accounts, no pages: `guerdon collect start` has them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from guerdon.collect.events import judgement_for
from guerdon.collect.records import Assignment
from guerdon.collect.store import Store
from guerdon.types import GuerdonError

Handler = Callable[..., Awaitable[None]]


def application(store: Store, study: str) -> Handler:
    """An ASGI application on one study of one store."""

    def handle(method: str, path: str, rater: str, body: Any) -> Any:
        if (method, path) == ("GET", "/next"):
            return _shown(store.next(study, rater))
        if (method, path) == ("POST", "/undo"):
            return _shown(store.undo(study, rater))
        if (method, path) == ("GET", "/counts"):
            return {"judgements": store.counts(study).judgements}
        given = store.assignment(body["assignment"], body["rater"])
        if given is None:
            raise LookupError(body["assignment"])
        given = replace(given, replaces=body["replaces"])  # a second delivery meets an assignment that is done
        answer = judgement_for(
            given, body["id"], answer="ranked", ranks=tuple(body["ranks"]), submitted_at=body["submitted_at"]
        )
        return store.submit(answer, study, assignment=given.id)

    async def app(scope: dict[str, Any], receive: Handler, send: Handler) -> None:
        if scope["type"] != "http":
            return
        content = b""
        while True:
            message: Any = await receive()
            if message["type"] == "http.disconnect":
                return  # half a request is none
            content += message.get("body", b"")
            if not message.get("more_body"):
                break
        rater = parse_qs(scope["query_string"].decode()).get("rater", [""])[0]
        try:
            reply = await asyncio.to_thread(
                handle, scope["method"], scope["path"], rater, json.loads(content) if content else None
            )
            status = 200
        except GuerdonError as error:
            reply, status = str(error), 409
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(reply).encode()})

    return app


def _shown(given: Assignment | None) -> Any:
    if given is None:
        return None
    question = given.question
    return {
        "id": given.id,
        "prompt": question.prompt,
        "candidates": [question.completions[candidate] for candidate in given.order],
        "order": given.order,
        "replaces": given.replaces,
    }


def main() -> None:
    import uvicorn

    url, study, port = sys.argv[1:4]
    with Store.open(url) as store:
        uvicorn.run(application(store, study), host="127.0.0.1", port=int(port), log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
