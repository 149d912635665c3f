"""A day of use in miniature: 200,000 requests to one server, and whether its resident memory stays flat.

    python benchmarks/serve_soak.py --output benchmarks/serve_soak.md     # about half an hour on 2 cores
    python benchmarks/serve_soak.py --quick                               # 5,000 requests

A tiny model, so that requests and not matrices are what is measured; texts of many lengths; one request in ten belongs to a
watched run, one in ten has an idempotency key, one in fifty is refused, and a connection is opened anew for every round.
Memory is that of `guerdon serve` after each round of 1/40 of the requests; flat means that the mean of the last quarter is
within 5 % of the mean of the second quarter. The first is warming up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from http_load import closed_loop, post
from serve_load import server

from guerdon.files import write_text

ROUNDS = 40
WORDS = (
    "the reward of an answer is what a rater would have said of it and nothing that was learnt about its length".split()
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.requests = 5000
    each = options.requests // ROUNDS
    memory: list[float] = []
    status: Counter[int | str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        model = tiny(Path(folder))
        started = time.perf_counter()
        with server(model, "--watch-folder", f"{folder}/runs") as (port, process):
            for number in range(ROUNDS):
                result = asyncio.run(closed_loop(port, requests(number, each), options.callers))
                status += result.status
                memory.append(process.memory_info().rss / 2**20)
                print(
                    f"{(number + 1) * each:,} requests: {memory[-1]:.1f} MiB, {dict(status)}",
                    file=sys.stderr,
                    flush=True,
                )
        seconds = time.perf_counter() - started
    text = report(memory, status, options.requests, seconds)
    print(text)
    if options.output:
        write_text(options.output, text)


def tiny(folder: Path) -> Path:
    """A model of a few thousand weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

    from guerdon.model.reward import RewardModel

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    config = Qwen3Config(
        vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=512, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    tokenizer.save_pretrained(folder / "base")
    RewardModel.load(folder / "base").save(folder / "model")
    return folder / "model"


def requests(round_number: int, count: int) -> Iterator[bytes]:
    """Of all kinds, no two alike; made while they are sent."""
    rng = random.Random(round_number)
    for number in range(count):
        answer = " ".join(rng.choices(WORDS, k=rng.randint(1, 60)))
        prompt = " ".join(rng.choices(WORDS, k=rng.randint(1, 30)))
        body: dict[str, object] = {"prompt": prompt, "completions": [answer]}
        headers = {}
        if number % 10 == 1:
            body |= {"run": f"soak-{round_number // 4}", "step": round_number % 4 * 100 + number * 100 // count}
        if number % 10 == 2:
            headers["Idempotency-Key"] = f"{round_number}-{number}"
        if number % 50 == 3:
            body = {"prompt": prompt, "completions": "not a list"}
        yield post("/v1/score", body, headers)


def report(memory: list[float], status: Counter[int | str], count: int, seconds: float) -> str:
    quarter = len(memory) // 4
    second, last = (sum(part) / quarter for part in (memory[quarter : 2 * quarter], memory[-quarter:]))
    answers = ", ".join(f"{n:,} x {code}" for code, n in sorted(status.items(), key=str))
    lines = [
        "# Memory of the reward server over many requests",
        "",
        "| what | value | bar |",
        "|---|---:|---:|",
        f"| requests | {count:,} | 200,000 |",
        f"| answers | {answers} | |",
        f"| requests a second | {count / seconds:,.0f} | |",
        f"| resident memory, second quarter, MiB | {second:,.1f} | |",
        f"| resident memory, last quarter, MiB | {last:,.1f} | |",
        f"| change | {100 * (last / second - 1):+.1f} % | within 5 % |",
        "",
        f"Memory after each fortieth, MiB: {', '.join(f'{one:.0f}' for one in memory)}.",
        "",
        f"- Command: `python benchmarks/serve_soak.py {' '.join(word for word in sys.argv[1:] if not word.startswith('/'))}`",
        f"- Date: {date.today()}",
        f"- Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        f"- Versions: Python {platform.python_version()}, "
        + ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers", "uvicorn")),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
