"""Seconds of next and submit for concurrent raters, on an empty study and behind a million judgements. The bar on 2 cores:
p95 under 100 ms with 50 raters; with 1,000,000 stored judgements p95 under 150 ms and the totals of the admin page under 2 s.

    python -m benchmarks.collect_latency [--stored 1000000] [--seconds 60] [--think 5] [--output benchmarks/collect_latency.md]

Raters think for an exponential time (mean `--think` seconds) before each answer; people take 30 s and more for a comparison.
The server is benchmarks/collect_server.py: the store behind the least HTTP there can be. Every figure is the median over
`--repeats` runs, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from benchmarks.collect_raters import Log, Rater, Server
from guerdon.collect import schema, studies
from guerdon.collect.questions import dump
from guerdon.collect.settings import Settings
from guerdon.collect.store import Store
from guerdon.types import Question

STUDY = "latency"
CHUNK = 20_000


@dataclass(frozen=True)
class Run:
    """One run: 95th percentile and median in ms, votes per second, and the seconds of the admin page's totals."""

    next_p95: float
    next_median: float
    submit_p95: float
    submit_median: float
    votes_per_second: float
    counts_seconds: float


def questions(number: int) -> Iterator[Question]:
    for i in range(number):
        answers = tuple(({"role": "assistant", "content": f"answer {c} to {i}: " + "word " * 150},) for c in "ab")
        yield Question(({"role": "user", "content": f"question {i}: " + "word " * 40},), answers, id=f"q{i}")


def prepare(url: str, stored: int, raters: int, open_questions: int, overlap: int = 3) -> None:
    """A study with so many stored judgements, each with its assignment, by `raters` raters, and open questions besides.

    They are written as the store writes them, in rows at once: through HTTP a million would take hours.
    """
    done = -(-stored // overlap)
    with Store.open(url) as store:
        store.create_study(STUDY, Settings(overlap=overlap))
        store.add_questions(STUDY, questions(done + open_questions))
        now = time.time()
        for start in range(1, done + 1, CHUNK):
            ids = range(start, min(start + CHUNK, done + 1))
            store.write(lambda db, ids=ids: _fill(db, ids, raters, overlap, now))
        counted = {
            "judgements": done * overlap,
            "answer:ranked": done * overlap,
            "open": -done,
            "arm:random": done * overlap,
        }
        store.write(lambda db: studies.count(db, 1, counted))


def _fill(db: sa.Connection, ids: Sequence[int], raters: int, overlap: int, now: float) -> None:
    a, j = schema.assignment, schema.judgement
    given, events = [], []
    for question in ids:
        for n in range(overlap):
            rater, number = f"rater{(question + n * 7) % raters}", (question - 1) * overlap + n + 1
            order = dump([0, 1] if (question + n) % 2 else [1, 0])
            shared = {
                "study": 1,
                "question": question,
                "rater": rater,
                "display": order,
                "arm": "random",
                "probability": 1e-6,
            }
            vote = f"{number:032x}"
            times = {"given": now, "expires": now, "state": "done", "item": question // raters, "judgement": vote}
            given.append({**shared, "id": number, **times})
            answer = {"kind": "human", "answer": "ranked", "ranks": "[0.0,1.0]", "strength": 2.0, "received": now}
            events.append({**shared, "id": vote, "assignment": number, **answer, "rationale": "clearer"})
    db.execute(a.insert(), given)
    db.execute(j.insert(), events)
    finished = schema.question.c.id.between(ids[0], ids[-1])
    db.execute(schema.question.update().where(finished).values(open=False, answered=overlap))


def measure(url: str, raters: int, seconds: float, think: float) -> Run:
    """One run on a prepared database, with the server in a process of its own."""
    server, log = Server(url, STUDY), Log()
    server.start()
    server.wait(120)
    crowd = [Rater(f"rater{i}", server.port, STUDY, 10**9, log, think) for i in range(raters)]
    try:
        for rater in crowd:
            rater.start()
            time.sleep(0.02)
        time.sleep(3)  # everybody is at work, the caches are warm
        first_next, first_submit, started = len(log.next_seconds), len(log.submit_seconds), time.perf_counter()
        time.sleep(seconds)
        asked, sent = log.next_seconds[first_next:], log.submit_seconds[first_submit:]
        elapsed = time.perf_counter() - started
        probe = Rater("probe", server.port, STUDY, 0, log)
        _, counts = probe.call("GET", "/counts")
        if log.errors:
            raise RuntimeError(log.errors[0])
    finally:
        server.kill()
    return Run(p95(asked), median(asked), p95(sent), median(sent), len(sent) / elapsed, counts)


def p95(values: Sequence[float]) -> float:
    return 1000 * statistics.quantiles(values, n=20)[-1]


def median(values: Sequence[float]) -> float:
    return 1000 * statistics.median(values)


def _cell(values: Sequence[float], digits: int) -> str:
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def render(rows: list[tuple[int, list[Run]]], given: argparse.Namespace, command: str) -> str:
    """The committed table."""
    lines = [
        "# Latency of guerdon collect",
        "",
        f"{given.raters} concurrent raters who think {given.think:g} s on average, {given.seconds:g} s a run, SQLite with full sync.",
        "Milliseconds as the rater's side sees them; median over runs (lowest to highest).",
        "",
        "| judgements stored | next p95 | next median | submit p95 | submit median | votes/s | totals, seconds |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for stored, runs in rows:
        names = ("next_p95", "next_median", "submit_p95", "submit_median", "votes_per_second")
        cells = [_cell([getattr(run, name) for run in runs], 1) for name in names]
        lines.append(f"| {stored:,} | {' | '.join(cells)} | {_cell([run.counts_seconds for run in runs], 3)} |")
    versions = ", ".join(f"{name} {version(name)}" for name in ("sqlalchemy", "uvicorn"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join(
        [
            *lines,
            "",
            f"- Command: `{command}`",
            f"- Date: {datetime.now(UTC):%Y-%m-%d}",
            f"- Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, server and raters on the cores "
            f"{sorted(os.sched_getaffinity(0))}, load average at the end {load}",
            f"- Versions: Python {platform.python_version()}, {versions}, SQLite {sqlite3.sqlite_version}",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, nargs="+", default=[0, 1_000_000])
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think", type=float, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for stored in given.stored:
            url = f"sqlite:///{folder}/{stored}.db"
            prepare(url, stored, given.raters, open_questions=20_000)
            runs = [measure(url, given.raters, given.seconds, given.think) for _ in range(given.repeats)]
            print(stored, runs, flush=True)
            rows.append((stored, runs))
    command = (
        f"python -m benchmarks.collect_latency --stored {' '.join(map(str, given.stored))} --raters {given.raters} "
        f"--seconds {given.seconds:g} --think {given.think:g} --repeats {given.repeats}"
    )
    text = render(rows, given, command + (f" --output {given.output}" if given.output else ""))
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
