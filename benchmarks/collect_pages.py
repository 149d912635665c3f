"""The web application itself, with a million stored judgements: raters at work, and the pages of a lead.

    python -m benchmarks.collect_pages [--stored 1000000] [--seconds 40] [--output benchmarks/collect_pages.md]

`guerdon collect start` runs in a process of its own. Raters sign in, then think an exponential time (mean `--think` seconds), ask and
answer, through every layer: session, origin, token, rules, masking, markup. Meanwhile nobody looks at the pages; then an admin opens each
several times. `quality` is computed aside: its first view says so, and a later one has the numbers.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from datetime import date
from pathlib import Path

import httpx2
import numpy as np

from benchmarks.collect_latency import STUDY, prepare
from guerdon.collect.access import Access
from guerdon.collect.store import Store

PASSWORD = "a password for measuring"
PAGES = ("", "/people", "/settings", "/export", "/quality", "/review")


def signed_in(url: str, name: str) -> httpx2.Client:
    client = httpx2.Client(base_url=url, headers={"origin": url}, timeout=120, trust_env=False)
    token = _csrf(client.get("/login").text)
    reply = client.post("/login", data={"name": name, "password": PASSWORD, "csrf": token})
    if reply.status_code != 303:
        raise SystemExit(f"{name} cannot sign in: {reply.status_code}")
    client.headers["x-csrf-token"] = _csrf(client.get("/account").text)
    return client


def _csrf(html: str) -> str:
    return re.search(r'name="csrf" (?:value|content)="([^"]*)"', html)[1]


def work(client: httpx2.Client, seed: int, think: float, until: float, found: dict[str, list[float]]) -> None:
    rng = random.Random(seed)
    while time.perf_counter() < until:
        time.sleep(rng.expovariate(1 / think))
        started = time.perf_counter()
        question = client.get(f"/api/studies/{STUDY}/next").json()["question"]
        found["next"].append(time.perf_counter() - started)
        answer = {
            "id": str(uuid.uuid4()),
            "assignment": question["assignment"],
            "answer": "ranked",
            "ranks": [1, 2],
            "strength": 2,
        }
        started = time.perf_counter()
        reply = client.post(f"/api/studies/{STUDY}/judgements", json={"answers": [answer]}).json()
        found["submit"].append(time.perf_counter() - started)
        if reply["results"][0]["status"] != "stored":
            raise SystemExit(f"not stored: {reply}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=1_000_000)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--think", type=float, default=5)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder) / "study.db")
        prepare(f"sqlite:///{database}", given.stored, given.raters, 5000)
        with Store.open(database) as store:
            access = Access(store)
            access.add("ada", "admin", PASSWORD)
            for i in range(given.raters):
                access.add(f"rater{i}", "rater", PASSWORD)
                access.join(f"rater{i}", STUDY, "ada")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "guerdon.cli", "collect", "start", "--database", database, "--port", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            rows = measure(url, given)
        finally:
            server.terminate()
            server.wait(30)
    text = render(rows, given)
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


def measure(url: str, given: argparse.Namespace) -> list[tuple[str, str]]:
    found: dict[str, list[float]] = {"next": [], "submit": []}
    clients = [signed_in(url, f"rater{i}") for i in range(given.raters)]
    until = time.perf_counter() + given.seconds
    threads = [
        threading.Thread(target=work, args=(client, i, given.think, until, found)) for i, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [
        (f"`{name}`, p95 of {len(times)}, ms", f"{1000 * np.quantile(times, 0.95):.1f}")
        for name, times in found.items()
    ]
    admin = signed_in(url, "ada")
    for page in PAGES:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            admin.get(f"/studies/{STUDY}{page}").raise_for_status()
            times.append(time.perf_counter() - started)
        rows.append(
            (f"page `{page or '/'}`, median (slowest) of 5, s", f"{statistics.median(times):.3f} ({max(times):.3f})")
        )
    started = time.perf_counter()
    while "being computed" in admin.get(f"/studies/{STUDY}/quality").text and time.perf_counter() - started < 600:
        time.sleep(2)
    done = "From" in admin.get(f"/studies/{STUDY}/quality").text
    rows.append(("quality computed aside, s", f"{time.perf_counter() - started:.0f}" if done else "not within 600"))
    return rows


def render(rows: list[tuple[str, str]], given: argparse.Namespace) -> str:
    table = "".join(f"| {name} | {value} |\n" for name, value in rows)
    return (
        f"# Pages of guerdon collect with {given.stored:,} judgements\n\n"
        f"{given.raters} raters who think {given.think:g} s on average, {given.seconds:g} s, SQLite with full sync, the application itself.\n\n"
        f"| what | value |\n|---|---:|\n{table}\n"
        f"`python -m benchmarks.collect_pages --stored {given.stored} --raters {given.raters} --seconds {given.seconds:g} --think "
        f"{given.think:g}`, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {date.today()}\n"
    )


if __name__ == "__main__":
    main()
