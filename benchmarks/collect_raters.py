"""Simulated raters against a real server over HTTP: processes that are killed, a network that is cut, answers that are counted.

Used by collect_durability.py, collect_latency.py and tests/collect/test_durability.py. A rater asks for a question, answers
it under an id of its own making, and sends the answer again and again until the server acknowledges it; what was
acknowledged, and when, is written down.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120  # seconds without any acknowledgement after which a rater gives up


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """The server as a process of its own, started anew on the same port after each kill."""

    url: str
    study: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0

    def start(self) -> None:
        command = [sys.executable, "-m", "benchmarks.collect_server", self.url, self.study, str(self.port)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment)

    def wait(self, seconds: float = 60) -> None:
        """Return when it answers. Raises RuntimeError when it stopped or the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError("the server stopped by itself")
            time.sleep(0.05)
        raise RuntimeError("the server does not answer")

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nothing is said to anybody."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.kills += 1

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)


class Network:
    """A wire between raters and server that can be cut: every connection is reset, whatever is on its way is lost.

    An answer that reached the server may lose its acknowledgement, which is the case that doubles votes elsewhere.
    """

    def __init__(self, port: int) -> None:
        self.server = port
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self.listener.getsockname()[1])
        self.lock = threading.Lock()
        self.wires: set[socket.socket] = set()
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.cuts += 1
        with self.lock:
            wires, self.wires = self.wires, set()
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                wire.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            rater, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.server), timeout=5)
            except OSError:
                rater.close()
                continue
            server.settimeout(None)
            with self.lock:
                self.wires |= {rater, server}
            threading.Thread(target=self._carry, args=(rater, server), daemon=True).start()

    def _carry(self, rater: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                for ready in select.select([rater, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (server if ready is rater else rater).sendall(data)
        with self.lock:
            self.wires -= {rater, server}
        rater.close()
        server.close()


@dataclass
class Log:
    """What all raters together saw: ids acknowledged, how often an id was sent again, seconds of each kind of request."""

    acknowledged: list[str] = field(default_factory=list)
    known: int = 0  # acknowledged as stored by an earlier delivery
    resent: int = 0
    errors: list[str] = field(default_factory=list)
    next_seconds: list[float] = field(default_factory=list)
    submit_seconds: list[float] = field(default_factory=list)


class Rater(threading.Thread):
    """One rater with a connection of its own. `think` is the mean of an exponential pause before each answer, in seconds."""

    def __init__(
        self, name: str, port: int, study: str, votes: int, log: Log, think: float = 0.0, undo: float = 0.0
    ) -> None:
        super().__init__(daemon=True)
        self.rater, self.port, self.study, self.votes, self.log = name, port, study, votes, log
        self.think, self.undo = think, undo
        self.rng = random.Random(name)
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        with contextlib.suppress(Stopped):
            for _ in range(self.votes):
                given, seconds = self.call("GET", f"/next?rater={self.rater}")
                if given is None:
                    return
                self.log.next_seconds.append(seconds)
                if self.think:
                    time.sleep(self.rng.expovariate(1 / self.think))
                self.answer(given)
                if self.undo and self.rng.random() < self.undo:
                    given, _ = self.call("POST", f"/undo?rater={self.rater}", {})
                    if given:
                        self.answer(given)

    def answer(self, given: dict[str, Any]) -> None:
        k = len(given["order"])
        vote = {
            "id": str(uuid.uuid4()),
            "rater": self.rater,
            "assignment": given["id"],
            "replaces": given["replaces"],
            "ranks": self.rng.sample(range(k), k),
            "submitted_at": time.time(),
        }
        reply, seconds = self.call("POST", "/judgements", vote)
        self.log.submit_seconds.append(seconds)
        self.log.acknowledged.append(vote["id"])
        self.log.known += reply == "known"

    def call(self, method: str, path: str, body: Any = None) -> tuple[Any, float]:
        """The reply and its seconds, asking again for as long as the server or the network is away."""
        until, tries = time.monotonic() + PATIENCE, 0
        while time.monotonic() < until:
            started = time.perf_counter()
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                content = None if body is None else json.dumps(body)
                self.connection.request(method, path, content, {"Content-Type": "application/json"})
                response = self.connection.getresponse()
                data = response.read()
            except (OSError, http.client.HTTPException):
                self.hang_up()
                tries += 1
                time.sleep(min(0.05 * 2**tries, 1) * self.rng.uniform(0.5, 1))
                continue
            self.log.resent += tries if method == "POST" else 0
            if response.status == 200:
                return json.loads(data), time.perf_counter() - started
            self.log.errors.append(f"{response.status} {method} {path}: {data[:300].decode(errors='replace')}")
            raise Stopped
        self.log.errors.append(f"{method} {path}: no answer in {PATIENCE} s")
        raise Stopped

    def hang_up(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None


class Stopped(Exception):
    """A rater cannot go on; the log says why."""


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a private PostgreSQL server in a temporary folder, gone afterwards. Raises RuntimeError where there is none.

    PostgreSQL refuses to run as root, which then hands over to the user `postgres` or `nobody`.
    """
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        raise RuntimeError("PostgreSQL's initdb and pg_ctl are not on the path (Debian: apt install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="guerdon-pg-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        import pwd

        names = {entry.pw_name for entry in pwd.getpwall()}
        name = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, name)
        user = {"user": name, "extra_groups": []}
    quiet: dict[str, Any] = {
        "check": True,
        "cwd": folder,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        **user,
    }
    data = folder / "data"
    try:
        subprocess.run(["initdb", "-D", data, "-A", "trust", "-U", "guerdon"], **quiet)
        options = f"-c listen_addresses= -c fsync=on -k {folder}"
        subprocess.run(["pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start"], **quiet)
        try:
            yield f"postgresql://guerdon@/postgres?host={folder}"
        finally:
            subprocess.run(["pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], **quiet)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"PostgreSQL did not start: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
