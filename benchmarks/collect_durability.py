"""Zero lost, zero doubled: votes of concurrent raters while the server is killed and the network is cut. The bar: exactly that.

    python -m benchmarks.collect_durability [--votes 10000] [--raters 50] [--kills 20] [--output benchmarks/collect_durability.md]

Once on SQLite and once on a PostgreSQL server of its own. Every rater sends each answer until it is acknowledged; now and
then one undoes its last answer. Afterwards what was acknowledged, what is stored and what the reader of `guerdon train`
and `guerdon collect export` gives must be the same ids, each once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.collect_raters import Log, Network, Rater, Server, postgresql
from guerdon.collect.settings import Settings
from guerdon.collect.store import Store
from guerdon.data.database import stream_database
from guerdon.types import Question

STUDY = "durability"


@dataclass(frozen=True)
class Found:
    """What one run came to. `lost` and `doubled` must be 0, and `problems` empty."""

    database: str
    votes: int
    kills: int
    cuts: int
    resent: int
    known: int
    stored: int
    exported: int
    lost: int
    doubled: int
    beyond_overlap: int
    seconds: float
    problems: tuple[str, ...]


def measure(
    url: str, votes: int, raters: int, kills: int, every: float, overlap: int = 3, direct: bool = False
) -> Found:
    """Run it on one database. The server is killed at least every `every` seconds, or as often as
    spreads the kills over the votes, and the network cut twice as often."""
    with Store.open(url) as store:
        store.create_study(STUDY, Settings(overlap=overlap, repeats=0.05, gold=0.05, lock_seconds=600))
        per_rater = -(-votes // raters)
        store.add_questions(STUDY, _questions(0, per_rater * raters // overlap + 2 * raters))
        gold = list(_questions(10**6, 40))
        store.add_questions(STUDY, gold, kind="gold", gold={question.id: (0, 1) for question in gold})
    server, log = Server(url, STUDY), Log()
    server.start()
    server.wait()
    network = Network(server.port)
    crowd = [Rater(f"rater{i}", network.port, STUDY, per_rater, log, undo=0.02) for i in range(raters)]
    started = time.perf_counter()
    for rater in crowd:
        rater.start()
    done = threading.Event()
    cutter = threading.Thread(target=_cut, args=(network, every / 2, done), daemon=True)
    cutter.start()
    try:
        while any(rater.is_alive() for rater in crowd):
            _until_share(log, per_rater * raters * (server.kills + 1) / (kills + 1), time.perf_counter() + every, crowd)
            if server.kills < kills and any(rater.is_alive() for rater in crowd):
                server.kill()
                server.start()
                server.wait()
        for rater in crowd:
            rater.join()
    finally:
        done.set()
        server.stop()
    seconds = time.perf_counter() - started
    return _compare(url, log, server.kills, network.cuts, seconds, overlap)


def _until_share(log: Log, votes: float, latest: float, crowd: Sequence[Rater]) -> None:
    """Wait until so many votes are acknowledged, at the longest until `latest`: a fast machine is killed as often as a slow one."""
    while len(log.acknowledged) < votes and time.perf_counter() < latest and any(rater.is_alive() for rater in crowd):
        time.sleep(0.01)


def _cut(network: Network, every: float, done: threading.Event) -> None:
    rng = random.Random(1)
    while not done.wait(rng.uniform(0.5, 1.5) * every):
        network.cut()


def _questions(start: int, number: int) -> Iterator[Question]:
    for i in range(start, start + number):
        answers = tuple(({"role": "assistant", "content": f"answer {c} to {i}"},) for c in "ab")
        yield Question(({"role": "user", "content": f"question {i}"},), answers, id=f"q{i}")


def _compare(url: str, log: Log, kills: int, cuts: int, seconds: float, overlap: int) -> Found:
    with Store.open(url) as store:
        events = list(store.stored(STUDY))
        counted = store.counts(STUDY).judgements
    stored = Counter(event.judgement.id for event in events)
    replaced = {event.judgement.replaces for event in events}
    standing = [event for event in events if event.judgement.id not in replaced]
    twice = Counter((e.judgement.rater, e.judgement.question.id, e.judgement.arm == "repeat") for e in standing)
    per_question = Counter(e.judgement.question.id for e in standing if e.judgement.arm == "random" and not e.late)
    exported = {row["judgement"] for _, row in stream_database(f"{url}{'&' if '?' in url else '?'}study={STUDY}&all=1")}
    acknowledged = Counter(log.acknowledged)
    problems = list(log.errors)
    if set(acknowledged) != set(stored):
        problems.append(f"{len(set(stored) - set(acknowledged))} stored were never acknowledged")
    if counted != len(events):
        problems.append(f"the counters say {counted} judgements, there are {len(events)}")
    return Found(
        database=url.split(":")[0],
        votes=len(acknowledged),
        kills=kills,
        cuts=cuts,
        resent=log.resent,
        known=log.known,
        stored=len(events),
        exported=len(exported & set(stored)),
        lost=len(set(acknowledged) - set(stored)) + len(set(stored) - exported),
        doubled=sum(n - 1 for n in stored.values()) + sum(n - 1 for n in twice.values()),
        beyond_overlap=sum(n > overlap for n in per_question.values()),
        seconds=seconds,
        problems=tuple(problems),
    )


def render(found: list[Found], command: str) -> str:
    """The committed table."""
    lines = [
        "# Durability of guerdon collect",
        "",
        "Every answer is sent until it is acknowledged, while the server is killed with SIGKILL and all connections are reset.",
        "`resent`: deliveries that were repeated; `known`: of these, answers whose first delivery had been stored although its",
        "acknowledgement was lost, and which were recognised. `lost`: acknowledged but not stored, or stored but not exported.",
        "`doubled`: an id stored twice, or two standing answers of one rater to one question (hidden repeats count on their own).",
        "`beyond overlap`: questions with more answers than were wanted.",
        "",
        "| database | acknowledged | stored | exported | lost | doubled | beyond overlap | kills | cuts | resent | known | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {f.database} | {f.votes} | {f.stored} | {f.exported} | {f.lost} | {f.doubled} | {f.beyond_overlap} | {f.kills} | "
        f"{f.cuts} | {f.resent} | {f.known} | {f.seconds:.0f} |"
        for f in found
    ]
    lines += [f"- Problem: {problem}" for f in found for problem in f.problems[:10]]
    names = ("sqlalchemy", "uvicorn", "psycopg")
    versions = ", ".join([f"{name} {version(name)}" for name in names] + [f"SQLite {sqlite3.sqlite_version}"])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join(
        [
            *lines,
            "",
            f"- Command: `{command}`",
            f"- Date: {datetime.now(UTC):%Y-%m-%d}",
            f"- Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, server and raters on the cores "
            f"{sorted(os.sched_getaffinity(0))}, load average at the end {load}",
            f"- Versions: Python {platform.python_version()}, {versions}",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=10_000)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every", type=float, default=8.0, help="seconds between kills, about")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for database in given.databases:
            url = f"sqlite:///{folder}/study.db" if database == "sqlite" else stack.enter_context(postgresql())
            found.append(measure(url, given.votes, given.raters, given.kills, given.every))
            print(found[-1], flush=True)
    output = f" --output {given.output}" if given.output else ""
    command = (
        f"python -m benchmarks.collect_durability --votes {given.votes} --raters {given.raters} --kills {given.kills}"
    )
    text = render(found, f"{command} --every {given.every:g}{output}")
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
