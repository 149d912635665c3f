"""A study with people, served in this process: what the tests of the web application share."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from guerdon.collect import access as access_module
from guerdon.collect import sessions as sessions_module
from guerdon.collect.access import Access
from guerdon.collect.settings import Settings
from guerdon.collect.store import Store
from guerdon.collect.web.app import Serving, application
from guerdon.types import Question

PASSWORD = "correct horse battery"
ORIGIN = "http://testserver"
access_module.HASHER = sessions_module.HASHER = PasswordHasher(1, 1024, 1)  # hashing is not what these tests are about


def question(name: str, k: int = 2, text: str = "Why is the sky blue?", answer: str = "Answer {} to {}.") -> Question:
    answers = tuple(({"role": "assistant", "content": answer.format(i, name)},) for i in range(k))
    return Question(({"role": "user", "content": f"{text} ({name})"},), answers, id=name)


@dataclass
class World:
    """Two studies, `one` and `two`; a rater and a lead in each, and an admin."""

    store: Store
    access: Access

    def client(self, name: str = "") -> TestClient:
        client = TestClient(
            application(self.store), base_url=ORIGIN, headers={"origin": ORIGIN}, follow_redirects=False
        )
        if name:
            token = csrf(client.get("/login").text)
            reply = client.post("/login", data={"name": name, "password": PASSWORD, "csrf": token})
            assert reply.status_code == 303, reply.text
            client.headers["x-csrf-token"] = csrf(client.get("/account").text)
        return client


def csrf(html: str) -> str:
    found = re.search(r'name="csrf" (?:value|content)="([^"]*)"', html)
    assert found
    return found[1]


def world(folder: Path, settings: Settings | None = None) -> World:
    store = Store.open(str(folder / "study.db"))
    access = Access(store)
    access.add("ada", "admin", PASSWORD)
    for study in ("one", "two"):
        store.create_study(study, settings or Settings(repeats=0, gold=0, attention=0, overlap=2))
        store.add_questions(study, [question(f"{study}-{i}") for i in range(6)])
        for role in ("lead", "rater"):
            access.add(f"{role} {study}", role, PASSWORD)
            access.join(f"{role} {study}", study, "ada")
    return World(store, access)


@contextlib.contextmanager
def served(store: Store, serving: Serving | None = None) -> Iterator[str]:
    """The application on a free port of this machine, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(application(store, serving), port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
