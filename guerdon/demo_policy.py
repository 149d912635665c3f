"""The second half of the demo: a small policy is optimised against the reward model, with and without the price of KL.

Gold is known in the lab, so the pages show what the reward cannot: where more reward stops being better answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guerdon.diagnose.run_page import write_run_page
from guerdon.files import write_text
from guerdon.lab.world import prompts
from guerdon.model.reward import RewardModel
from guerdon.optimize.best_of_n import BestOfN, best_of_n
from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.generate import Sampling
from guerdon.optimize.loop import optimize
from guerdon.optimize.policy import Policy
from guerdon.optimize.sft import fine_tune
from guerdon.optimize.sft_config import SftConfig
from guerdon.optimize.verifiable import LabGold
from guerdon.progress import OptimizeBar, StepBar

Say = Callable[[str], None]


@dataclass(frozen=True)
class PolicySize:
    """How much of everything the policy takes."""

    prompts: int = 1000
    tuning_steps: int = 240
    steps: int = 40
    steps_without_kl: int = 25
    prompts_per_step: int = 8
    samples_per_prompt: int = 8
    new_tokens: int = 80
    best_of: int = 16
    best_of_prompts: int = 24


def start_policy(output: Path, seed: int, size: PolicySize, say: Say) -> Path:
    """Fine-tune the small language model on the answers that raters chose."""
    config = SftConfig(
        policy=str(output / "base"),
        data=(str(output / "train.jsonl"),),
        output=str(output / "sft"),
        max_steps=size.tuning_steps,
        batch_size=16,
        learning_rate=2e-3,
        seed=seed,
    )
    found = fine_tune(config, say=say, watch=StepBar("fine-tuning"))
    return found.policy


def pick_the_best(output: Path, policy: Path, asked: set[str], seed: int, size: PolicySize, say: Say) -> None:
    """Best of n by the reward model: what it gains in gold, and the KL it costs."""
    _write_prompts(output / "questions.jsonl", size.best_of_prompts, seed + 5, asked)
    found = best_of_n(
        [str(output / "questions.jsonl")],
        output / "best_of_n.jsonl",
        RewardModel.load(output / "run" / "model"),
        plan=BestOfN(size.best_of, Sampling(size.new_tokens), seed=seed),
        policy=Policy.load(policy),
        held_out=LabGold(),
        overwrite=True,
    )
    rungs = [rung for rung in found.ladder if rung.held_out is not None]
    for rung in rungs:
        assert rung.held_out is not None
        say(
            f"best of {rung.n:>3}  KL at most {rung.kl:4.2f} nats  reward {rung.reward.mean:6.3f}  gold {rung.held_out.mean:.3f}"
        )


def optimise(
    output: Path, policy: Path, asked: set[str], seed: int, size: PolicySize, *, with_kl: bool, say: Say
) -> Path:
    """PPO against the reward model, watched with gold on 32 samples a step; returns the run's folder."""
    _write_prompts(output / "prompts.jsonl", size.prompts, seed + 4, asked)
    name = "ppo" if with_kl else "ppo-without-kl"
    config = OptimizeConfig(
        algorithm="ppo",
        policy=str(policy),
        prompts=(str(output / "prompts.jsonl"),),
        reward=(str(output / "run" / "model"),),
        held_out=("lab-gold",),
        output=str(output / name),
        steps=size.steps if with_kl else size.steps_without_kl,
        prompts_per_step=size.prompts_per_step,
        samples_per_prompt=size.samples_per_prompt,
        max_new_tokens=size.new_tokens,
        beta=0.2 if with_kl else 0.0,
        learning_rate=5e-4 if with_kl else 1e-3,
        value_from="reward",
        held_out_budget=32,
        seed=seed,
    )
    reward = RewardModel.load(output / "run" / "model")
    bar = OptimizeBar("ppo")
    try:
        optimize(config, reward, LabGold(), say=say, watch=bar)
    finally:
        bar.stop()
    say(_outcome(Path(config.output)))
    return Path(config.output)


def policy_page(output: Path, runs: list[Path]) -> Path:
    """Both runs side by side on one page."""
    page = output / "policy.html"
    write_run_page(runs, page, "Guerdon demo: optimising a policy, with and without KL")
    return page


def _outcome(run: Path) -> str:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    tenth = max(1, len(rows) // 10)

    def mean(name: str, part: list[dict[str, float]]) -> float:
        return sum(row[name] for row in part) / len(part)

    first, last = rows[:tenth], rows[-tenth:]
    stop = next((row for row in rows if row["status"] == "stop"), None)
    return (
        f"reward {mean('proxy', first):.2f} -> {mean('proxy', last):.2f}, gold {mean('held_out', first):.3f} -> "
        f"{mean('held_out', last):.3f}, KL {mean('kl', last):.1f} nats per sequence; "
        + (f"the monitor said stop at step {stop['step']}: {stop['reason']}" if stop else "the monitor let it go on")
    )


def _write_prompts(path: Path, count: int, seed: int, exclude: set[str]) -> None:
    if not path.is_file():
        write_text(path, "".join(json.dumps({"prompt": text}) + "\n" for text in prompts(count, seed, exclude=exclude)))
