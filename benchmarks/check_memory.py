"""Peak memory and time of `check` on a million synthetic pairs. The bar: under 2 GiB resident.

    python benchmarks/check_memory.py [--pairs 1000000] [--output benchmarks/check_memory.md]

A file of pairs with log-normal lengths is written to the temporary folder and checked in a process of its own, whose
peak resident memory the kernel reports. One pair in a hundred repeats an earlier one, one in a thousand contradicts it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

CHECK = """
import json, resource, sys, time
start = time.perf_counter()
from guerdon.data.check import check
found = check(sys.argv[1])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
keep = {key: getattr(found, key) for key in ("rows", "comparisons", "prompts", "duplicates", "contradicting")}
print(json.dumps(keep | {"seconds": seconds, "peak": peak}))
"""


def write_pairs(path: Path, pairs: int, seed: int = 0) -> None:
    """About 1.1 kB a row: prompts of some 30 words, answers of some 70."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    earlier: list[dict[str, str]] = []

    def text(median: int) -> str:
        return " ".join(rng.choices(words, k=max(3, int(rng.lognormvariate(0, 0.6) * median))))

    with path.open("w") as file:
        for number in range(pairs):
            if number % 100 == 99:
                row = dict(rng.choice(earlier))
                if number % 1000 == 999:
                    row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
            else:
                row = {"prompt": text(30), "chosen": text(70), "rejected": text(60)}
                if number % 1000 == 0:
                    earlier.append(row)
            file.write(json.dumps(row) + "\n")


def table(found: dict[str, float], size: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pyarrow", "rich"))
    return f"""# Memory of `guerdon check`

| rows | file | peak resident memory | bar | seconds | rows/s |
|---:|---:|---:|---:|---:|---:|
| {found["rows"]:,} | {size / 2**30:.2f} GiB | {found["peak"] / 2**20:,.0f} MiB | 2,048 MiB | {found["seconds"]:,.0f} \
| {found["rows"] / found["seconds"]:,.0f} |

Found: {found["comparisons"]:,} comparisons, {found["prompts"]:,} prompts, {found["duplicates"]:,} repeated pairs, \
{found["contradicting"]:,} contradicting pairs. Lengths were estimated, without a tokenizer.

- Command: `{" ".join(["python", *sys.argv])}`
- Date: {datetime.now(UTC):%Y-%m-%d}
- Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, one used
- Versions: Python {platform.python_version()}, {versions}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.jsonl")
        start = time.perf_counter()
        write_pairs(path, options.pairs)
        print(f"wrote {path.stat().st_size / 2**20:,.0f} MiB in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        done = subprocess.run([sys.executable, "-c", CHECK, str(path)], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        text = table(found, path.stat().st_size)
    print(text)
    if options.output:
        options.output.write_text(text)
    if found["peak"] >= 2 * 2**30:
        sys.exit("over the bar of 2 GiB")


if __name__ == "__main__":
    main()
