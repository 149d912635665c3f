"""Every choice of direct preference optimisation, in one frozen dataclass: the flags of `guerdon optimize dpo`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from guerdon.optimize.sft_config import require_ranges
from guerdon.types import ConfigError

_POSITIVE = (
    *("beta", "epochs", "max_steps", "batch_size", "pairs_per_pass", "learning_rate", "max_length", "lora_rank"),
    *("log_every", "eval_every", "save_every"),
)


@dataclass(frozen=True)
class DpoConfig:
    """How to fine-tune a policy on comparisons."""

    policy: str = ""
    """What to start from, a causal language model: folder or hub id. Frozen, it is also the reference."""
    data: tuple[str, ...] = ()
    """Files, folders or hub ids of comparisons. A ranking gives all its decided pairs; ties are left out and counted."""
    output: str = ""
    """Run folder: config.yaml, metrics.jsonl, policy/ (with implicit_reward.json), run.json."""
    eval_data: tuple[str, ...] = ()
    """Comparisons to evaluate on. Without any, `eval-fraction` of the prompts is held out."""
    eval_fraction: float = 0.05
    """Share of the prompts held out when there is no eval-data; 0 trains on everything."""
    format: str | None = None
    """Format of the data, when it is not to be recognised (see docs/data.md)."""
    beta: float = 0.1
    """Price of KL from the reference, reward units per nat; the scale of the implicit reward."""
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    """sigmoid: DPO as published; ipo: squared error, which does not run away on pairs without noise (Azar et al. 2023); hinge (SLiC);
    robust: unbiased under a known share of flipped labels."""
    label_smoothing: float = 0.0
    """Share of labels taken to be flipped, in [0, 0.5)."""
    epochs: float = 1.0
    """Passes over the pairs."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    batch_size: int = 32
    """Pairs per optimizer step, on one device."""
    pairs_per_pass: int = 8
    """Pairs in a forward pass, the dial between memory and speed; divides batch-size."""
    learning_rate: float | None = None
    """Peak learning rate. Default by size: 1e-4 below 50M parameters, 5e-6 below 1B, 1e-6 above; 1e-5 with LoRA."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises from 0; a cosine then takes it to 0."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    max_length: int = 1024
    """Longest prompt and answer together, tokens; pairs with a longer one are left out and counted, never cut."""
    lora_rank: int | None = None
    """Train a LoRA adapter of this rank; it is merged into the policy that is saved."""
    per_token: bool = False
    """The implicit reward that is saved with the policy is divided by the number of tokens of the answer."""
    log_every: int = 10
    """Steps between log lines."""
    eval_every: int | None = None
    """Steps between evaluations. Default: five times in a run."""
    save_every: int | None = None
    """Steps between resumable checkpoints. Default: with each evaluation."""
    seed: int = 0
    """Seed of the order of the pairs, the split and a new adapter."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the policy. `auto`: bf16 where CUDA supports it, else fp32."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers of transformers: tensorboard, wandb, trackio, ..."""
    resume: bool = False
    """Go on from the last checkpoint in `output`."""

    def __post_init__(self) -> None:
        require_ranges(self, _POSITIVE, ("max_grad_norm",))
        if self.batch_size % min(self.pairs_per_pass, self.batch_size):
            raise ConfigError(f"--pairs-per-pass {self.pairs_per_pass} must divide --batch-size {self.batch_size}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"--label-smoothing must be in [0, 0.5), got {self.label_smoothing}")
        if self.loss == "robust" and not self.label_smoothing:
            raise ConfigError("--loss robust needs --label-smoothing: the share of labels that are flipped")
        for name in ("eval_fraction", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be in [0, 1), got {getattr(self, name)}")


def resolve(config: DpoConfig, parameters: int) -> DpoConfig:
    """The config with every default that depends on size filled in."""
    full = 1e-4 if parameters < 50e6 else 5e-6 if parameters < 1e9 else 1e-6
    return replace(config, learning_rate=config.learning_rate or (1e-5 if config.lora_rank else full))
