"""A lab for policy optimisation, shared by the benchmarks beside it: a small policy, and reward models trained on its answers.

Everything is cached in a folder: `policy/` (a 3-layer, 128-wide model pretrained on lab text), `answers.jsonl` (what it says),
`fair/` and `biased/` (reward models: ensembles of five heads over one trunk, started from the policy) and prompts for training and
for checking that no reward model has seen. Raters of `fair` value gold alone; raters of `biased` also like length,
`LENGTH_BIAS` nats per doubling of the words.

    python benchmarks/lab_policies.py runs/lab
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import torch

from guerdon.data.write import write_jsonl
from guerdon.files import write_text
from guerdon.lab.backbone import build_backbone, corpus, pretrain
from guerdon.lab.gold import gold
from guerdon.lab.raters import Rater
from guerdon.lab.world import prompts
from guerdon.lab.writers import WRITERS
from guerdon.optimize.generate import Sampling, generate
from guerdon.optimize.policy import Policy
from guerdon.train.config import TrainConfig
from guerdon.train.loop import fit
from guerdon.types import Comparison

NEW_TOKENS = 96
ANSWERS = 4  # to each judged prompt, ranked
LENGTH_BIAS = 0.25
RATERS = {"fair": Rater("fair", skill=20.0), "biased": Rater("biased", skill=20.0, length_bias=LENGTH_BIAS)}
SHARE_WRITTEN = 0.3  # of the judged answers are by the lab's writers, the rest by the policy


def make_policy(folder: Path, steps: int = 1500) -> Path:
    """The starting policy."""
    if not (folder / "policy").is_dir():
        build_backbone(folder / "draft", seed=0, layers=3, width=128, context=256)
        pretrain(folder / "draft", corpus(20_000, 0, WRITERS), steps, 0, batch_size=16)
        (folder / "draft").rename(folder / "policy")
    return folder / "policy"


def make_prompts(folder: Path) -> dict[str, Path]:
    """Disjoint prompts: to collect judgements on, to optimise on, to check on."""
    texts = prompts(11_000, 7)
    parts = {"judged": texts[:6000], "train": texts[6000:10_000], "check": texts[10_000:]}
    for name, part in parts.items():
        if not (folder / f"{name}.jsonl").is_file():
            write_text(folder / f"{name}.jsonl", "".join(json.dumps({"prompt": text}) + "\n" for text in part))
    return {name: folder / f"{name}.jsonl" for name in parts}


def read_prompts(path: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]


def sample(policy: Policy, asked: list[str], n: int, seed: int) -> list[list[str]]:
    """`n` answers to each prompt."""
    ids = policy.encode([({"role": "user", "content": text},) for text in asked])
    drawn = generate(policy, ids, n, Sampling(NEW_TOKENS, rows=256), torch.Generator().manual_seed(seed))
    return [[sample.text for sample in group] for group in drawn]


def make_answers(folder: Path) -> list[tuple[str, list[str]]]:
    """Answers by the policy or the writers to each judged prompt."""
    path = folder / "answers.jsonl"
    if not path.is_file():
        asked, rng = read_prompts(folder / "judged.jsonl"), random.Random("answers")
        drawn = sample(Policy.load(folder / "policy"), asked, ANSWERS, 11)
        rows = []
        for text, group in zip(asked, drawn, strict=True):
            answers = [rng.choice(WRITERS).write(text, rng) if rng.random() < SHARE_WRITTEN else a for a in group]
            rows.append({"prompt": text, "answers": answers})
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["prompt"], row["answers"]) for row in rows]


def make_reward(folder: Path, name: str, epochs: float = 1.5) -> Path:
    """A reward model for one kind of rater."""
    rng, rows = random.Random(f"judge {name}"), []
    for i, (text, answers) in enumerate(make_answers(folder)):
        answers = list(dict.fromkeys(answers))
        if len(answers) > 1:
            judged = RATERS[name].rank(text, answers, rng)
            completions = tuple(({"role": "assistant", "content": answer},) for answer in answers)
            rows.append(Comparison(({"role": "user", "content": text},), completions, judged.ranks, id=f"{name}-{i}"))
    write_jsonl(folder / f"{name}.jsonl", rows)
    if not (folder / name / "run.json").is_file():
        config = TrainConfig(
            data=(str(folder / f"{name}.jsonl"),), model=str(folder / "policy"), output=str(folder / name), batch_size=16, epochs=epochs,
            learning_rate=1e-3, max_length=256, ensemble=5, eval_every=200, resume=(folder / name).is_dir(),
        )  # fmt: skip
        fit(config, say=lambda line: print(line, flush=True))
    return folder / name / "model"


def make_all(folder: Path, names: list[str]) -> None:
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    make_policy(folder)
    make_prompts(folder)
    answers = make_answers(folder)
    mean = sum(gold(text, answer) for text, group in answers for answer in group) / (ANSWERS * len(answers))
    print(f"answers to judge: mean gold {mean:.3f}; {time.monotonic() - started:.0f} s", flush=True)
    for name in names or RATERS:
        make_reward(folder, name)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_all(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/lab"), sys.argv[2:])
