"""How many layers of MiniLM to leave as they are pretrained, on held-out training prompts of HH-RLHF harmless-base.

    python benchmarks/hh_freeze.py --data ../shared/data/hh-rlhf/harmless-base --results hh_freeze.jsonl

The training rows that `hh_vs_trl.py` uses are divided by prompt into three folds; for each fold and each number of layers
a model is trained on the other two, one epoch at Guerdon's own schedule, and scored on the fold. The test split is not
read. The two processes that run at once have one thread and one core each. With `--results` it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import hh_vs_trl
import numpy as np

FOLDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/hh-rlhf/harmless-base")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 3, 4], help="numbers of frozen layers to try")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--results", type=Path, help="keep finished trainings in this JSONL file and go on from it")
    parser.add_argument("--one", type=int, nargs=3, metavar=("FOLD", "LAYERS", "SEED"), help="internal: one training")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.one:
        fold, layers, seed = options.one
        result = hh_vs_trl.train_guerdon(options.work / f"fold-{fold}", seed, 1.0, {"freeze_layers": layers})
        print(json.dumps({"fold": fold, "layers": layers, "seed": seed, **result}))
        return
    rows = []
    if options.results and options.results.exists():
        rows = [json.loads(line) for line in options.results.read_text(encoding="utf-8").splitlines()]
    done = {(row["fold"], row["layers"], row["seed"]) for row in rows}
    wanted = [(f, n, s) for s in options.seeds for f in options.folds for n in options.layers]
    left = [one for one in wanted if one not in done]
    with tempfile.TemporaryDirectory() as folder:
        if left:
            divide(Path(options.data), Path(folder))
        for pair in (left[i : i + 2] for i in range(0, len(left), 2)):
            for process in [start(one, core, Path(folder)) for core, one in enumerate(pair)]:
                rows.append(hh_vs_trl.finish("guerdon", process))
                print(f"fold, layers, seed {[rows[-1][k] for k in ('fold', 'layers', 'seed')]}: "
                      f"{rows[-1]['seconds']:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
                if options.results:
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    report([row for row in rows if (row["fold"], row["layers"], row["seed"]) in wanted], options.layers)


def divide(data: Path, work: Path) -> None:
    """Write fold-N/train.jsonl and test.jsonl: all rows of one prompt are in one fold."""
    from guerdon.data.read import load
    from guerdon.data.split import prompt_key

    hh_vs_trl.prepare(data / "train.jsonl.gz", work / "rows.jsonl", None)
    lines = (work / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    keys = [prompt_key(comparison) for comparison in load(str(work / "rows.jsonl")).comparisons]
    prompts = sorted(set(keys))
    of_prompt = dict(zip(prompts, np.random.default_rng(1).integers(0, FOLDS, len(prompts)), strict=True))
    for fold in range(FOLDS):
        folder = work / f"fold-{fold}"
        folder.mkdir()
        for name, inside in (("train", False), ("test", True)):
            kept = [line for line, key in zip(lines, keys, strict=True) if (of_prompt[key] == fold) == inside]
            (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def start(one: tuple[int, int, int], core: int, work: Path) -> subprocess.Popen:
    core %= os.cpu_count() or 1
    return subprocess.Popen(
        [sys.executable, __file__, "--work", str(work), "--one", *map(str, one)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip


def report(rows: list[dict], layers: list[int]) -> None:
    """A line for each training, then for each number of layers over all pairs, with the paired standard error."""
    print(
        "| frozen layers | fold | seed | pairs | accuracy | loss, nats | seconds |\n|---|---|---|---:|---:|---:|---:|"
    )
    margins: dict[int, dict[tuple[int, int], np.ndarray]] = {n: {} for n in layers}
    for row in sorted(rows, key=lambda row: (row["layers"], row["seed"], row["fold"])):
        gaps = margins[row["layers"]][row["fold"], row["seed"]] = np.array(row["margins"])
        print(
            f"| {row['layers']} | {row['fold']} | {row['seed']} | {len(gaps)} | {100 * (gaps > 0).mean():.1f} % "
            f"| {np.logaddexp(0, -gaps).mean():.3f} | {row['seconds']:.0f} |"
        )
    base = layers[0]
    print("\n| frozen layers | pairs | accuracy | loss, nats | accuracy against the first | loss against the first |")
    print("|---|---:|---:|---:|---:|---:|")
    for n in layers:
        shared = sorted(margins[n].keys() & margins[base].keys())
        if not shared:
            continue
        mine, first = (np.concatenate([margins[m][key] for key in shared]) for m in (n, base))
        right = 100.0 * ((mine > 0).astype(float) - (first > 0))
        loss = np.logaddexp(0, -mine) - np.logaddexp(0, -first)
        errors = [difference.std() / math.sqrt(len(mine)) for difference in (right, loss)]
        print(
            f"| {n} | {len(mine)} | {100 * (mine > 0).mean():.1f} % | {np.logaddexp(0, -mine).mean():.3f} "
            f"| {right.mean():+.1f} ± {errors[0]:.1f} points | {loss.mean():+.3f} ± {errors[1]:.3f} |"
        )


if __name__ == "__main__":
    main()
