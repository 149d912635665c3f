"""The whole path on the lab's simulated world, offline: raters -> check -> train -> evaluate -> score -> optimise -> report.

Every step goes through the same functions as its command, and leaves files that the commands read. What the demo adds is
the truth: the lab's gold reward, and the best accuracy that its raters' noise allows.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from transformers.utils import logging as transformers_logging

from guerdon.data.check import check
from guerdon.data.read import load
from guerdon.data.rows import stream_conversations
from guerdon.data.write import write_jsonl
from guerdon.demo_policy import PolicySize, optimise, pick_the_best, policy_page, start_policy
from guerdon.diagnose.mistakes import worst_mistakes
from guerdon.diagnose.report import write_report
from guerdon.evaluate.metrics import evaluate
from guerdon.evaluate.render import render
from guerdon.evaluate.score import score_comparisons
from guerdon.evaluate.score_file import input_identity, score_file
from guerdon.files import write_json
from guerdon.lab.backbone import build_backbone, corpus, pretrain
from guerdon.lab.gold import gold
from guerdon.lab.simulate import simulate
from guerdon.lab.world import prompts
from guerdon.lab.writers import WRITERS
from guerdon.model.reward import RewardModel
from guerdon.progress import TrainingBar
from guerdon.train.config import TrainConfig
from guerdon.train.loop import fit
from guerdon.train.start import versions
from guerdon.types import ConfigError

MARKER = ".guerdon-demo"


@dataclass(frozen=True)
class Size:
    """How much of everything; the default takes a few minutes on two cores."""

    comparisons: int = 5500
    evaluation: int = 1000
    prompts_to_score: int = 100
    candidates: int = 4
    pretraining_texts: int = 6000
    pretraining_steps: int = 250
    epochs: float = 2.0
    policy: PolicySize = field(default_factory=PolicySize)


def run(output: Path, seed: int = 0, size: Size | None = None) -> Path:
    """Run the demo into `output` and return the path of its report. Raises ConfigError when `output` holds something else."""
    size, console, started = size or Size(), Console(), time.monotonic()
    _clear(output)
    transformers_logging.disable_progress_bar()  # the demo has its own
    say = console.print

    with _step(console, 1, "simulate: prompts, writers of mixed quality, and raters with noise and biases"):
        train = simulate(size.comparisons, seed=seed)
        asked = {row.prompt[0]["content"] for row in train.comparisons}
        held = simulate(size.evaluation, seed=seed + 1, exclude=asked)
        write_jsonl(output / "train.jsonl", train.comparisons)
        write_jsonl(output / "test.jsonl", held.comparisons)
        say(
            f"{len(train.comparisons)} comparisons; raters agree with gold on {train.gold_agreement:.1%} of the pairs they "
            f"decide, and no reward model can predict them better than {held.ceiling:.1%} of the time"
        )

    with _step(console, 2, f"check: guerdon check {output}/train.jsonl"):
        say(check(output / "train.jsonl").render())

    with _step(console, 3, "a small language model to start from, pretrained on the lab's own text"):
        build_backbone(output / "base", seed=seed)
        losses = pretrain(output / "base", corpus(size.pretraining_texts, seed), size.pretraining_steps, seed)
        if losses:
            say(f"next-token loss {losses[0]:.2f} -> {losses[-1]:.2f} nats over {len(losses)} steps")

    with _step(console, 4, f"train: guerdon train --data {output}/train.jsonl --model {output}/base ..."):
        config = TrainConfig(
            data=(str(output / "train.jsonl"),),
            model=str(output / "base"),
            output=str(output / "run"),
            seed=seed,
            epochs=size.epochs,
            batch_size=16,
            learning_rate=1e-3,
            max_length=256,
        )
        fit(config, say=say, watch=TrainingBar())

    with _step(console, 5, "evaluate: on new prompts, against the raters' judgements and against gold"):
        model = RewardModel.load(output / "run" / "model")
        test = load(output / "test.jsonl").comparisons
        golds = {row.id: values for row, values in zip(held.comparisons, held.golds, strict=True)}
        table = score_comparisons(model, test, gold=[golds[row.id] for row in test])
        evaluation = evaluate(table)
        say(render(evaluation, ceiling=held.ceiling, title="On new prompts"))
        write_json(output / "evaluation.json", evaluation.to_dict() | {"ceiling": held.ceiling})

    with _step(console, 6, f"score: guerdon score --data {output}/candidates.jsonl ..."):
        _write_candidates(output / "candidates.jsonl", asked, seed, size)
        rows = stream_conversations(output / "candidates.jsonl")
        identity = input_identity(output / "candidates.jsonl")
        score_file(model, rows, output / "scores.jsonl", source=identity, progress=False)
        say(_best_of_n(output))

    with _step(console, 7, f"a policy: guerdon optimize sft --policy {output}/base --data {output}/train.jsonl ..."):
        policy = start_policy(output, seed, size.policy, say)

    with _step(
        console,
        8,
        f"best of n: guerdon optimize best-of-n --policy {output}/sft/policy --reward {output}/run/model ...",
    ):
        pick_the_best(output, policy, asked, seed, size.policy, say)

    with _step(
        console, 9, f"optimise: guerdon optimize ppo --reward {output}/run/model --held-out lab-gold --beta 0.05 ..."
    ):
        watched = optimise(output, policy, asked, seed, size.policy, with_kl=True, say=say)

    with _step(
        console, 10, "and without KL: the same with --beta 0, to see what a reward model is when nothing holds it"
    ):
        free = optimise(output, policy, asked, seed, size.policy, with_kl=False, say=say)

    report = output / "report.html"
    with _step(console, 11, "report"):
        metrics = [json.loads(line) for line in (output / "run" / "metrics.jsonl").read_text().splitlines()]
        assert model.contract is not None
        facts = {
            "data": f"{size.comparisons} simulated comparisons, seed {seed}",
            "start": "a 4-layer causal transformer, pretrained on lab text",
            "contract": model.contract.hash,
            "rater ceiling": f"{held.ceiling:.1%}",
            **versions(),
        }
        write_report(
            report,
            title="Guerdon demo: a reward model for the lab",
            run=output / "run",
            evaluations={"test": evaluation},
            tables={"test": table},
            metrics=metrics,
            ceiling=held.ceiling,
            examples=worst_mistakes(table, test),
            facts=facts,
        )
        page = policy_page(output, [watched, free])
    say(f"\ndone in {time.monotonic() - started:.0f} s: open [bold]{report}[/bold] and [bold]{page}[/bold]")
    return report


@contextmanager
def _step(console: Console, number: int, title: str) -> Iterator[None]:
    console.rule(f"[bold]{number}[/bold] {title}", align="left")
    started = time.monotonic()
    yield
    console.print(f"[dim]{time.monotonic() - started:.1f} s[/dim]")


def _clear(output: Path) -> None:
    """An empty folder to run in; only what an earlier demo left is removed."""
    if output.exists() and not (output / MARKER).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output}: holds something that is not a demo; choose another --output")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / MARKER).touch()


def _write_candidates(path: Path, exclude: set[str], seed: int, size: Size) -> None:
    rng = random.Random(f"candidates {seed}")
    with path.open("w", encoding="utf-8") as file:
        for prompt in prompts(size.prompts_to_score, seed + 3, exclude=exclude):
            answers = [rng.choice(WRITERS).write(prompt, rng) for _ in range(size.candidates)]
            file.write(json.dumps({"prompt": prompt, "completions": answers}) + "\n")


def _best_of_n(output: Path) -> str:
    """What picking the best-scored candidate does to the gold reward, beside a random pick and the best there was."""
    picked = random_pick = oracle = 0.0
    rows = [json.loads(line) for line in (output / "candidates.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = [json.loads(line)["scores"] for line in (output / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, values in zip(rows, scores, strict=True):
        golds = [gold(row["prompt"], answer) for answer in row["completions"]]
        picked += golds[values.index(max(values))] / len(rows)
        random_pick += sum(golds) / len(golds) / len(rows)
        oracle += max(golds) / len(rows)
    return (
        f"best of {len(rows[0]['completions'])} by the reward model: mean gold {picked:.3f} "
        f"(a random pick {random_pick:.3f}, the best there was {oracle:.3f}), over {len(rows)} prompts"
    )
