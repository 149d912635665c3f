"""Ensembles against over-optimisation on real answers: train on one half of a pool, pick the best of n on the other.

    python benchmarks/ensemble_pools.py --pool bon-tulu13b --work runs/bon
    python benchmarks/ensemble_pools.py --pool alpaca-eval --work runs/alpaca --per-prompt 6

Trains one MiniLM with `--members` heads, each on its own bootstrap of the train instructions, on rankings by gold; scores all
candidates of the test instructions; and prints gold of the best of n under a single member, the mean, the worst case
and uncertainty-weighted rewards, beside the length baseline and the oracle, with 95 % intervals over instructions. The
scores stay in `--work`, so that a second call only measures. Gold is the judge's probability that the answer beats the
baseline's; test instructions occur nowhere in training.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from datetime import date
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from pools import alpaca_eval, bon_tulu

from guerdon.data.write import write_jsonl
from guerdon.diagnose.overopt import overoptimisation
from guerdon.diagnose.overopt_page import write_overopt_page
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.pools import Pool
from guerdon.model.reward import RewardModel
from guerdon.train.config import TrainConfig
from guerdon.train.loop import fit
from guerdon.types import Comparison

POOLS = {"bon-tulu13b": bon_tulu, "alpaca-eval": alpaca_eval}
SHOWN = {
    "member 1": "single",
    "mean": "mean",
    "min": "worst case",
    "mean-std:1": "mean - std",
    "mean-var:0.5": "mean - 0.5 var",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pool", choices=POOLS, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument(
        "--per-prompt", type=int, help="rank only so many answers of each train instruction, drawn by seed"
    )
    parser.add_argument("--prompts", type=int, help="first instructions only, to try the script")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="write the page with the curves here")
    options = parser.parse_args()
    scores = options.work / "test-scores.parquet"
    if not scores.exists():
        options.work.mkdir(parents=True, exist_ok=True)
        train(options)
        score(options, scores)
    report(CandidateTable.read(scores), options)


def first(table: CandidateTable, prompts: int | None) -> CandidateTable:
    return table if prompts is None else table.where(slice(0, int(table.starts()[: prompts + 1][-1])))


def train(options: argparse.Namespace) -> None:
    """Rankings of the train answers by gold, rounded to 0.1 so that noise in the judge's certainty is a tie."""
    table = first(POOLS[options.pool](options.data, ("train",)), options.prompts)
    rng = random.Random(options.seed)
    rows = []
    for prompt, group in groupby(range(len(table)), key=lambda i: table.prompt[i]):
        members = list(group)
        if options.per_prompt:
            members = rng.sample(members, min(options.per_prompt, len(members)))
        answers = tuple(({"role": "assistant", "content": str(table.text[i])},) for i in members)
        ranks = tuple(float(-round(table.gold[i], 1)) for i in members)
        rows.append(
            Comparison(({"role": "user", "content": prompt},), answers, ranks, id=f"{options.pool}-{len(rows)}")
        )
    write_jsonl(options.work / "train.jsonl", rows)
    started = time.perf_counter()
    fit(
        TrainConfig(
            data=(str(options.work / "train.jsonl"),), model=options.model, output=str(options.work / "run"), ensemble=options.members,
            eval_fraction=0.0, seed=options.seed, epochs=options.epochs, batch_size=4, learning_rate=options.learning_rate,
            max_length=options.max_length, truncation="right", ties="drop",
        )
    )  # fmt: skip
    (options.work / "seconds.json").write_text(json.dumps({"train": time.perf_counter() - started}))


def score(options: argparse.Namespace, target: Path) -> None:
    table = first(POOLS[options.pool](options.data, ("test",)), options.prompts)
    model = RewardModel.load(options.work / "run" / "model")
    talks = [
        [{"role": "user", "content": p}, {"role": "assistant", "content": t}]
        for p, t in zip(table.prompt, table.text, strict=True)
    ]
    members: list[tuple[float, ...]] = []
    started = time.perf_counter()
    for start in range(0, len(talks), 256):
        found = model.score(talks[start : start + 256])
        members += [score.members for score in found]
        print(f"scored {len(members)} of {len(talks)}", end="\r", flush=True)
    seconds = json.loads((options.work / "seconds.json").read_text()) | {"score": time.perf_counter() - started}
    (options.work / "seconds.json").write_text(json.dumps(seconds))
    array = np.array(members)
    CandidateTable(**{**vars(table), "score": array.mean(1), "members": array}).write(target)


def report(table: CandidateTable, options: argparse.Namespace) -> None:
    found = overoptimisation(Pool(table, {}, True, {}), rules=list(SHOWN)[1:], examples=0, seed=options.seed)
    seconds = json.loads((options.work / "seconds.json").read_text())
    print(f"## {options.pool}\n")
    print(
        f"`python benchmarks/ensemble_pools.py --pool {options.pool}{f' --per-prompt {options.per_prompt}' if options.per_prompt else ''}"
        f" --epochs {options.epochs:g} --max-length {options.max_length} --learning-rate {options.learning_rate:g}`: {platform.machine()}, "
        f"{torch.get_num_threads()} threads of {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}, "
        f"transformers {version('transformers')}, {date.today()}; training {seconds['train']:.0f} s, scoring {seconds['score']:.0f} s. "
        f"{found.prompts} test instructions, {found.candidates} candidates.\n"
    )
    print("| gold x 100, best of n = | " + " | ".join(str(n) for n in found.n) + " |\n|---|" + "---:|" * len(found.n))
    ladders = {ladder.name: ladder.gold for ladder in (*found.members, *found.ensemble)}
    rows = {label: ladders[name] for name, label in SHOWN.items()} | {
        "longest answer": found.length,
        "oracle": found.oracle,
    }
    for label, curve in rows.items():
        cells = [f"{100 * m:.2f}" for m in curve.mean[:-1]]
        last = f"{100 * curve.mean[-1]:.2f} ({100 * curve.low[-1]:.2f} to {100 * curve.high[-1]:.2f})"
        print(f"| {label} | " + " | ".join([*cells, last]) + " |")
    gap = found.length_gap
    print(
        f"\nMean of the ensemble above the longest answer at n = {found.n[-1]}: {100 * gap[0]:+.2f} ({100 * gap[1]:+.2f} to {100 * gap[2]:+.2f})."
    )
    spread = table.members.std(axis=1).mean() / table.score.std()
    print(f"Members disagree by {spread:.3f} standard deviations of the reward on average.\n")
    if options.picture:
        write_overopt_page(options.picture, found, title=f"Best of n on {options.pool}")


if __name__ == "__main__":
    main()
