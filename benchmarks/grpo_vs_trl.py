"""Samples per second of a GRPO loop: Guerdon and TRL's GRPOTrainer on the same model, prompts, group size and reward.

    python benchmarks/grpo_vs_trl.py --blocks 5 --output benchmarks/grpo_vs_trl.md

Both train the same small causal model from the same weights with the same number of prompts and completions a step, the
same sampling (temperature 1), k3 in the loss with beta 0.04, one optimizer step a rollout, fp32, one thread. The reward is
the lab's gold, which costs next to nothing. They run in turn, each block in processes of its own; a step is timed from
its rollout to its update, the first two steps of a process are left out. TRL runs without gradient checkpointing, which
is its faster setting here, and with its default batched generation by transformers. Both open a prompt with the beginning
token, which the model was pretrained with and without which its answers are shorter. Neither run has a held-out reward.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

PROMPTS, GROUP = 8, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--pretraining", type=int, default=150, help="steps on lab text before, so that answers end")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", choices=("guerdon", "trl"), help="internal: one measurement in this process")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.one:
        run = run_guerdon if options.one == "guerdon" else run_trl
        print(json.dumps(run(options.work, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work, options)
        found: dict[str, list[dict]] = {"guerdon": [], "trl": []}
        for block in range(options.blocks):
            for system in ("trl", "guerdon") if block % 2 else ("guerdon", "trl"):
                found[system].append(measure(system, work, options))
                print(
                    f"block {block} {system}: {found[system][-1]['samples_per_s']:.1f} samples/s",
                    file=sys.stderr,
                    flush=True,
                )
    text = report(found, options)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


def prepare(work: Path, options: argparse.Namespace) -> None:
    from guerdon.lab.backbone import build_backbone, corpus, pretrain
    from guerdon.lab.world import prompts

    build_backbone(work / "policy", seed=0, layers=options.layers, width=options.width)
    if options.pretraining:
        pretrain(work / "policy", corpus(4000, 0), options.pretraining, 0, batch_size=16)
    rows = "".join(json.dumps({"prompt": text}) + "\n" for text in prompts(400, 1))
    (work / "prompts.jsonl").write_text(rows, encoding="utf-8")


def measure(system: str, work: Path, options: argparse.Namespace) -> dict:
    words = [
        "--one",
        system,
        "--work",
        str(work),
        "--steps",
        str(options.steps),
        "--new-tokens",
        str(options.new_tokens),
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"{system} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_guerdon(work: Path, options: argparse.Namespace) -> dict:
    import torch

    from guerdon.optimize.config import OptimizeConfig
    from guerdon.optimize.loop import Watch, optimize
    from guerdon.optimize.verifiable import LabGold

    torch.set_num_threads(1)
    rows: list[dict] = []

    class Recorder(Watch):
        def step(self, row: dict) -> None:
            rows.append(row)

    with tempfile.TemporaryDirectory() as output:
        config = OptimizeConfig(
            algorithm="grpo", policy=str(work / "policy"), prompts=(str(work / "prompts.jsonl"),), reward=("lab-gold",), output=output,
            steps=options.steps + 2, prompts_per_step=PROMPTS, samples_per_prompt=GROUP, max_new_tokens=options.new_tokens,
            kl_in="loss", beta=0.04, learning_rate=1e-5, save_every=10_000, sample_every=10_000,
        )  # fmt: skip
        optimize(config, LabGold(), say=lambda _: None, watch=Recorder())
    rows = rows[2:]
    seconds = sum(row["seconds"] for row in rows)
    return {
        "samples_per_s": len(rows) * PROMPTS * GROUP / seconds,
        "tokens": statistics.mean(row["length"] for row in rows),
        **{name: sum(row[name] for row in rows) / len(rows) for name in ("rollout_s", "score_s", "update_s")},
    }


def run_trl(work: Path, options: argparse.Namespace) -> dict:
    import torch
    from datasets import load_dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from guerdon.lab.gold import gold

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(work / "policy")
    opening = f"{tokenizer.bos_token}Human: "  # as Guerdon's template begins
    lengths: list[int] = []
    clock = {"score": 0.0}

    def reward(prompts: list, completions: list, completion_ids: list, **_: object) -> list[float]:
        started = time.perf_counter()
        lengths.extend(map(len, completion_ids))
        found = [
            gold(prompt.removeprefix(opening).removesuffix("\n\nAssistant:"), answer)
            for prompt, answer in zip(prompts, completions, strict=True)
        ]
        clock["score"] += time.perf_counter() - started
        return found

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: object, **__: object) -> None:
            self.ends.append(time.perf_counter())
            if len(self.ends) == 2:
                lengths.clear()
                clock["score"] = 0.0

    rows = load_dataset("json", data_files=str(work / "prompts.jsonl"), split="train", cache_dir=str(work / "cache"))
    rows = rows.map(lambda row: {"prompt": f"{opening}{row['prompt']}\n\nAssistant:"})
    watch = Clock()
    with tempfile.TemporaryDirectory() as output:
        arguments = GRPOConfig(
            output_dir=output, max_steps=options.steps + 2, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP,
            max_completion_length=options.new_tokens, temperature=1.0, beta=0.04, loss_type="grpo", learning_rate=1e-5,
            lr_scheduler_type="constant", bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
            save_strategy="no", logging_steps=10_000, seed=0,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=str(work / "policy"), reward_funcs=reward, args=arguments, train_dataset=rows,
            processing_class=tokenizer, callbacks=[watch],
        )  # fmt: skip
        trainer.train()
    seconds = watch.ends[-1] - watch.ends[1]
    return {
        "samples_per_s": options.steps * PROMPTS * GROUP / seconds,
        "tokens": statistics.mean(lengths),
        "step_s": seconds / options.steps,
        "score_s": clock["score"] / options.steps,
    }


def report(found: dict[str, list[dict]], options: argparse.Namespace) -> str:
    ratios = [g["samples_per_s"] / t["samples_per_s"] for g, t in zip(found["guerdon"], found["trl"], strict=True)]

    def spread(values: list[float], digits: int = 1) -> str:
        return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    lines = [
        "# GRPO: samples per second, Guerdon and TRL",
        "",
        f"`python benchmarks/grpo_vs_trl.py --blocks {options.blocks} --steps {options.steps} --layers {options.layers} "
        f"--width {options.width} --new-tokens {options.new_tokens}`. {platform.machine()}, one thread, "
        f"Python {platform.python_version()}, torch {version('torch')}, transformers {version('transformers')}, "
        f"trl {version('trl')}, {date.today()}.",
        "",
        f"A {options.layers}-layer, {options.width}-wide Qwen3-style model, {PROMPTS} prompts x {GROUP} completions a step of at "
        f"most {options.new_tokens} tokens, fp32. {len(ratios)} blocks in turn, each in processes of its own; median (lowest to highest). "
        "Neither run has a held-out reward, so nothing is scored beside the reward that trains.",
        "",
        "| | Guerdon | TRL |",
        "|---|---:|---:|",
    ]
    for name, key in (("samples/s", "samples_per_s"), ("tokens per completion", "tokens")):
        lines.append(
            f"| {name} | {spread([r[key] for r in found['guerdon']])} | {spread([r[key] for r in found['trl']])} |"
        )
    for name, key in (
        ("rollout, s per step", "rollout_s"),
        ("scoring, s per step", "score_s"),
        ("update, s per step", "update_s"),
    ):
        other = spread([r[key] for r in found["trl"]], 3) if key == "score_s" else "not shown apart"
        lines.append(f"| {name} | {spread([r[key] for r in found['guerdon']], 3)} | {other} |")
    lines += ["", f"Ratio of samples/s, block by block: {spread(ratios, 2)}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
