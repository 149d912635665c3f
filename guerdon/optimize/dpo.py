"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) through TRL's `DPOTrainer`.

    load -> split -> encode (as the policy does everywhere) -> TRL -> save, with the implicit reward beside the weights

TRL brings loss, reference and loop; Guerdon the comparisons, the token ids, and a policy whose implicit reward scores
wherever a reward model does.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from guerdon.data.read import load
from guerdon.data.split import split
from guerdon.evaluate.metrics import evaluate
from guerdon.evaluate.score import score_comparisons
from guerdon.files import rewind, write_json, write_text
from guerdon.model.load import resolve as resolve_model
from guerdon.optimize.dpo_config import DpoConfig, resolve
from guerdon.optimize.implicit import ImplicitReward
from guerdon.optimize.policy import Policy
from guerdon.optimize.sft import Watch, save_policy
from guerdon.optimize.sft_config import claim_output, require_named
from guerdon.options import to_yaml
from guerdon.types import Comparison, ConfigError, DataError, Message, TrainingError

# What a log line of TRL is called in metrics.jsonl.
_NAMES = {
    "loss": "loss", "rewards/chosen": "chosen_reward", "rewards/rejected": "rejected_reward", "rewards/margins": "margin",
    "rewards/accuracies": "accuracy", "logps/chosen": "chosen_logprob", "logps/rejected": "rejected_logprob",
    "entropy": "entropy", "grad_norm": "grad_norm", "learning_rate": "lr",
}  # fmt: skip


@dataclass(frozen=True)
class DpoResult:
    """What a run left behind: folder of the policy, its implicit reward measured on the held-out comparisons (or {}), optimizer
    steps, seconds.
    """

    policy: Path
    evaluation: dict[str, Any]
    steps: int
    seconds: float
    is_main_process: bool = True


def direct_preference(
    config: DpoConfig, *, say: Callable[[str], None] = print, watch: Watch | None = None, device: str | None = None
) -> DpoResult:
    """Fine-tune a policy on comparisons and leave it in `config.output/policy`.

    Raises ConfigError or DataError before any work is done, also when TRL is not installed; TrainingError when the loss is not
    finite.
    """
    classes = _trl()  # first of all, as nothing can be done without it
    config = claim_output(require_named(config, ("output",)))
    require_named(config, ("policy", "data"))
    resolve_model(config.policy)
    output = Path(config.output)
    if (output / "run.json").is_file():
        say(f"{output}: this run is complete; nothing to do")
        record = json.loads((output / "run.json").read_text(encoding="utf-8"))
        return DpoResult(output / "policy", record["evaluation"], 0, 0.0)
    started = time.monotonic()
    train_set, eval_set = _load(config, say)
    policy = Policy.load(config.policy, device=device)
    config = resolve(config, sum(p.numel() for p in policy.parameters()))
    train, held = encode_pairs(policy, train_set, config.max_length), encode_pairs(policy, eval_set, config.max_length)
    _report(train, held, say)
    write_text(output / "config.yaml", to_yaml(replace(config, resume=False)))
    steps = _steps(config, len(train.rows))
    logger = _Logger(output / "metrics.jsonl", steps, watch)
    trainer = _trainer(classes, config, policy, train, held, steps, logger)
    say(
        f"{steps} steps of {config.batch_size} pairs, learning rate {config.learning_rate:g}, beta {config.beta:g}, TRL's {config.loss} loss"
    )
    try:
        trainer.train(resume_from_checkpoint=_last_checkpoint(output) if config.resume else None)
    finally:
        logger.close()
    main = bool(trainer.is_world_process_zero())
    evaluation: dict[str, Any] = {}
    if main:
        policy.net = trainer.accelerator.unwrap_model(trainer.model)
        save_policy(policy, output)
        where, pairs = policy.device, len(train.rows)
        del trainer, policy  # the weights are loaded again, as whoever uses them will
        evaluation = _save_reward(config, output / "policy", train_set, eval_set, where)
        seconds = round(time.monotonic() - started, 1)
        record = {
            "evaluation": evaluation,
            "steps": steps,
            "pairs": pairs,
            "left_out": train.left_out,
            "seconds": seconds,
        }
        write_json(output / "run.json", record)
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return DpoResult(output / "policy", evaluation, steps, time.monotonic() - started, main)


def _trainer(
    classes: tuple[Any, Any, Any],
    config: DpoConfig,
    policy: Policy,
    train: Pairs,
    held: Pairs,
    steps: int,
    logger: _Logger,
) -> Any:
    """TRL's trainer, with no log but ours; the reference is a copy of the policy, or with LoRA the policy without adapter."""
    trainer_class, trl_config, dataset_class = classes
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear"
    ) if config.lora_rank else None  # fmt: skip
    # a warning about TRL's own use of it
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing` is deprecated", FutureWarning)
    trainer = trainer_class(
        model=policy.net,
        ref_model=None if lora else copy.deepcopy(policy.net).requires_grad_(False),
        args=trl_config(**_arguments(config, steps, bool(held.rows), policy.device)),
        train_dataset=dataset_class.from_list(train.rows),
        eval_dataset=dataset_class.from_list(held.rows) if held.rows else None,
        processing_class=policy.tokenizer,
        callbacks=[logger],
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@dataclass(frozen=True)
class Pairs:
    """Decided pairs as TRL takes them: `prompt_ids`, `chosen_ids`, `rejected_ids`; what is left out, by reason."""

    rows: list[dict[str, list[int]]]
    left_out: dict[str, int]


def encode_pairs(policy: Policy, comparisons: Sequence[Comparison], max_length: int) -> Pairs:
    """All decided pairs of the comparisons, in the ids that the policy generates after and is scored on."""
    rows, left_out = [], Counter[str]()
    for comparison in comparisons:
        if not comparison.prompt or any(not _is_answer(completion) for completion in comparison.completions):
            left_out["comparisons without a prompt, or whose answers are more than one assistant message"] += 1
            continue
        try:
            encoded = [policy.encode_answer(comparison.prompt, c[0]["content"]) for c in comparison.completions]
        except DataError as error:
            left_out[f"comparisons refused: {error}"] += 1
            continue
        for pair in comparison.pairs():
            prompt, chosen, rejected = encoded[pair.chosen][0], encoded[pair.chosen][1], encoded[pair.rejected][1]
            if pair.target == 0.5:
                left_out["tied pairs"] += 1
            elif len(prompt) + max(len(chosen), len(rejected)) > max_length:
                left_out[f"pairs longer than {max_length} tokens"] += 1
            else:
                rows.append({"prompt_ids": list(prompt), "chosen_ids": list(chosen), "rejected_ids": list(rejected)})
    return Pairs(rows, dict(left_out))


def _is_answer(completion: Sequence[Message]) -> bool:
    return len(completion) == 1 and completion[0]["role"] == "assistant"


def _trl() -> tuple[Any, Any, Any]:
    """TRL's trainer for pairs that are token ids already, its config, and the data set class. Raises ConfigError without TRL."""
    try:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer
    except ImportError as error:
        raise ConfigError(f"DPO needs TRL, which is not installed ({error}); pip install 'guerdon[rl]'") from error

    class Trainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            """The rows as they are: their ids are the policy's own, with nothing merged across the prompt's end and nothing cut."""
            return dataset

    return Trainer, DPOConfig, Dataset


def _arguments(config: DpoConfig, steps: int, evaluates: bool, device: torch.device) -> dict[str, Any]:
    """TRL's options. What differs from its defaults: nothing is cut or recomputed, and there is no log but ours."""
    eval_every = config.eval_every or -(-steps // 5)
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    passes = min(config.pairs_per_pass, config.batch_size)
    return {
        "output_dir": str(Path(config.output) / "checkpoints"),
        "beta": config.beta,
        "loss_type": [config.loss],
        "label_smoothing": config.label_smoothing,
        "max_length": None,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(config.warmup * steps),
        "max_grad_norm": config.max_grad_norm,
        "max_steps": steps,
        "per_device_train_batch_size": passes,
        "per_device_eval_batch_size": passes,
        "gradient_accumulation_steps": config.batch_size // passes,
        "gradient_checkpointing": False,
        "bf16": config.precision == "bf16" or (config.precision == "auto" and has_bf16),
        "use_cpu": device.type == "cpu",
        "logging_steps": config.log_every,
        "logging_first_step": True,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": eval_every,
        "save_strategy": "steps",
        "save_steps": config.save_every or eval_every,
        "save_total_limit": 1,
        "seed": config.seed,
        "data_seed": config.seed,
        "report_to": list(config.trackers) or "none",
        "disable_tqdm": True,
    }


def _steps(config: DpoConfig, pairs: int) -> int:
    world = int(torch.distributed.get_world_size()) if torch.distributed.is_initialized() else 1
    wanted = max(1, round(config.epochs * pairs / (config.batch_size * world)))
    return min(wanted, config.max_steps) if config.max_steps else wanted


def _last_checkpoint(output: Path) -> str | None:
    """The latest checkpoint that is whole; transformers writes a checkpoint in place, its trainer_state.json last."""
    whole: dict[int, Path] = {}
    for path in (output / "checkpoints").glob("checkpoint-*/trainer_state.json"):
        with suppress(OSError, ValueError):
            whole[int(json.loads(path.read_bytes())["global_step"])] = path.parent
    return str(whole[max(whole)]) if whole else None


class _Logger(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, moves the bar, and stops a run whose loss is not finite."""

    def __init__(self, path: Path, steps: int, watch: Watch | None) -> None:
        self.path, self.steps, self.watch = path, steps, watch
        self.seen, self.clock = 0.0, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        rewind(self.path, state.global_step)
        if self.watch:
            self.watch.start(self.steps, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        logs = logs or {}
        prefix = "eval_" if "eval_loss" in logs else ""
        row: dict[str, Any] = {
            prefix + name: logs[prefix + key] for key, name in _NAMES.items() if prefix + key in logs
        }
        if not row:
            return
        loss = float(row[f"{prefix}loss"]) if f"{prefix}loss" in row else math.nan
        if f"{prefix}loss" in row and not math.isfinite(loss):
            raise TrainingError(
                f"step {state.global_step}: the loss is not finite; lower --learning-rate, or set --precision fp32"
            )
        row = {"step": state.global_step, **{k: v if math.isfinite(v) else None for k, v in row.items()}}
        tokens, now = float(logs.get("num_tokens", self.seen)), time.monotonic()
        if not prefix:
            row["tokens_per_s"] = (tokens - self.seen) / max(now - self.clock, 1e-9)
            self.seen, self.clock = tokens, now
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
            if self.watch and not prefix:
                self.watch.step(row)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.steps:
            control.should_log = True  # the last step has a line, whatever log-every says

    def close(self) -> None:
        if self.watch:
            self.watch.stop()


def _load(config: DpoConfig, say: Callable[[str], None]) -> tuple[list[Comparison], list[Comparison]]:
    data = load(config.data, format=config.format)
    dropped = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items())
    say(
        f"train: {len(data.comparisons)} comparisons from {data.rows} rows"
        + (f" (kept out: {dropped})" if dropped else "")
    )
    if config.eval_data:
        return data.comparisons, load(config.eval_data, format=config.format).comparisons
    train, held = split(data.comparisons, config.eval_fraction, config.seed)
    if held:
        say(f"held out {len(held)} comparisons by prompt")
    return train, held


def _report(train: Pairs, held: Pairs, say: Callable[[str], None]) -> None:
    for name, found in (("train", train), ("eval", held)):
        for reason, count in found.left_out.items():
            say(f"{name}: {count} {reason}: left out")
    if not train.rows:
        raise ConfigError("no pair is left to train on; see the counts above, raise --max-length, or give other data")


def _save_reward(
    config: DpoConfig, folder: Path, train: Sequence[Comparison], held: Sequence[Comparison], device: torch.device
) -> dict[str, Any]:
    """Put the implicit reward beside the policy, and measure it as any reward model is."""
    reward = ImplicitReward(
        Policy.load(folder, device=device), Policy.load(config.policy, device=device), config.beta, config.per_token
    )
    answers = [(c.prompt, c.completions[0][0]["content"]) for c in train if c.prompt and _is_answer(c.completions[0])]
    reward.write(folder, config.policy, answers)
    decided = [c for c in held if any(pair.target != 0.5 for pair in c.pairs())]
    return evaluate(score_comparisons(reward, decided), resamples=500).to_dict() if decided else {}
