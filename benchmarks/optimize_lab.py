"""Does it learn, does it show the disease, does the monitor catch it: policy runs in the lab, where gold is known.

    python benchmarks/lab_policies.py runs/lab                          # policy and reward models, once
    python benchmarks/optimize_lab.py ppo 0 1 2 3 4 --lab runs/lab      # an arm, some seeds; finished runs are kept
    python benchmarks/optimize_report.py runs/lab > tables.md

Arms: ppo, rloo, grpo (reward `fair`, with KL: benign); hack (RLOO without KL against `biased`: hackable; its reward is the mean
of five heads); single, min and lcb (the same with one head, the lowest, and mean less one standard deviation). Gold is scored
on every sample for the record; the monitor is given that of `BUDGET` samples a step, and more when it asks.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from lab_policies import NEW_TOKENS

from guerdon.model.reward import RewardModel
from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.loop import Watch, optimize
from guerdon.optimize.verifiable import LabGold
from guerdon.types import Conversation, Score, Scorer

BUDGET = 32
LONG = 42
COMMON: dict[str, Any] = {
    "steps": 100, "prompts_per_step": 8, "samples_per_prompt": 8, "max_new_tokens": NEW_TOKENS, "learning_rate": 5e-4,
    "held_out_budget": BUDGET, "value_from": "policy", "warmup": 0.05,
}  # fmt: skip
WATCHED: dict[str, Any] = {
    "steps": 120,
    "prompts_per_step": 32,
    "learning_rate": 1.75e-4,
    "save_every": 4,
    "held_out_budget": 256,
}  # larger steps, all of whose answers the monitor sees, at a slower pace
RESTS = (
    0.3  # beta of the watched arms with KL: one at which the policy comes to rest, as 0.1 would only after overdoing it
)
HACK: dict[str, Any] = {"algorithm": "rloo", "reward": ("biased",), "beta": 0.0, "steps": 90}
ARMS: dict[str, dict[str, Any]] = {
    "ppo": {"algorithm": "ppo", "reward": ("fair",), "beta": 0.1},
    "rloo": {"algorithm": "rloo", "reward": ("fair",), "beta": 0.1},
    "grpo": {"algorithm": "grpo", "reward": ("fair",), "beta": 0.15, "kl_in": "loss"},
    "hack": HACK,
    "single": HACK | {"rule": "single"},
    "min": HACK | {"rule": "min"},
    "lcb": HACK | {"rule": "mean-std:1"},
}


class Collapsed(Exception):
    """The policy says hardly anything but answers of full length: all of its gain is long lost."""


class Keeper(Watch):
    """Prints every tenth step, keeps the snapshots that the run would drop (true gold is measured on them afterwards), and
    ends a run in which a step's answers are `LONG` tokens on average."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def step(self, row: dict[str, Any]) -> None:
        if row["length"] > LONG:
            raise Collapsed
        (self.output / "kept").mkdir(exist_ok=True)
        for path in (self.output / "snapshots").glob("*.safetensors"):
            if not (self.output / "kept" / path.name).exists():
                os.link(path, self.output / "kept" / path.name)
        if row["step"] % 10 == 0 or row["step"] == 1:
            keys = (
                "step",
                "proxy",
                "held_out",
                "kl",
                "length",
                "entropy",
                "within_std",
                "seconds",
                "status",
                "explained",
            )
            print({k: round(row[k], 3) if isinstance(row[k], float) else row[k] for k in keys if k in row}, flush=True)


class FirstHead:
    """The reward of one member of an ensemble."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        scores = self.model.score(conversations)
        return [Score(s.members[0], s.status, s.tokens, s.truncated, s.reason) if s.members else s for s in scores]


def run(lab: Path, arm: str, seed: int, extra: dict[str, Any]) -> None:
    output = lab / ("watched" if extra == WATCHED else "runs") / f"{arm}-{seed}"
    if (output / "run.json").is_file():
        return
    options = COMMON | ARMS[arm] | extra
    if extra == WATCHED and options["beta"]:
        options["beta"] = RESTS
    rule = options.pop("rule", "mean")
    config = OptimizeConfig(
        policy=str(lab / "policy"), prompts=(str(lab / "train.jsonl"),), held_out=("lab-gold",), output=str(output), seed=seed,
        resume=output.is_dir(), **options,
    )  # fmt: skip
    model = RewardModel.load(lab / options["reward"][0] / "model", reward="mean" if rule == "single" else rule)
    reward: Scorer = FirstHead(model) if rule == "single" else model
    print(arm, seed, flush=True)
    try:
        optimize(config, reward, LabGold(), say=lambda line: print(line, flush=True), watch=Keeper(output))
    except Collapsed:
        (output / "run.json").write_text(json.dumps({"collapsed": True}), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=list(ARMS))
    parser.add_argument("seeds", nargs="+", type=int)
    parser.add_argument("--lab", type=Path, default=Path("runs/lab"))
    parser.add_argument("--watched", action="store_true", help="the runs that the monitor is judged by, in LAB/watched")
    parser.add_argument("--extra", type=json.loads, default={})
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.seeds:
        run(options.lab, options.arm, seed, WATCHED if options.watched else options.extra)


if __name__ == "__main__":
    main()
