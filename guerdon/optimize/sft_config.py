"""Every choice of supervised fine-tuning, in one frozen dataclass: the flags of `guerdon optimize sft`."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from guerdon import options
from guerdon.files import require_writable
from guerdon.options import flag
from guerdon.types import ConfigError

_POSITIVE = (
    *("epochs", "max_steps", "batch_size", "learning_rate", "tokens_per_row", "max_length", "lora_rank"),
    *("eval_every", "save_every"),
)
_NOT_NEGATIVE = ("weight_decay", "max_grad_norm")
Options = TypeVar("Options")


@dataclass(frozen=True)
class SftConfig:
    """How to fine-tune a policy on answers."""

    policy: str = ""
    """What to start from, a causal language model: folder or hub id."""
    data: tuple[str, ...] = ()
    """Files, folders or hub ids. Comparisons give their chosen answers; rows with prompt and completion, or messages, theirs."""
    output: str = ""
    """Run folder: config.yaml, metrics.jsonl, policy/, run.json."""
    eval_data: tuple[str, ...] = ()
    """Answers to measure perplexity on. Without any, `eval-fraction` of the prompts is held out."""
    eval_fraction: float = 0.05
    """Share of the prompts held out when there is no eval-data; 0 trains on everything and keeps the last weights."""
    format: str | None = None
    """Format of the comparisons, when it is not to be recognised (see docs/data.md)."""
    epochs: float = 1.0
    """Passes over the answers."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, whatever `epochs` says; the learning rate still ends its course there."""
    batch_size: int = 32
    """Answers per optimizer step, over all devices."""
    learning_rate: float | None = None
    """Peak learning rate. Default by size: 3e-4 below 50M parameters, 5e-5 below 200M, 1e-5 above; 2e-4 with LoRA."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from 0; a cosine then takes it to 10 %."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 switches it off."""
    tokens_per_row: int | None = None
    """Tokens per forward pass, the dial between memory and speed; no effect on the result. Default: 1024 on CPU, 16384 on CUDA."""
    max_length: int = 1024
    """Longest prompt and answer together, tokens; longer ones are left out and counted, never cut."""
    lora_rank: int | None = None
    """Train a LoRA adapter of this rank; it is merged into the policy that is saved."""
    keep: Literal["best", "last"] = "best"
    """Which weights stay in policy/: those of the lowest held-out loss, or the last."""
    eval_every: int | None = None
    """Steps between evaluations. Default: five times in a run."""
    save_every: int | None = None
    """Steps between resumable checkpoints. Default: with each evaluation."""
    seed: int = 0
    """Seed of the order of the answers, the split and a new adapter."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the policy. `auto`: bf16 where CUDA supports it, else fp32."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers of Accelerate: tensorboard, wandb, trackio, ..."""
    resume: bool = False
    """Go on from the last checkpoint in `output`; the result equals a run that was never interrupted."""

    def __post_init__(self) -> None:
        require_ranges(self, _POSITIVE, _NOT_NEGATIVE)
        if not 0 <= self.eval_fraction < 1:
            raise ConfigError(f"--eval-fraction must be in [0, 1), got {self.eval_fraction}")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"--warmup is a share of the steps in [0, 1], got {self.warmup}")


def require_ranges(config: Any, positive: Collection[str], not_negative: Collection[str]) -> None:
    """Raise ConfigError for the first of these fields that is not greater than 0, or not at least 0."""
    for name in (*positive, *not_negative):
        value, least = getattr(config, name), name in not_negative
        if value is not None and not (math.isfinite(value) and (value > 0 or (least and value == 0))):
            raise ConfigError(f"{flag(name)} must be {'0 or greater' if least else 'greater than 0'}, got {value}")


def require_named(config: Options, names: Collection[str]) -> Options:
    """The config itself, once these fields are given. Raises ConfigError for the first that is missing."""
    for name in names:
        if not getattr(config, name):
            raise ConfigError(f"{flag(name)} is missing")
    return config


def claim_output(config: Options, free: Collection[str] = ("resume", "trackers")) -> Options:
    """Prove that the run folder can be written, and return the config to run with; nothing is written yet.

    `config` has the fields `output` and `resume`; those named `free` may differ between a run and its resumption. Raises
    ConfigError when the folder holds a run and `resume` is not set, or one with other options.
    """
    output, resume = Path(config.output), config.resume  # type: ignore[attr-defined]
    saved = output / "config.yaml"
    require_writable(saved)
    if resume:
        return (
            options.resumed(config, options.from_yaml(type(config), saved), free, output) if saved.is_file() else config
        )
    if any((output / name).exists() for name in ("config.yaml", "policy", "checkpoints", "metrics.jsonl")):
        raise ConfigError(f"{output}: already holds a run; go on with --resume, or choose another --output")
    return config


def resolve(config: SftConfig, parameters: int, device: str) -> SftConfig:
    """The config with every default that depends on size or device filled in."""
    full = 3e-4 if parameters < 50e6 else 5e-5 if parameters < 200e6 else 1e-5
    return replace(
        config,
        learning_rate=config.learning_rate or (2e-4 if config.lora_rank else full),
        tokens_per_row=config.tokens_per_row or (16384 if device == "cuda" else 1024),
    )


def learning_rate(config: SftConfig, step: int, steps: int) -> float:
    """Learning rate of `step` (from 1): a linear rise, then a cosine from the peak to a tenth of it."""
    peak, rise = config.learning_rate or 0.0, round(config.warmup * steps)
    if step <= rise:
        return peak * step / rise
    done = (step - 1 - rise) / max(1, steps - rise)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
