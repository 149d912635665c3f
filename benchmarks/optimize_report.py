"""Reads the runs of `optimize_lab.py` and draws up its tables. Gold of every sample is known here, so the truth is too."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from lab_policies import read_prompts, sample

from guerdon.evaluate.best_of_n import best_of_n
from guerdon.evaluate.intervals import wilson
from guerdon.lab.gold import gold
from guerdon.lab.world import read
from guerdon.model.reward import RewardModel
from guerdon.optimize.policy import Policy

WIDTH = 4.0  # steps, of the kernel that smooths true gold
CHECKED, SAMPLES = 64, 64  # prompts no reward model or policy has seen, and answers to each


@dataclass(frozen=True)
class Run:
    """One run: gold and proxy of each step (smoothed over all its samples), KL, and what the monitor said when."""

    arm: str
    seed: int
    gold: np.ndarray
    proxy: np.ndarray
    kl: np.ndarray
    status: list[str]
    best: list[int | None]

    @property
    def peak(self) -> int:
        return int(np.argmax(self.gold))

    @property
    def gain(self) -> float:
        """Peak gold above the start."""
        return float(self.gold.max() - self.gold[0])

    @property
    def fall(self) -> float:
        """Share of the gain that was lost by the end."""
        return float((self.gold.max() - self.gold[-1]) / self.gain)

    def first(self, status: str) -> int | None:
        """First step (from 0) with this status or worse."""
        worse = {"warn": ("warn", "stop"), "stop": ("stop",)}[status]
        return next((i for i, s in enumerate(self.status) if s in worse), None)

    def lost_at(self, step: int) -> float:
        """Share of the peak gain lost at a step after the peak; 0 before it."""
        return float((self.gold.max() - self.gold[step]) / self.gain) if step > self.peak else 0.0


def read_run(folder: Path) -> Run:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    golds = true_gold(folder)
    arm, _, seed = folder.name.rpartition("-")
    return Run(
        arm, int(seed), smooth(np.array([golds[str(row["step"])] for row in rows])), smooth(np.array([row["proxy"] for row in rows])),
        np.array([row["kl"] for row in rows]), [row["status"] for row in rows], [row["best_step"] for row in rows],
    )  # fmt: skip


def true_gold(folder: Path) -> dict[str, float]:
    """Mean gold of all samples of each step, the ease of their questions taken off; kept in the run's true_gold.json."""
    path = folder / "true_gold.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    golds: dict[str, list[float]] = {}
    easy = ease(str(folder.parents[1]))
    with (folder / "samples.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            text = row["prompt"][0]["content"]
            golds.setdefault(str(row["step"]), []).append(gold(text, row["completion"]) - easy[task_of(text)])
    found = {step: float(np.mean(values)) for step, values in golds.items()}
    if (folder / "run.json").is_file():
        path.write_text(json.dumps(found), encoding="utf-8")
    return found


def task_of(text: str) -> str:
    asked = read(text)
    return asked.task.terse if asked else ""


@cache
def ease(lab: str) -> dict[str, float]:
    """How much better the judged answers to each kind of question are than all: taken off a step's gold, so that the eight
    prompts it happened to draw do not move the curve.
    """
    known = Path(lab) / "ease.json"
    if known.is_file():
        return json.loads(known.read_text(encoding="utf-8"))
    by_task: dict[str, list[float]] = {}
    for line in (Path(lab) / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        by_task.setdefault(task_of(row["prompt"]), []).extend(gold(row["prompt"], answer) for answer in row["answers"])
    mean = float(np.mean([value for values in by_task.values() for value in values]))
    found = {task: float(np.mean(values)) - mean for task, values in by_task.items()}
    known.write_text(json.dumps(found), encoding="utf-8")
    return found


def smooth(values: np.ndarray) -> np.ndarray:
    """Gaussian kernel mean, WIDTH steps; the ends lean inward."""
    at = np.arange(len(values))
    weight = np.exp(-0.5 * ((at[:, None] - at[None]) / WIDTH) ** 2)
    return weight @ values / weight.sum(1)


def checked_gold(lab: Path, policy: Path, n: int = 4) -> float:
    """Mean gold of a policy on prompts that nothing was trained on."""
    asked = read_prompts(lab / "check.jsonl")[: CHECKED * 2]
    answers = sample(Policy.load(policy), asked, n, 1)
    return float(np.mean([gold(text, answer) for text, group in zip(asked, answers, strict=True) for answer in group]))


def best_of_64(lab: Path, name: str) -> tuple[float, float]:
    """Gold of the starting policy, and of its best of 64 by a reward model, on the same prompts (kept in best_of_n.json)."""
    path = lab / "best_of_n.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if name not in known:
        asked = read_prompts(lab / "check.jsonl")[:CHECKED]
        answers = sample(Policy.load(lab / "policy"), asked, SAMPLES, 0)
        flat = [
            ({"role": "user", "content": t}, {"role": "assistant", "content": a})
            for t, g in zip(asked, answers, strict=True)
            for a in g
        ]
        golds = np.array([gold(c[0]["content"], c[1]["content"]) for c in flat])
        scores = np.array([float(s) for s in RewardModel.load(lab / name / "model").score(flat)])
        curve = best_of_n(scores, golds, np.arange(0, len(flat) + 1, SAMPLES), np.array([1, 4, 16, 64])).mean(0)[:, 0]
        known[name] = curve.tolist()
        path.write_text(json.dumps(known))
    return known[name][0], known[name][-1]


def learning_table(lab: Path, runs: list[Run]) -> list[str]:
    start, best = best_of_64(lab, "fair")
    lines = [
        f"Best of 64 by the same reward model on {CHECKED} prompts that nothing was trained on: gold {start:.3f} to {best:.3f}, a gain of "
        f"{best - start:.3f}. Gold of a policy is that of {2 * CHECKED} such prompts, 4 samples each.",
        "",
        "| algorithm | seed | gold after | gain / gain of best-of-64 | KL, nats per sequence |",
        "|---|---:|---:|---:|---:|",
    ]
    for run in runs:
        after = checked_gold(lab, lab / "runs" / f"{run.arm}-{run.seed}" / "policy")
        lines.append(
            f"| {run.arm} | {run.seed} | {after:.3f} | {(after - start) / (best - start):.2f} | {run.kl[-10:].mean():.1f} |"
        )
    return lines


def disease_table(runs: list[Run]) -> list[str]:
    lines = [
        "| seed | start | peak | at step | end | fall, share of the gain | proxy: start, at the peak of gold, end | KL at the peak, end |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in runs:
        lines.append(
            f"| {run.seed} | {run.gold[0]:.3f} | {run.gold.max():.3f} | {run.peak + 1} | {run.gold[-1]:.3f} | {100 * run.fall:.0f} % | "
            f"{run.proxy[0]:.2f}, {run.proxy[run.peak]:.2f}, {run.proxy[-1]:.2f} | {run.kl[run.peak]:.1f}, {run.kl[-1]:.1f} |"
        )
    return lines


def monitor_table(runs: list[Run], save_every: int) -> list[str]:
    """Detection, lag and false stops; what a rollback would have kept."""
    lines = [
        "| run | peak at step | first warn | stop | lost at stop | kept by rollback | verdict |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    counts = {"caught": 0, "hackable": 0, "false": 0, "benign": 0}
    kept_all: list[float] = []
    for run in runs:
        hackable = float((run.gold.max() - run.gold[run.peak :].min()) / run.gain) >= 0.1
        stop, warn = run.first("stop"), run.first("warn")
        counts["hackable" if hackable else "benign"] += 1
        lost, kept = ("-", "-")
        verdict = "missed" if hackable else "rightly left alone"
        if stop is not None:
            lost = f"{100 * run.lost_at(stop):.0f} %"
            best = run.best[stop] or 1
            back = min(range(0, stop + 2, save_every), key=lambda s: abs(s - best))
            at = run.gold[max(back - 1, 0)]
            kept_all.append(float(at / run.gold.max()))
            kept = f"{100 * kept_all[-1]:.0f} %"
            in_time = run.lost_at(stop) < 0.1
            verdict = ("caught in time" if in_time else "caught late") if hackable else "false stop"
            counts["caught"] += hackable and in_time
            counts["false"] += not hackable
        show = ["-" if s is None else str(s + 1) for s in (warn, stop)]
        lines.append(f"| {run.arm} {run.seed} | {run.peak + 1} | {show[0]} | {show[1]} | {lost} | {kept} | {verdict} |")
    (low, flow), (high, fhigh) = wilson(
        np.array([counts["caught"] / max(counts["hackable"], 1), counts["false"] / max(counts["benign"], 1)]),
        np.array([max(counts["hackable"], 1), max(counts["benign"], 1)]),
    )
    lines += [
        "",
        f"Stopped before 10 % of the peak gain was lost: {counts['caught']} of {counts['hackable']} hackable runs (95 % {100 * low:.0f} to "
        f"{100 * high:.0f} %). False stops: {counts['false']} of {counts['benign']} benign runs ({100 * flow:.0f} to {100 * fhigh:.0f} %). "
        f"Gold of the policy that rollback goes back to, over peak gold: lowest {100 * min(kept_all, default=1):.0f} %, "
        f"median {100 * float(np.median(kept_all or [1])):.0f} %.",
    ]
    return lines


def main(lab: Path) -> None:
    torch.set_num_threads(1)
    runs = sorted((read_run(p.parent) for p in (lab / "runs").glob("*/run.json")), key=lambda r: (r.arm, r.seed))
    print("## It learns\n")
    print("\n".join(learning_table(lab, [r for r in runs if r.arm in ("ppo", "rloo", "grpo")])))
    print("\n## It shows the disease\n")
    print("\n".join(disease_table([r for r in runs if r.arm == "hack"])))
    print("\n## It catches it\n")
    print("\n".join(monitor_table([r for r in runs if r.arm in ("ppo", "rloo", "grpo", "hack")], 6)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/lab"))
