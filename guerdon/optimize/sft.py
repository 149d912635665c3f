"""`fine_tune`: supervised fine-tuning of a policy on answers, as one visible function.

    load -> split -> encode -> (each step: lay out -> forward -> loss -> backward -> step) -> perplexity -> save

The loss is -log p of the completion tokens alone, end of the answer included, divided by the number of completion tokens
of the *whole* step over all devices, so the gradient is that of one big batch however it is cut up. Answers to one prompt
travel together and share its computation.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import SafetensorError

from guerdon.data.demonstrations import Demonstration, Demonstrations, load_demonstrations
from guerdon.data.split import normalise
from guerdon.files import write_json, write_text
from guerdon.model.load import resolve as resolve_model
from guerdon.model.tree import Ids
from guerdon.optimize.layout import Group
from guerdon.optimize.policy import Policy, evaluating
from guerdon.optimize.run_folder import RunFolder
from guerdon.optimize.sft_config import SftConfig, claim_output, learning_rate, require_named, resolve
from guerdon.options import to_yaml
from guerdon.types import ConfigError, DataError, TrainingError


class Watch(Protocol):
    """Follows a run from outside; the command line draws a progress bar with one."""

    def start(self, steps: int, done: int) -> None:
        """Called once, with the number of steps and how many an earlier run has done."""

    def step(self, row: dict[str, Any]) -> None:
        """Called with each row of metrics.jsonl."""

    def stop(self) -> None:
        """Called when the last step is done, or the run ends with an error."""


class _Nobody:
    """Looks away."""

    def start(self, steps: int, done: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class SftResult:
    """What a run left behind: folder of the policy, held-out perplexity of the saved weights and of the start (None where
    nothing was held out), optimizer steps taken, seconds.
    """

    policy: Path
    perplexity: float | None
    perplexity_before: float | None
    steps: int
    seconds: float
    is_main_process: bool = True


class Encoded(NamedTuple):
    """Answers as token ids, by prompt; samples are numbered through. `left_out` counts by reason."""

    groups: list[Group]
    left_out: dict[str, int]

    @property
    def answers(self) -> int:
        return sum(len(group.samples) for group in self.groups)


def fine_tune(config: SftConfig, *, say: Callable[[str], None] = print, watch: Watch | None = None) -> SftResult:
    """Fine-tune a policy on answers and leave it in `config.output/policy`.

    Raises ConfigError or DataError before any work is done; TrainingError when loss or gradient are not finite, or the disk
    refuses.
    """
    config = claim_output(require_named(config, ("output",)))
    require_named(config, ("policy", "data"))
    resolve_model(config.policy)  # a name that cannot be one is refused before the answers are read
    output = Path(config.output)
    accelerator = _accelerator(config)
    main = accelerator.is_main_process
    say, watch = (say, watch or _Nobody()) if main else (lambda _: None, _Nobody())
    if (output / "run.json").is_file():
        say(f"{output}: this run is complete; nothing to do")
        found = json.loads((output / "run.json").read_text(encoding="utf-8"))
        return SftResult(output / "policy", found["perplexity"], found["perplexity_before"], 0, 0.0, main)
    started = time.monotonic()
    train_set, eval_set = _load(config, say)
    policy = Policy.load(config.policy, device=accelerator.device, lora_rank=config.lora_rank, seed=config.seed)
    config = resolve(config, sum(p.numel() for p in policy.parameters()), accelerator.device.type)
    train, held = encode(policy, train_set, config.max_length), encode(policy, eval_set, config.max_length)
    _report(train, held, config, say)
    plan = make_plan(config, train.groups)
    eval_every = config.eval_every or -(-len(plan) // 5)
    save_every = config.save_every or eval_every

    trained = [p for p in policy.net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate or 0.0, weight_decay=config.weight_decay, fused=True)
    model, optimizer = accelerator.prepare(policy, optimizer)
    folder = RunFolder(output, accelerator)
    data = _digest(plan)
    fresh: dict[str, Any] = {"step": 0, "data": data, "best": None, "before": None}
    record = (folder.restore() if config.resume else None) or fresh
    if record["data"] != data:
        raise ConfigError(
            f"{output}: the answers or their tokens are not those the run was started on; restore them, or start anew"
        )
    if main:
        write_text(output / "config.yaml", to_yaml(replace(config, resume=False)))
    if config.trackers:
        accelerator.init_trackers("guerdon", {name: str(value) for name, value in asdict(config).items()})
    done, best = int(record["step"]), record["best"]
    before = record["before"] if done else perplexity(policy, held.groups, config)
    say(
        f"{len(plan)} steps of {config.batch_size} answers on {accelerator.num_processes} x {accelerator.device.type}, "
        f"{'prompt trees' if policy.shares_prefix else 'padded batches'}, learning rate {config.learning_rate:g}"
        + (f", held-out perplexity {before:.3f}" if before else "")
        + (f", resumed after step {done}" if done else "")
    )

    keeps_best = config.keep == "best" and bool(held.groups)
    watch.start(len(plan), done)
    try:
        for step, batch in enumerate(plan[done:], done + 1):
            lr, clock = learning_rate(config, step, len(plan)), time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss, tokens = accumulate(accelerator, model, policy, batch, config)
            norm = float(accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm or math.inf))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(f"step {step}: the loss or its gradient is not finite (loss {loss:g}, gradient norm {norm:g}); "
                                    "lower --learning-rate, or set --precision fp32; go on from the last checkpoint with --resume")  # fmt: skip
            optimizer.step()
            optimizer.zero_grad()
            last = step == len(plan)
            now = perplexity(policy, held.groups, config) if last or step % eval_every == 0 else None
            row = {
                "step": step,
                "loss": loss,
                "tokens": tokens,
                "grad_norm": norm,
                "lr": lr,
                "held_out_perplexity": now,
            }
            row |= {"tokens_per_s": tokens / max(time.monotonic() - clock, 1e-9)}
            folder.append("metrics.jsonl", [row])
            accelerator.log({k: v for k, v in row.items() if v is not None and k != "step"}, step=step)
            watch.step(row)
            is_better = now is not None and (best is None or now < best)
            if is_better if keeps_best else last:
                best = now
                _save(accelerator, policy, output)
            if not last and step % save_every == 0:
                folder.save(step, {"data": data, "best": best, "before": before})
    finally:
        watch.stop()
    seconds = time.monotonic() - started
    if main:
        record = {"steps": len(plan), "answers": train.answers, "left_out": train.left_out, "held_out": held.answers}
        record |= {"perplexity_before": before, "perplexity": best, "seconds": round(seconds, 1)}
        write_json(output / "run.json", record)
        folder.finish()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return SftResult(output / "policy", best, before, len(plan), seconds, main)


def accumulate(
    accelerator: Accelerator, model: Any, policy: Policy, batch: Sequence[Group], config: SftConfig
) -> tuple[float, int]:
    """Add the gradient of one step; returns its loss (nats per completion token) and completion tokens, over all devices.

    Every process lays out the same rows and takes every n-th; where they do not divide evenly the first runs again at weight
    0, so that all processes meet in the same number of collective operations.
    """
    rows = policy.rows(batch, config.tokens_per_row or 1024)
    rank, world = accelerator.process_index, accelerator.num_processes
    tokens = sum(len(completion) for group in batch for completion in group.completions)
    total = torch.zeros((), device=accelerator.device)
    for turn in range(-(-len(rows) // world)):
        index = turn * world + rank
        is_last, counts = (turn + 1) * world >= len(rows), index < len(rows)
        with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
            logprob = model(rows[index if counts else 0].to(accelerator.device)).logprob
            loss = -logprob.sum() / tokens * counts
            accelerator.backward(loss * world)  # gradients are averaged over processes
        total += loss.detach()
    return float(accelerator.reduce(total, "sum")), tokens


def perplexity(policy: Policy, groups: Sequence[Group], config: SftConfig) -> float | None:
    """exp of the mean -log p per completion token; None without groups."""
    if not groups:
        return None
    with evaluating(policy):
        found = policy.logprobs(groups, config.tokens_per_row or 1024)
    tokens = sum(len(values) for values in found.values())
    return math.exp(min(-sum(float(values.double().sum()) for values in found.values()) / tokens, 700.0))


def encode(policy: Policy, answers: Sequence[Demonstration], max_length: int) -> Encoded:
    """Answers as ids, by prompt in order of appearance; those that the template refuses or that are too long are left out."""
    members: dict[Ids, list[Ids]] = {}
    left_out: dict[str, int] = {}
    for demonstration in answers:
        try:
            prompt, completion = policy.encode_answer(demonstration.prompt, demonstration.answer)
        except DataError as error:
            left_out[str(error)] = left_out.get(str(error), 0) + 1
            continue
        if len(prompt) + len(completion) > max_length:
            reason = f"longer than {max_length} tokens"
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        members.setdefault(prompt, []).append(completion)
    groups, number = [], 0
    for prompt, completions in members.items():
        groups.append(Group(prompt, tuple(completions), tuple(range(number, number + len(completions)))))
        number += len(completions)
    return Encoded(groups, left_out)


def make_plan(config: SftConfig, groups: Sequence[Group]) -> list[list[Group]]:
    """The answers of every step. It depends on config and data alone, so a resumed run has the same plan.

    Prompts in random order, anew in each epoch; a prompt's answers stay together, but for those that no longer fit a step.
    """
    per_epoch = -(-sum(len(group.samples) for group in groups) // config.batch_size)
    wanted = max(1, round(config.epochs * per_epoch))
    wanted = min(wanted, config.max_steps) if config.max_steps else wanted
    plan: list[list[Group]] = []
    for epoch in range(-(-wanted // per_epoch)):
        order = random.Random(f"answers {config.seed} {epoch}").sample(range(len(groups)), len(groups))
        step, room = [], config.batch_size
        for index in order:
            group = groups[index]
            while len(group.samples) >= room:
                step.append(Group(group.prompt, group.completions[:room], group.samples[:room]))
                group = Group(group.prompt, group.completions[room:], group.samples[room:])
                plan.append(step)
                step, room = [], config.batch_size
            if group.samples:
                step.append(group)
                room -= len(group.samples)
        if step:
            plan.append(step)
    return plan[:wanted]


def _load(config: SftConfig, say: Callable[[str], None]) -> tuple[list[Demonstration], list[Demonstration]]:
    """Answers to train on and to measure on, without a prompt in both where they are split here."""
    data = load_demonstrations(config.data, format=config.format)
    say(_data_line("train", data))
    if config.eval_data:
        held = load_demonstrations(config.eval_data, format=config.format)
        say(_data_line("eval", held))
        shared = len({_prompt_key(a) for a in data.answers} & {_prompt_key(a) for a in held.answers})
        if shared:
            say(f"warning: {shared} prompts are in both training and evaluation data; the perplexity is not held out")
        return data.answers, held.answers
    if not config.eval_fraction:
        return data.answers, []
    keys = list(dict.fromkeys(_prompt_key(answer) for answer in data.answers))
    if len(keys) < 2:
        raise DataError(
            "all answers have the same prompt, so none can be held out; give --eval-data, or --eval-fraction 0"
        )
    count = min(len(keys) - 1, max(1, round(config.eval_fraction * len(keys))))
    chosen = set(random.Random(f"split {config.seed}").sample(keys, count))
    train = [answer for answer in data.answers if _prompt_key(answer) not in chosen]
    held_out = [answer for answer in data.answers if _prompt_key(answer) in chosen]
    say(f"held out {len(held_out)} answers to {count} prompts")
    return train, held_out


def _prompt_key(answer: Demonstration) -> str:
    """Equal for prompts whose user turns are equal up to case, punctuation and white space."""
    return "\n".join(normalise(message["content"]) for message in answer.prompt if message["role"] == "user")


def _data_line(name: str, data: Demonstrations) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items())
    return f"{name}: {len(data.answers)} answers from {data.rows} rows" + (f" (left out: {dropped})" if dropped else "")


def _report(train: Encoded, held: Encoded, config: SftConfig, say: Callable[[str], None]) -> None:
    """Say what is left out. Raises ConfigError when nothing is left."""
    for name, found in (("train", train), ("eval", held)):
        for reason, count in found.left_out.items():
            say(f"{name}: {count} answers left out: {reason}")
    if not train.groups:
        raise ConfigError(
            f"no answer is left to train on; raise --max-length above {config.max_length}, or give other data"
        )


def _accelerator(config: SftConfig) -> Accelerator:
    """Accelerate with the run's precision. Raises ConfigError for FSDP, which a policy is not laid out for."""
    logging.getLogger("accelerate.utils.other").setLevel(
        logging.ERROR
    )  # tied weights are stored once, each time with a warning
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    bf16 = config.precision == "bf16" or (config.precision == "auto" and has_bf16)
    try:
        accelerator = Accelerator(
            mixed_precision="bf16" if bf16 else "no", log_with=list(config.trackers) or None, project_dir=config.output
        )
    except ValueError as error:
        raise ConfigError(f"--trackers {' '.join(config.trackers)}: {error}") from error
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ConfigError(
            "fine-tuning runs on several devices through DDP, not FSDP; use --lora-rank when memory is short"
        )
    return accelerator


def _save(accelerator: Accelerator, policy: Policy, output: Path) -> None:
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        save_policy(policy, output)
    accelerator.wait_for_everyone()


def save_policy(policy: Policy, output: Path) -> None:
    """Write the policy of a run folder. Raises TrainingError when the disk refuses."""
    try:
        policy.save(output / "policy")
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{output}: the policy cannot be saved ({error}); make room and go on with --resume"
        ) from error


def _digest(plan: Sequence[Sequence[Group]]) -> str:
    digest = hashlib.sha256()
    for step in plan:
        digest.update(repr([(group.prompt, group.completions) for group in step]).encode())
    return digest.hexdigest()[:16]
