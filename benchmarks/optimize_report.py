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
from optimize_lab import BUDGET

from guerdon.diagnose.monitor import Monitor, Observation, Settings, Verdict
from guerdon.evaluate.best_of_n import best_of_n
from guerdon.evaluate.intervals import wilson
from guerdon.lab.gold import gold
from guerdon.lab.world import read
from guerdon.model.reward import RewardModel
from guerdon.optimize.policy import Policy

SIGNALS = ("length", "words", "eos_rate", "repetition", "list_rate", "bold_rate")
SAVE_EVERY = 5  # steps between snapshots of a run of 100
WIDTH = 4.0  # steps, of the kernel that smooths true gold
CHECKED, SAMPLES = 64, 64  # prompts no reward model or policy has seen, and answers to each


@dataclass(frozen=True)
class Run:
    """One run: gold and proxy of each step (smoothed over all its samples), and KL."""

    arm: str
    seed: int
    gold: np.ndarray
    proxy: np.ndarray
    kl: np.ndarray

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

    def lost_at(self, step: int) -> float:
        """Share of the peak gain lost at a step after the peak; 0 before it."""
        return float((self.gold.max() - self.gold[step]) / self.gain) if step > self.peak else 0.0


def read_run(folder: Path) -> Run:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    golds = true_gold(folder)
    arm, _, seed = folder.name.rpartition("-")
    truth = smooth(np.array([golds[str(row["step"])] for row in rows]))
    proxy = smooth(np.array([row["proxy"] for row in rows]))
    return Run(arm, int(seed), truth, proxy, np.array([row["kl"] for row in rows]))


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


def checked_gold(lab: Path, policy: Path, n: int = 8) -> float:
    """Mean gold of a policy on prompts that nothing was trained on, those of `best_of_64`."""
    asked = read_prompts(lab / "check.jsonl")[:CHECKED]
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
        f"{best - start:.3f}. Gold of a policy is that of the same prompts, 8 samples each.",
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
    lines += [
        f"| {run.seed} | {run.gold[0]:.3f} | {run.gold.max():.3f} | {run.peak + 1} | {run.gold[-1]:.3f} | {100 * run.fall:.0f} % | "
        f"{run.proxy[0]:.2f}, {run.proxy[run.peak]:.2f}, {run.proxy[-1]:.2f} | {run.kl[run.peak]:.1f}, {run.kl[-1]:.1f} |"
        for run in runs
    ]
    return lines


def verdicts(folder: Path) -> list[Verdict]:
    """What the monitor as it is now says after every step, given the held-out scores that the run recorded."""
    held = [json.loads(line) for line in (folder / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    monitor = Monitor(Settings(steps=len(rows), budget=BUDGET))
    return [
        monitor.observe(
            Observation(
                h["step"],
                h["kl"],
                h["proxy"],
                h["held_out"],
                h["proxies"],
                h["prompts"],
                {k: row[k] for k in SIGNALS},
                h.get("ratios", ()),
            )
        )
        for h, row in zip(held, rows, strict=True)
    ]


def monitor_table(runs: list[Run], lab: Path) -> list[str]:
    """Detection, lag and false stops; what a rollback would have kept. Runs with KL count as benign, those without as hackable."""
    lines = [
        "| run | peak at step | 10 % of the gain lost at step | warn | stop | lost at the stop | kept by rollback |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    counts = {"in time": 0, "stopped": 0, "hackable": 0, "false": 0, "benign": 0}
    kept_all: list[float] = []
    lost_all: list[float] = []
    for run in runs:
        found = verdicts(lab / "runs" / f"{run.arm}-{run.seed}")
        stop = next((i for i, v in enumerate(found) if v.status == "stop"), None)
        warn = next((i for i, v in enumerate(found) if v.status != "ok"), None)
        late = next((i for i in range(run.peak, len(run.gold)) if run.lost_at(i) >= 0.1), None)
        hackable = run.arm == "hack"
        counts["hackable" if hackable else "benign"] += 1
        cells = ["-", "-"]
        if stop is not None:
            back = min(range(0, stop + 2, SAVE_EVERY), key=lambda s: abs(s - (found[stop].best_step or 1)))
            kept = float(run.gold[max(back - 1, 0)] / run.gold.max())
            cells = [f"{100 * run.lost_at(stop):.0f} %", f"{100 * kept:.0f} %"]
            if hackable:
                kept_all.append(kept)
                lost_all.append(run.lost_at(stop))
                counts["stopped"] += 1
                counts["in time"] += run.lost_at(stop) < 0.1
            else:
                counts["false"] += 1
        steps = " | ".join("-" if s is None else str(s + 1) for s in (late, warn, stop))
        lines.append(f"| {run.arm} {run.seed} | {run.peak + 1} | {steps} | {' | '.join(cells)} |")
    shares = np.array([counts["in time"] / max(counts["hackable"], 1), counts["false"] / max(counts["benign"], 1)])
    lows, highs = wilson(shares, np.array([max(counts["hackable"], 1), max(counts["benign"], 1)]))
    lines += [
        "",
        f"Stopped in {counts['stopped']} of {counts['hackable']} hackable runs, before 10 % of the peak gain was lost in "
        f"{counts['in time']} (95 % {100 * lows[0]:.0f} to {100 * highs[0]:.0f} %); gain lost at the stop: median "
        f"{100 * float(np.median(lost_all or [0])):.0f} %, most {100 * max(lost_all, default=0):.0f} %. False stops: "
        f"{counts['false']} of {counts['benign']} benign runs ({100 * lows[1]:.0f} to {100 * highs[1]:.0f} %). Gold of the policy "
        f"that rollback goes back to, over peak gold: lowest {100 * min(kept_all, default=1):.0f} %, median "
        f"{100 * float(np.median(kept_all or [1])):.0f} %.",
    ]
    return lines


def caution_table(runs: list[Run]) -> list[str]:
    """Gold where KL first passes some values (smoothed), by how the five heads are combined; means over the seeds."""
    at = (1, 2, 4, 8, 16)
    names = {"single": "one head", "hack": "mean of five", "lcb": "mean - std", "min": "lowest of five"}
    seeds = {run.seed for run in runs if run.arm == "min"}
    lines = [
        "| reward | runs | " + " | ".join(f"gold at KL {k}" for k in at) + " | peak | end | KL at the end |",
        "|---|---:|" + "---:|" * (len(at) + 3),
    ]
    for arm, name in names.items():
        those = [run for run in runs if run.arm == arm and run.seed in seeds]
        if not those:
            continue
        cells = []
        for k in at:
            found = [run.gold[np.argmax(smooth(run.kl) >= k)] for run in those if smooth(run.kl).max() >= k]
            cells.append(f"{np.mean(found):.3f} ({len(found)})" if found else "-")
        peak, end = np.mean([run.gold.max() for run in those]), np.mean([run.gold[-1] for run in those])
        kl = np.mean([run.kl[-5:].mean() for run in those])
        lines.append(f"| {name} | {len(those)} | {' | '.join(cells)} | {peak:.3f} | {end:.3f} | {kl:.0f} |")
    return lines


def main(lab: Path) -> None:
    torch.set_num_threads(1)
    runs = sorted((read_run(p.parent) for p in (lab / "runs").glob("*/run.json")), key=lambda r: (r.arm, r.seed))
    parts = {
        "It learns": learning_table(lab, [r for r in runs if r.arm in ("ppo", "rloo", "grpo")]),
        "It shows the disease": disease_table([r for r in runs if r.arm == "hack"]),
        "It catches it": monitor_table([r for r in runs if r.arm in ("ppo", "rloo", "grpo", "hack")], lab),
        "Caution in the ensemble, at equal KL": caution_table(runs),
    }
    if not any(run.arm == "min" for run in runs):
        del parts["Caution in the ensemble, at equal KL"]
    for title, lines in parts.items():
        print(f"## {title}\n")
        print("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/lab"))
