"""On one CUDA GPU, bf16: Guerdon's training step against TRL's on random Qwen3-0.6B and 1.7B shapes with real token lengths.

    python benchmarks/gpu_throughput.py --shape 0.6b --lengths hh.json

`--lengths` is a JSON list of [prompt, chosen, rejected] token counts; `--write-lengths FILE --data PATH` makes one with a
tokenizer trained on the data, so that no model has to be downloaded. Tokens are random, which changes no timing. Both
systems take the same pairs in batches of `--batch`, autocast to bf16 over float32 weights, gradient checkpointing off, for
`--steps` timed steps after `--warmup`; TRL's step is its padded two-row-per-pair forward through
`AutoModelForSequenceClassification`. Prints pairs/s and peak memory. Needs a GPU; no table is committed until one was at hand.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F

SHAPES = {
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28},
    "1.7b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--lengths", type=Path)
    parser.add_argument("--write-lengths", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens-per-row", type=int, default=16384)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.write_lengths:
        options.write_lengths.write_text(json.dumps(measure_lengths(options.data)))
        return
    lengths = json.loads(options.lengths.read_text())
    trees = random_trees(lengths, options.batch * (options.warmup + options.steps))
    for name, step in (("padded", padded_step), ("guerdon", guerdon_step)):
        model, optimizer = build(options)
        torch.cuda.reset_peak_memory_stats() if options.device == "cuda" else None
        for number in range(options.warmup + options.steps):
            if number == options.warmup:
                synchronize(options.device)
                started = time.perf_counter()
            batch = trees[number * options.batch : (number + 1) * options.batch]
            with torch.autocast(options.device, torch.bfloat16):
                loss = step(model, batch, options)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        synchronize(options.device)
        seconds = time.perf_counter() - started
        peak = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else float("nan")
        print(
            f"{options.shape} {name}: {options.steps * options.batch / seconds:.1f} pairs/s, peak {peak:.1f} GiB, loss {loss:.4f}"
        )


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_lengths(data: str) -> list[tuple[int, int, int]]:
    """Token counts of prompt and both completions, with a 32k byte-pair vocabulary trained on the data itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from guerdon.data.read import load

    comparisons = [c for c in load(data).comparisons if len(c.completions) == 2]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = (m["content"] for c in comparisons for talk in c.conversations() for m in talk)
    core.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=32768, show_progress=False))

    def count(messages: tuple) -> int:
        return sum(len(core.encode(m["content"]).ids) + 5 for m in messages)

    return [(count(c.prompt), count(c.completions[0]), count(c.completions[1])) for c in comparisons]


def random_trees(lengths: list[list[int]], n: int) -> list[tuple[tuple[int, ...], ...]]:
    rng = random.Random(0)
    trees = []
    for prompt, chosen, rejected in (rng.choice(lengths) for _ in range(n)):
        shared = tuple(rng.randrange(10, 30000) for _ in range(min(prompt, 1500)))
        tails = (tuple(rng.randrange(10, 30000) for _ in range(min(k, 500))) for k in (chosen, rejected))
        trees.append(tuple((*shared, side, *tail) for side, tail in enumerate(tails, 1)))
    return trees


def build(options: argparse.Namespace):
    from transformers import AutoModelForSequenceClassification, Qwen3Config

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=151936, num_attention_heads=16, num_key_value_heads=8, head_dim=128, max_position_embeddings=4096, pad_token_id=0,
        num_labels=1, **SHAPES[options.shape],
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).to(options.device)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)


def padded_step(net, batch, options) -> float:
    """TRL's layout: all chosen, then all rejected, padded to the longest."""
    rows = [tree[0] for tree in batch] + [tree[1] for tree in batch]
    width = max(map(len, rows))
    ids = torch.tensor([list(row) + [0] * (width - len(row)) for row in rows], device=options.device)
    scores = net(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, 0]
    chosen, rejected = scores.float().chunk(2)
    loss = -F.logsigmoid(chosen - rejected).mean()
    loss.backward()
    return float(loss.detach())


def guerdon_step(net, batch, options) -> float:
    from guerdon.model.head import keep_head_in_fp32
    from guerdon.model.tree import tree_rows
    from guerdon.model.trunk import Trunk

    if not hasattr(net, "_trunk"):
        keep_head_in_fp32(net)
        net._trunk = [Trunk(net)]
        if options.device == "cuda":
            net._trunk[0].use_flex()
    total = 0.0
    for row in tree_rows(batch, options.tokens_per_row, pad_to=128):
        rewards = net._trunk[0](row.to(torch.device(options.device)))
        loss = -F.logsigmoid(rewards[0::2] - rewards[1::2]).sum() / len(batch)
        loss.backward()
        total += float(loss.detach())
    return total


if __name__ == "__main__":
    main()
