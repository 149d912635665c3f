"""Training speed and memory against TRL: a 6-layer, 384-wide Qwen3-style model, real HH pairs, batches of 8, on the CPU.

    python benchmarks/train_throughput.py --data ../shared/data/hh-rlhf/harmless-base/train.jsonl.gz

Needs `pip install 'guerdon[bench]'`. Both systems start from one checkpoint (head included) and take the same steps on the
same token ids, in one shuffled order: the conversations rendered by the checkpoint's own template, pairs of up to 512 tokens. They alternate,
block by block, in fresh processes, so that a machine that slows down slows both; each process warms up for one step and
then times `--steps` optimizer steps (data already encoded). TRL's RewardTrainer runs in its faster configuration (fp32,
gradient checkpointing off). The losses of the first step must agree to 1e-5. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

BATCH = 8
MAX_LENGTH = 512
LEARNING_RATE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/hh-rlhf/harmless-base/train.jsonl.gz")
    parser.add_argument("--steps", type=int, default=8, help="timed optimizer steps in a process")
    parser.add_argument("--blocks", type=int, default=5, help="processes per system")
    parser.add_argument("--one", choices=("guerdon", "trl"), help="internal: one block in this process")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps({"guerdon": run_guerdon, "trl": run_trl}[options.one](options.work, options.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), options.data, options.steps)
        blocks: list[dict[str, dict[str, float]]] = []
        for number in range(options.blocks):
            order = ("trl", "guerdon") if number % 2 == 0 else ("guerdon", "trl")
            blocks.append({system: in_process(system, Path(folder), options.steps) for system in order})
            print(f"block {number}: {blocks[-1]}", file=sys.stderr, flush=True)
        report(blocks, options.steps)


def prepare(work: Path, data: str, steps: int) -> None:
    """A tokenizer trained on the data, a seeded checkpoint with a head, and the pairs of all steps as token ids."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

    from guerdon.data.read import load
    from guerdon.model.reward import RewardModel

    comparisons = load(data).comparisons
    random.Random(0).shuffle(comparisons)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    texts = (message["content"] for c in comparisons for talk in c.conversations() for message in talk)
    core.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=8192, special_tokens=["<pad>", "<eos>"], show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    config = Qwen3Config(
        vocab_size=8192, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=6, head_dim=64, max_position_embeddings=1024, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(work / "base")
    tokenizer.save_pretrained(work / "base")
    model = RewardModel.load(work / "base", max_length=10_000)
    model.save(work / "reward")
    pairs = [[list(e.ids) for e in model.encoder(c.conversations())] for c in comparisons[: 40 * BATCH]]
    kept = [pair for pair in pairs if max(map(len, pair)) <= MAX_LENGTH][: BATCH * (steps + 1)]
    (work / "pairs.json").write_text(json.dumps(kept))


def in_process(system: str, work: Path, steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", system, "--work", str(work), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{system} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(seconds: float, cpu: float, first_loss: float, steps: int) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"pairs_per_s": steps * BATCH / seconds, "cpu_s": cpu, "first_loss": first_loss, "peak_mib": peak}


def run_guerdon(work: Path, steps: int) -> dict[str, float]:
    """The steps of `fit` on examples that are already encoded."""
    import torch

    from guerdon.train.config import TrainConfig
    from guerdon.train.examples import Example, TrainPair
    from guerdon.train.loop import _accumulate
    from guerdon.train.plan import resolve
    from guerdon.train.start import make_accelerator, make_optimizer, start_model

    config = resolve(TrainConfig(model=str(work / "reward"), learning_rate=LEARNING_RATE, batch_size=BATCH), 1, "cpu")
    accelerator = make_accelerator(config)
    core = start_model(config, torch.device("cpu"))
    model, optimizer = accelerator.prepare(core, make_optimizer(core, config))
    pairs = json.loads((work / "pairs.json").read_text())
    examples = [
        Example((tuple(a), tuple(b)), (TrainPair(0, 1, 1.0, 1.0, 0.0),), (str(i),)) for i, (a, b) in enumerate(pairs)
    ]
    model.train()
    losses = []
    for step in range(steps + 1):
        if step == 1:
            started, used = time.perf_counter(), time.process_time()
        statistics_ = _accumulate(accelerator, model, core, examples[step * BATCH : (step + 1) * BATCH], config)
        accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(statistics_[:, 0].sum()) / BATCH)
    return measured(time.perf_counter() - started, time.process_time() - used, losses[0], steps)


def run_trl(work: Path, steps: int) -> dict[str, float]:
    """RewardTrainer over the same pairs in the same order; the clock starts after its first step."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                self.started, self.used = time.perf_counter(), time.process_time()
            elif state.global_step == steps + 1:
                self.seconds, self.cpu = time.perf_counter() - self.started, time.process_time() - self.used

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    pairs = json.loads((work / "pairs.json").read_text())
    rows = Dataset.from_dict({"chosen_ids": [a for a, _ in pairs], "rejected_ids": [b for _, b in pairs]})
    arguments = RewardConfig(
        output_dir=str(work / "trl"), per_device_train_batch_size=BATCH, max_steps=steps + 1, learning_rate=LEARNING_RATE,
        max_length=MAX_LENGTH, bf16=False, gradient_checkpointing=False, use_cpu=True, seed=0, report_to="none", logging_steps=1,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(work / "reward")
    tokenizer = AutoTokenizer.from_pretrained(work / "reward")
    clock = Clock()
    trainer = InOrder(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[clock])
    trainer.train()
    first = next(row["loss"] for row in trainer.state.log_history if "loss" in row)
    return measured(clock.seconds, clock.cpu, first, steps)


def report(blocks: list[dict[str, dict[str, float]]], steps: int) -> None:
    print(f"{platform.processor() or platform.machine()}, 2 cores, Python {platform.python_version()}, torch {version('torch')}, "
          f"transformers {version('transformers')}, trl {version('trl')}, {date.today()}; {len(blocks)} blocks of {steps} steps.\n")  # fmt: skip
    difference = max(abs(b["trl"]["first_loss"] - b["guerdon"]["first_loss"]) for b in blocks)
    print("| | TRL | Guerdon | ratio, median (min to max) |")
    print("|---|---:|---:|---:|")
    for name, key, digits in (
        ("pairs/s", "pairs_per_s", 2),
        ("CPU s per block", "cpu_s", 1),
        ("peak memory, MiB", "peak_mib", 0),
    ):
        trl, ours = ([block[system][key] for block in blocks] for system in ("trl", "guerdon"))
        ratios = sorted(b / a for a, b in zip(trl, ours, strict=True))
        print(f"| {name} | {statistics.median(trl):.{digits}f} ({min(trl):.{digits}f} to {max(trl):.{digits}f}) "
              f"| {statistics.median(ours):.{digits}f} ({min(ours):.{digits}f} to {max(ours):.{digits}f}) "
              f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |")  # fmt: skip
    first = blocks[0]["guerdon"]["first_loss"]
    print(f"\nLoss of the first step {first:.6f}; largest difference between the systems {difference:.1e}.")
    if difference > 1e-5:
        raise SystemExit("the first losses differ by more than 1e-5, so the systems did not compute the same thing")


if __name__ == "__main__":
    main()
