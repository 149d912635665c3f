"""Real data: MiniLM trained on HH-RLHF harmless-base by Guerdon and by TRL's RewardTrainer, same rows, same epochs.

    python benchmarks/hh_vs_trl.py --data ../shared/data/hh-rlhf/harmless-base --seeds 3

Needs `pip install 'guerdon[bench]'`. For each seed the two trainings start together, each in a process of its own with one
thread pinned to a core of its own, so that whatever slows the machine slows both. Both use TRL's default learning rate and schedule, 1e-4 falling in a line to 0 without warm-up;
with `--own-schedule` Guerdon keeps its own (5 % warm-up, cosine to 10 % of the same peak), and with `--freeze-layers N` it leaves the
embeddings and N layers as they are pretrained, which `hh_freeze.py` chose on held-out training prompts. With `--same-draws` Guerdon starts from TRL's first weights and takes the rows
in TRL's order and by TRL's token ids, so that the two differ by what they do and not by what they draw. Only rows that both systems keep whole are used: no empty answer and at most
512 tokens by TRL's own tokenisation, which drops longer ones. Wall clock is from the start of reading to the saved model,
imports left out; CPU time (user and system, all threads) is beside it because it bears other load better. TRL runs in its faster configuration (fp32, gradient checkpointing off); accuracy of its model is taken
on its own rendering of the text, accuracy of ours through `RewardModel.score`. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np

MAX_LENGTH = 512
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/hh-rlhf/harmless-base")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--limit", type=int, help="train on the first rows only, to try the script")
    parser.add_argument("--results", type=Path, help="keep finished trainings in this JSONL file and go on from it")
    parser.add_argument("--own-schedule", action="store_true", help="Guerdon keeps its default schedule")
    parser.add_argument("--freeze-layers", type=int, default=0, help="Guerdon trains the layers above these")
    parser.add_argument("--same-draws", action="store_true", help="Guerdon takes TRL's first weights and order of rows")
    parser.add_argument("--one", choices=("guerdon", "trl", "draw"), help="internal: one training in this process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sizes = {name: prepare(Path(options.data) / f"{name}.jsonl.gz", work / f"{name}.jsonl", options.limit if name == "train" else None)
                 for name in ("train", "test")}  # fmt: skip
        done = (
            [json.loads(line) for line in options.results.open()]
            if options.results and options.results.exists()
            else []
        )
        results = {(row["system"], row["seed"]): row for row in done}
        for seed in range(options.seeds):
            if ("trl", seed) in results:
                continue
            if options.same_draws:
                drawn = finish("draw", start("draw", 0, seed, work, options))
                (work / f"order-{seed}.json").write_text(json.dumps(drawn), encoding="utf-8")
            started = {
                system: start(system, core, seed, work, options) for core, system in enumerate(("trl", "guerdon"))
            }
            for system, process in started.items():
                results[system, seed] = {"system": system, "seed": seed, **finish(system, process)}
                print(f"{system} seed {seed}: {results[system, seed]['seconds']:.0f} s", file=sys.stderr, flush=True)
            if options.results:
                with options.results.open("a") as file:
                    file.writelines(json.dumps(results[system, seed]) + "\n" for system in started)
        by_system = {name: [results[name, seed] for seed in range(options.seeds)] for name in ("trl", "guerdon")}
        report(by_system, sizes, options)


def one(options: argparse.Namespace) -> dict:
    """What one process does: a training, or the draws of TRL at a seed."""
    if options.one != "guerdon":
        return {"trl": train_trl, "draw": draw}[options.one](options.work, options.seed, options.epochs)
    choices = {"freeze_layers": options.freeze_layers}
    if not options.own_schedule:
        choices |= {"schedule": "linear", "warmup": 0.0}
    if not options.same_draws:
        return train_guerdon(options.work, options.seed, options.epochs, choices)
    choices |= {"model": str(options.work / f"start-{options.seed}")}
    order = json.loads((options.work / f"order-{options.seed}.json").read_text(encoding="utf-8"))["order"]
    with in_order(order):
        return train_guerdon(options.work, options.seed, options.epochs, choices)


@contextmanager
def in_order(order: list[list[int]]) -> Iterator[None]:
    """Inside, Guerdon's steps are these rows of the training file, each by itself though a prompt may have several."""
    from guerdon.train import examples, loop, plan

    def steps(found: Sequence[examples.Example], *_, **__) -> list[list[int]]:
        place = {int(example.rows[0].rpartition(":")[2]) - 1: index for index, example in enumerate(found)}
        return [[place[row] for row in step] for step in order]

    def ungrouped(*rows, **options):
        return examples.encode_comparisons(*rows, **options | {"group_limit": 1})

    with patch.object(plan, "batches", steps), patch.object(loop, "encode_comparisons", ungrouped):
        yield


def prepare(source: Path, target: Path, limit: int | None) -> dict[str, int]:
    """Write the rows both systems keep whole; returns how many there were and are."""
    from transformers import AutoTokenizer

    from guerdon.model.load import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm"))
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    kept = [row for row in rows if all(fits(row[side], tokenizer) for side in ("chosen", "rejected"))][:limit]
    target.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    return {"rows": len(rows), "kept": len(kept)}


def fits(text: str, tokenizer) -> bool:
    has_answer = bool(text.rsplit("\n\nAssistant:", 1)[-1].strip())
    return has_answer and len(tokenizer(text)["input_ids"]) + 1 <= MAX_LENGTH - 8  # room for the other rendering


def start(system: str, core: int, seed: int, work: Path, options: argparse.Namespace) -> subprocess.Popen:
    chosen = ["--one", system, "--seed", str(seed), "--work", str(work), "--epochs", str(options.epochs)]
    chosen += ["--freeze-layers", str(options.freeze_layers)]
    chosen += ["--own-schedule"] * options.own_schedule + ["--same-draws"] * options.same_draws
    core %= os.cpu_count() or 1
    return subprocess.Popen(
        [sys.executable, __file__, *chosen], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip


def finish(system: str, process: subprocess.Popen) -> dict:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{system} failed; run it alone to see why: python {__file__} --one {system} --work ...")
    return json.loads(output.strip().splitlines()[-1])


def train_guerdon(work: Path, seed: int, epochs: float, choices: dict) -> dict:
    import guerdon
    from guerdon.data.read import load
    from guerdon.train.config import TrainConfig
    from guerdon.train.loop import fit

    config = TrainConfig(
        data=(str(work / "train.jsonl"),), output=str(work / f"guerdon-{seed}"), eval_fraction=0.0, seed=seed,
        epochs=epochs, batch_size=BATCH, max_length=MAX_LENGTH, learning_rate=1e-4, **({"model": "minilm"} | choices),
    )  # fmt: skip
    started, used = time.perf_counter(), time.process_time()
    result = fit(config, say=lambda line: print(line, file=sys.stderr))
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    model = guerdon.RewardModel.load(result.model)
    test = load(str(work / "test.jsonl")).comparisons
    flat = iter(model.score([c for comparison in test for c in comparison.conversations()]))
    margins = [float(next(flat) - next(flat)) for _ in test]
    return {"seconds": seconds, "cpu_seconds": cpu, "margins": margins}


def make_trainer(work: Path, seed: int, epochs: float):
    """TRL's trainer as `train_trl` runs it, and its tokenizer."""
    from datasets import load_dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
    from trl import RewardConfig, RewardTrainer

    from guerdon.model.load import resolve

    arguments = RewardConfig(
        output_dir=str(work / f"trl-{seed}"), per_device_train_batch_size=BATCH, num_train_epochs=epochs, max_length=MAX_LENGTH,
        bf16=False, gradient_checkpointing=False, use_cpu=True, seed=seed, report_to="none",
        logging_steps=50, save_strategy="no", eval_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    set_seed(seed)
    rows = load_dataset(
        "json", data_files=str(work / "train.jsonl"), split="train", cache_dir=str(work / f"cache-{seed}")
    )
    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm"))
    if tokenizer.eos_token is None:  # BERT closes with [SEP]; the trainer wants the name eos
        tokenizer.eos_token = tokenizer.sep_token
    model = AutoModelForSequenceClassification.from_pretrained(resolve("minilm"), num_labels=1)
    return RewardTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer), tokenizer


def draw(work: Path, seed: int, epochs: float) -> dict:
    """What TRL draws by chance at this seed: its first weights, saved in start-SEED, and the rows of each of its steps.

    The trainer runs through its epoch without computing anything; rows are told by their token ids. TRL closes a text twice
    with BERT's [SEP], once as the tokenizer does and once as its end of sequence; the saved chat template does too.
    """
    import torch

    from guerdon.model.load import load_encoder

    trainer, tokenizer = make_trainer(work, seed, epochs)
    trainer.save_model(str(work / f"start-{seed}"))
    tokenizer.chat_template = load_encoder("minilm").tokenizer.chat_template + "{{ '" + tokenizer.eos_token + "' }}"
    tokenizer.save_pretrained(work / f"start-{seed}")
    lines = (work / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows: dict[tuple, list[int]] = {}
    for index, row in enumerate(map(json.loads, lines)):
        pair = (tuple(tokenizer(row[side] + tokenizer.eos_token)["input_ids"]) for side in ("chosen", "rejected"))
        rows.setdefault(tuple(pair), []).append(index)
    order: list[list[int]] = []

    def training_step(model, inputs, *_):
        texts = [tuple(i for i, kept in zip(*pair, strict=True) if kept)
                 for pair in zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True)]  # fmt: skip
        half = len(texts) // 2
        order.append([rows[pair].pop() for pair in zip(texts[:half], texts[half:], strict=True)])
        return torch.zeros(())

    trainer.training_step = training_step
    trainer.train()
    assert sorted(i for step in order for i in step) == list(range(len(lines)))
    return {"order": order}


def train_trl(work: Path, seed: int, epochs: float) -> dict:
    import datasets  # noqa: F401  all that is to come, so that the clock leaves it out
    import torch
    import transformers  # noqa: F401
    import trl  # noqa: F401

    started, used = time.perf_counter(), time.process_time()
    trainer, tokenizer = make_trainer(work, seed, epochs)
    trainer.train()
    trainer.save_model(str(work / f"trl-{seed}"))
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    model = trainer.model.eval()
    margins = []
    with torch.no_grad():
        for line in (work / "test.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts = [row[side] + tokenizer.eos_token for side in ("chosen", "rejected")]
            chosen, rejected = (
                model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_LENGTH)).logits.item() for text in texts
            )  # fmt: skip
            margins.append(chosen - rejected)
    return {"seconds": seconds, "cpu_seconds": cpu, "margins": margins}


def report(results: dict[str, list[dict]], sizes: dict[str, dict[str, int]], options: argparse.Namespace) -> None:
    """The table, and the paired difference in accuracy with a bootstrap interval over test pairs."""
    margins = {system: np.array([run["margins"] for run in runs]) for system, runs in results.items()}
    right = {system: (m > 0) + 0.5 * (m == 0) for system, m in margins.items()}
    seconds, cpu = (
        {system: [run[key] for run in runs] for system, runs in results.items()} for key in ("seconds", "cpu_seconds")
    )
    print(f"{platform.processor() or platform.machine()}, 2 cores, Python {platform.python_version()}, torch {version('torch')}, "
          f"transformers {version('transformers')}, trl {version('trl')}, {date.today()}\n")  # fmt: skip
    print(f"Rows: train {sizes['train']['kept']} of {sizes['train']['rows']}, test {sizes['test']['kept']} of {sizes['test']['rows']}; "
          f"{options.epochs:g} epoch, batch {BATCH}, one thread each.\n")  # fmt: skip
    print(
        "| seed | TRL accuracy | Guerdon accuracy | TRL s | Guerdon s | ratio | TRL CPU s | Guerdon CPU s | CPU ratio |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for seed in range(options.seeds):
        a, b = right["trl"][seed].mean(), right["guerdon"][seed].mean()
        s, t = seconds["trl"][seed], seconds["guerdon"][seed]
        u, v = cpu["trl"][seed], cpu["guerdon"][seed]
        print(
            f"| {seed} | {100 * a:.1f} % | {100 * b:.1f} % | {s:.0f} | {t:.0f} | {t / s:.2f} | {u:.0f} | {v:.0f} | {v / u:.2f} |"
        )
    means = [100 * right[system].mean() for system in ("trl", "guerdon")]
    losses = [float(np.logaddexp(0, -margins[system]).mean()) for system in ("trl", "guerdon")]
    medians = [statistics.median(seconds[system]) for system in ("trl", "guerdon")]
    ratio, cpu_ratio = (
        statistics.median(t / s for s, t in zip(x["trl"], x["guerdon"], strict=True)) for x in (seconds, cpu)
    )
    used = [statistics.median(cpu[system]) for system in ("trl", "guerdon")]
    print(f"| mean / median | {means[0]:.1f} % | {means[1]:.1f} % | {medians[0]:.0f} | {medians[1]:.0f} | {ratio:.2f} "
          f"| {used[0]:.0f} | {used[1]:.0f} | {cpu_ratio:.2f} |")  # fmt: skip
    difference = (right["guerdon"] - right["trl"]).mean(0)
    draws = np.random.default_rng(0).integers(0, len(difference), (10_000, len(difference)))
    low, high = np.quantile(difference[draws].mean(1), [0.025, 0.975])
    print(f"\nPaired difference in accuracy, mean over seeds: {100 * difference.mean():+.1f} points "
          f"(95 % bootstrap over test pairs {100 * low:+.1f} to {100 * high:+.1f}). "
          f"Held-out loss, mean over seeds: Guerdon {losses[1]:.3f} nats, TRL {losses[0]:.3f}.")  # fmt: skip


if __name__ == "__main__":
    main()
