"""Time and memory of the best-of-n estimator on 10,000 prompts x 512 candidates. The bar: under 20 s.

    python benchmarks/best_of_n_speed.py [--prompts 10000] [--candidates 512] [--output benchmarks/best_of_n_speed.md]

Proxy and gold are normal with correlation 0.7; the tied row rounds the proxy to 50 levels. `every n` is 1, 2, ..., 512
instead of the grid that reports use. Each row runs in a process of its own, whose peak resident memory the kernel reports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

CASE = """
import json, resource, sys, time
import numpy as np
from guerdon.evaluate.best_of_n import best_of_n, grid, resampled_means
prompts, candidates, case = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
gold = rng.normal(size=prompts * candidates)
score = 0.7 * gold + 0.51 ** 0.5 * rng.normal(size=len(gold))
if case == "ties":
    score = np.round(score * 8) / 8
values = np.stack([score, gold], axis=1)
starts = np.arange(0, len(gold) + 1, candidates)
n = np.arange(1, candidates + 1) if case == "every n" else grid(candidates)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.perf_counter()
found = best_of_n(score, values, starts, n)
seconds = time.perf_counter() - start
if case == "bootstrap":
    start = time.perf_counter()
    resampled_means(found.reshape(prompts, -1))
    seconds = time.perf_counter() - start
if case == "report":
    from guerdon.diagnose.overopt import overoptimisation
    from guerdon.evaluate.candidates import CandidateTable
    from guerdon.evaluate.pools import Pool
    blank = np.full(len(gold), "", dtype=object)
    names = np.repeat(np.arange(prompts).astype(str).astype(object), candidates)
    table = CandidateTable(names, blank, score, gold, np.exp(rng.normal(size=len(gold))), blank, np.zeros((len(gold), 0)), blank)
    start = time.perf_counter()
    overoptimisation(Pool(table, {}, True, {}))
    seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"points": len(n), "seconds": seconds, "input": before, "peak": peak}))
"""
CASES = {
    "grid": "estimator, proxy and gold, on the grid of a report",
    "ties": "the same with tied scores",
    "every n": "the same at every n",
    "report": "the whole measurement: ladder, oracle, length, fits, winners, tail, with intervals",
    "bootstrap": "2,000 resamples over prompts of both curves",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=512)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = [
        "# Speed of the best-of-n estimator",
        "",
        f"{options.prompts:,} prompts x {options.candidates} candidates.",
    ]
    lines += ["", "| what | n | seconds | bar | input, MiB | peak, MiB |", "|---|---:|---:|---:|---:|---:|"]
    for case, what in CASES.items():
        arguments = [sys.executable, "-c", CASE, str(options.prompts), str(options.candidates), case]
        found = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
        cells = [
            what,
            found["points"],
            f"{found['seconds']:.1f}",
            "20",
            f"{found['input']:.0f}",
            f"{found['peak']:.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
        print(lines[-1], flush=True)
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    lines += [
        "",
        "- Command: `python benchmarks/best_of_n_speed.py --output benchmarks/best_of_n_speed.md`",
        f"- Date: {datetime.now(UTC):%Y-%m-%d}",
        f"- Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, load average at the end {load}: "
        "other work ran beside it, so the seconds are upper bounds",
        f"- Versions: Python {platform.python_version()}, numpy {version('numpy')}",
    ]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
