"""From a config to what a run starts with: devices, model (with LoRA or without), optimizer, and data held apart by
prompt.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn

from guerdon.data.read import Dataset, load
from guerdon.data.split import prompt_key, split
from guerdon.model import members
from guerdon.model.head import find_head
from guerdon.model.reward import RewardModel
from guerdon.train.config import TrainConfig
from guerdon.train.freeze import freeze_layers
from guerdon.types import Comparison, ConfigError


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Accelerate with the run's precision. `auto` is bf16 where CUDA has it, else fp32.

    Raises ConfigError for what Accelerate refuses, and for an average under FSDP: a checkpoint would hold one shard of it.
    """
    bf16 = config.precision == "bf16" or (
        config.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    try:
        accelerator = Accelerator(
            mixed_precision="bf16" if bf16 else "no", log_with=list(config.trackers) or None, project_dir=config.output
        )
    except ValueError as error:
        blamed = f"--trackers {' '.join(config.trackers)}" if config.trackers else "--precision"
        raise ConfigError(f"{blamed}: {error}") from error
    if config.average and accelerator.distributed_type == DistributedType.FSDP:
        raise ConfigError(
            "--average: is not available under FSDP, whose processes hold a shard of the weights each; leave it 0"
        )
    return accelerator


def start_model(config: TrainConfig, device: torch.device) -> RewardModel:
    """The model to train, on its device: weights in float32 (the frozen base in bfloat16 under LoRA on CUDA), dropout
    off.

    Dropout is off because with it a shared prefix would not be one prefix, and because preference losses are trained
    without it throughout the literature.
    """
    frozen_in_bf16 = config.lora and device.type == "cuda" and config.precision != "fp32"
    model = RewardModel.load(
        config.model,
        device=device,
        dtype=torch.bfloat16 if frozen_in_bf16 else torch.float32,
        max_length=config.max_length,
        truncation=config.truncation,
        seed=config.seed,
    )
    model = model.merged()  # a start from an adapter goes on from its weights
    _set_members(model, config)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if config.freeze_layers:
        freeze_layers(model.net, config.freeze_layers)
    if config.lora:
        model = _with_lora(model, config).to(device)
    if config.gradient_checkpointing:
        model.net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[operator]
    if device.type == "cuda" and model.shares_prefix and not model.trunk.uses_flex:
        model.trunk.use_flex()
    _silence_dropout(model.net)
    return model


def _set_members(model: RewardModel, config: TrainConfig) -> None:
    """As many heads as the run asks for. An ensemble that is trained on as a single model goes on from its mean."""
    if config.ensemble == model.members:
        return
    if config.ensemble == 1:
        members.collapse(model.net)
    elif model.members == 1:
        members.grow(model.net, config.ensemble, config.seed, model.has_new_head)
    else:
        raise ConfigError(
            f"{config.model}: is an ensemble of {model.members}, not of {config.ensemble}; "
            f"write --ensemble {model.members} to go on with its members, or leave it out to go on from their mean"
        )


def _with_lora(model: RewardModel, config: TrainConfig) -> RewardModel:
    head, _ = find_head(model.net)
    fresh = [name for name in model.new_modules if not name.startswith(f"{head}.") and name != head]
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=list(config.lora_targets) or "all-linear",
        # a head (or a new pooler) outside the adapter would be neither trained nor saved
        modules_to_save=[head, *fresh],
        exclude_modules=fresh or None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        try:
            net = get_peft_model(model.net, lora)
        except ValueError as error:
            raise ConfigError(f"--lora-targets {' '.join(config.lora_targets)}: {error}") from error
    return RewardModel(net, model.encoder, model.contract, model.new_modules)


def _silence_dropout(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout", "activation_dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over everything that is trained, in one fused kernel."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=config.learning_rate or 0.0, weight_decay=config.weight_decay, fused=True)


def load_data(
    config: TrainConfig, say: Callable[[str], None]
) -> tuple[list[Comparison], list[Comparison], dict[str, Any]]:
    """Training and evaluation comparisons, and the manifest of what was read, dropped and held out.

    Without eval-data a share of the prompts is held out. Prompts that occur in the eval-data are reported, not removed.
    """
    data = load(config.data, format=config.format, labels=config.labels, raters=config.raters)
    say(_data_line("train", data))
    manifest: dict[str, Any] = {"train": _facts(data)}
    if config.eval_data:
        held = load(config.eval_data, format=config.format, labels=config.labels, raters=config.raters)
        say(_data_line("eval", held))
        manifest["eval"] = _facts(held)
        train, evaluation = data.comparisons, held.comparisons
        shared = {prompt_key(c) for c in train} & {prompt_key(c) for c in evaluation}
        manifest["prompts_in_both"] = len(shared)
        if shared:
            say(f"warning: {len(shared)} prompts are in both training and evaluation data; the evaluation is not clean")
    elif config.eval_fraction:
        train, evaluation = split(data.comparisons, config.eval_fraction, config.seed)
        say(f"held out {len(evaluation)} comparisons by prompt for evaluation, {len(train)} to train on")
    else:
        train, evaluation = data.comparisons, []
    if evaluation and not any(pair.target != 0.5 for row in evaluation for pair in row.pairs()):
        if config.eval_data:
            raise ConfigError(
                f"--eval-data {' '.join(config.eval_data)}: all pairs are ties, so no accuracy can be measured"
            )
        say(
            "warning: the prompts held out have only ties, so nothing is evaluated; raise --eval-fraction or give --eval-data"
        )
        evaluation = []
    manifest["train"]["used"], manifest["held_out"] = len(train), len(evaluation)
    return train, evaluation, manifest


def _data_line(name: str, data: Dataset) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items())
    return f"{name}: {len(data.comparisons)} comparisons from {data.rows} rows" + (
        f" (kept out: {dropped})" if dropped else ""
    )


def _facts(data: Dataset) -> dict[str, Any]:
    return {
        "rows": data.rows,
        "comparisons": len(data.comparisons),
        "dropped": dict(data.dropped),
        "sources": dict(data.sources),
    }


def versions() -> dict[str, str]:
    """Versions of Python, the machine's system and the libraries that decide a score."""
    found = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in ("guerdon", "torch", "transformers", "accelerate", "peft", "tokenizers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
