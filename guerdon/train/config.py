"""Every choice of a training run, in one frozen dataclass: the flags of `guerdon train`, the keys of its YAML file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guerdon import options
from guerdon.options import flag
from guerdon.types import ConfigError

_POSITIVE = (
    *("epochs", "max_steps", "batch_size", "tokens_per_row", "learning_rate", "max_length"),
    *("eval_every", "save_every", "keep_checkpoints", "ensemble", "lora_rank", "lora_alpha"),
)
_NOT_NEGATIVE = ("weight_decay", "max_grad_norm", "average", "margin", "center", "seed", "freeze_layers", "probes")


@dataclass(frozen=True)
class TrainConfig:
    """How to train a reward model."""

    data: tuple[str, ...] = ()
    """Files, folders or hub dataset ids of comparisons to train on."""
    model: str = ""
    """What to start from: a folder, a hub id, or `minilm`. A reward model keeps its head; anything else gets a new one.
    """
    output: str = ""
    """Run folder: config.yaml, metrics.jsonl, model/, checkpoints/, run.json."""
    eval_data: tuple[str, ...] = ()
    """Comparisons to evaluate on. Without any, `eval-fraction` of the training prompts is held out."""
    eval_fraction: float = 0.05
    """Share of the prompts held out when there is no eval-data; 0 trains on everything and keeps the last weights."""
    format: str | None = None
    """Format of the data, when it is not to be recognised (see docs/data.md)."""
    labels: Literal["raw", "majority", "soft"] = "raw"
    """What is made of judgements: a comparison for each, or for each question by majority or by the rater model (soft)."""
    raters: Literal["human", "model", "both"] = "human"
    """Whose judgements count, where the data are judgements."""
    seed: int = 0
    """Seed of the new head, the split and the order of the data."""
    epochs: float = 1.0
    """Passes over the data. More than one or two overfits most reward models (Ouyang et al. 2022, appendix C.2)."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, whatever `epochs` says; the learning rate still ends its course there."""
    batch_size: int = 32
    """Comparisons per optimizer step, over all devices. A ranking of K answers counts as one."""
    tokens_per_row: int | None = None
    """Tokens per forward pass, the dial between memory and speed; no effect on the result. Default: 512 on CPU, 16384
    on CUDA.
    """
    learning_rate: float | None = None
    """Peak learning rate. Default by size: 1e-4 below 50M parameters, 5e-5 below 200M, 2e-5 below 1.5B, 9e-6
    above; 1e-4 with LoRA."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up: cosine to 10 %, linear to 0, or constant."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 switches it off."""
    average: float = 0.0
    """Evaluate and save the mean of the weights over the run, each step counted by its number to this power (8 looks back
    on a tenth of the run, 2 on a quarter); 0 switches it off."""
    max_length: int | None = None
    """Context in tokens, written into the contract. Default: what the model allows, at most 2048."""
    truncation: Literal["left", "right", "error"] = "left"
    """What happens to longer conversations: lose the start, lose the end (closing token kept), or keep the row out."""
    margin: float = 0.0
    """Reward margin per unit of the data's `strength`; 0 ignores strength (Touvron et al. 2023, eq. 2)."""
    center: float = 0.0
    """Weight of (chosen + rejected)^2, which keeps rewards near zero; 0.01 is usual (Eisenstein et al. 2023)."""
    label_smoothing: float = 0.0
    """Share of labels taken to be flipped, in [0, 0.5)."""
    ties: Literal["half", "drop"] = "half"
    """A tie is half a win for each side, or is kept out of the loss."""
    ensemble: int = 1
    """Members of an ensemble: this many heads over one trunk, each on its own bootstrap of the prompts. The saved folder
    scores as their mean wherever it is loaded; Guerdon also gives their spread."""
    freeze_layers: int = 0
    """Leave the embeddings and the first N layers as they are pretrained: faster, less memory, and less to overfit
    with where comparisons are few. 0 trains everything."""
    lora: bool = False
    """Train a LoRA adapter and the head instead of all weights."""
    lora_rank: int = 16
    """Rank of the adapter."""
    lora_alpha: int = 32
    """Scale of the adapter: its output is multiplied by alpha / rank."""
    lora_targets: tuple[str, ...] = ()
    """Names of the linear layers to adapt. Default: all of the trunk."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the trunk. `auto`: bf16 where CUDA supports it, else fp32. Head and loss are always fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, much less memory."""
    eval_every: int | None = None
    """Steps between evaluations. Default: ten times in a run."""
    save_every: int | None = None
    """Steps between resumable checkpoints. Default: with each evaluation."""
    keep_checkpoints: int = 1
    """Resumable checkpoints kept on disk."""
    best_by: Literal["accuracy", "nll"] = "nll"
    """Which evaluation metric picks the weights that stay in model/."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers of Accelerate: tensorboard, wandb, trackio, ..."""
    probes: int = 32
    """Held-out comparisons that `guerdon train` probes for biases once it is done, for the run's page and model card; each
    costs about 70 scored texts. 0 leaves the probes out."""
    resume: bool = False
    """Go on from the last checkpoint in `output`; the result equals a run that was never interrupted."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{flag(name)} must be greater than 0, got {value}")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"{flag(name)} must be 0 or greater, got {value}")
        if self.lora and self.freeze_layers:
            raise ConfigError(
                "--freeze-layers: with --lora all weights of the base are frozen already; leave one of them out"
            )
        if not 0 <= self.eval_fraction < 1:
            raise ConfigError(f"--eval-fraction must be in [0, 1), got {self.eval_fraction}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"--label-smoothing must be in [0, 0.5), got {self.label_smoothing}")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"--warmup is a share of the steps in [0, 1], got {self.warmup}")

    def require_paths(self) -> TrainConfig:
        """Itself, once data, model and output are named. Raises ConfigError for the first that is missing."""
        for name in ("data", "model", "output"):
            if not getattr(self, name):
                raise ConfigError(f"{flag(name)} is missing; give it as a flag or in the --config file")
        return self


def from_yaml(path: str | Path) -> TrainConfig:
    """A config from a YAML file whose keys are the field names (dashes allowed). Raises ConfigError, naming the key."""
    return options.from_yaml(TrainConfig, path)
