"""Every choice of a policy run, in one frozen dataclass: the flags of `guerdon optimize`, the keys of its YAML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from guerdon import options
from guerdon.aggregate import parse_rule
from guerdon.optimize.generate import Sampling
from guerdon.optimize.kl import Estimator
from guerdon.options import flag
from guerdon.types import ConfigError

Algorithm = Literal["ppo", "rloo", "grpo"]

_POSITIVE = (
    *("steps", "prompts_per_step", "samples_per_prompt", "max_new_tokens", "temperature", "learning_rate", "updates"),
    *("minibatches", "tokens_per_row", "max_length", "kl_target", "lora_rank", "save_every", "sample_every"),
    *("clip_high", "reward_clip"),
)
_NOT_NEGATIVE = (
    *("beta", "kl_gain", "max_grad_norm", "clip", "value_clip", "value_weight", "value_warmup", "held_out_budget"),
    *("center", "warmup", "gamma", "lam"),
)


@dataclass(frozen=True)
class OptimizeConfig:
    """How to optimise a policy against a reward."""

    algorithm: Annotated[Algorithm, tyro.conf.Fixed, tyro.conf.Suppress] = "ppo"
    """ppo: value model and GAE; rloo: the mean of a prompt's other samples; grpo: mean and deviation of its samples."""
    policy: str = ""
    """What to start from, a causal language model: folder or hub id. Frozen, it is also the reference."""
    prompts: tuple[str, ...] = ()
    """Files, folders or hub ids of prompts; of comparisons, their prompts."""
    reward: tuple[str, ...] = ()
    """What is optimised: a reward model's folder, the address of a server, or NAME=SPEC:WEIGHT for each part of a sum
    (docs/rewards.md)."""
    held_out: tuple[str, ...] = ()
    """A reward that is watched and never optimised: a second reward model, an ensemble, `lab-gold`. Spelt as `reward`."""
    reward_rule: str = "mean"
    """What an ensemble in `reward` is worth: mean, min, mean-std:K, mean-var:K or quantile:Q (docs/ensemble.md)."""
    output: str = ""
    """Run folder: config.yaml, metrics.jsonl, samples.jsonl, policy/, monitor.json, to_label.jsonl, report.html, run.json."""
    steps: int = 100
    """Rollouts, each followed by its updates."""
    prompts_per_step: int = 16
    """Prompts in a rollout, over all devices."""
    samples_per_prompt: int = 8
    """Completions of each prompt; rloo and grpo need at least 2."""
    max_new_tokens: int = 128
    """Longest completion, tokens. A longer one is cut and counts as one without an end."""
    temperature: float = 1.0
    """Sampling temperature, also of the log-probabilities that are trained."""
    max_length: int = 1024
    """Longest prompt, tokens; longer ones are left out and counted."""
    updates: int = 1
    """Passes over a rollout (PPO's epochs)."""
    minibatches: int = 1
    """Optimizer steps in each pass. One pass of one minibatch is on-policy."""
    learning_rate: float | None = None
    """Peak learning rate. Default by size: 1e-4 below 50M parameters, 1e-5 below 200M, 3e-6 above; 1e-4 with LoRA."""
    schedule: Literal["constant", "linear"] = "constant"
    """Course of the learning rate after warm-up: constant, or linear to 0."""
    warmup: float = 0.0
    """Share of the steps over which the learning rate rises from 0."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 switches it off."""
    tokens_per_row: int | None = None
    """Tokens per forward pass, the dial between memory and speed. Default: 512 on CPU, 16384 on CUDA."""
    lora_rank: int | None = None
    """Train a LoRA adapter of this rank; the reference is then the base model without it."""
    beta: float = 0.05
    """Price of one nat of KL from the reference, in reward units."""
    kl_in: Literal["reward", "loss"] | None = None
    """Where KL is paid: k1 per token in the reward, or an estimator in the loss. Default, as published: `loss` for grpo,
    `reward` for ppo and rloo."""
    kl_estimator: Estimator = "k3"
    """Estimator in the loss, with the weights that make its gradient that of the KL; in the reward it is always k1."""
    kl_target: float | None = None
    """Move beta so that KL comes to this, nats per sequence (Ziegler et al. 2019). Default: beta stays."""
    kl_gain: float = 0.1
    """How fast beta moves towards the target, per step and unit of relative error."""
    gamma: float = 1.0
    """PPO: discount per token."""
    lam: float = 0.95
    """PPO: lambda of GAE."""
    value_from: Literal["reward", "policy"] = "policy"
    """PPO: what the value model starts from. `reward` needs a reward model that reads the policy's tokens."""
    value_weight: float = 0.1
    """PPO: weight of the value loss."""
    value_clip: float = 0.2
    """PPO: how far a value may move in one rollout before its error stops counting, reward units; 0 for no bound."""
    value_warmup: int = 0
    """PPO: first steps that train the value model alone."""
    clip: float | None = None
    """Lower and upper bound of the probability ratio, 1 - clip and 1 + clip. Default: 3e-4 for the loss `gspo`, whose ratio is
    a mean over the answer, else 0.2."""
    clip_high: float | None = None
    """Another upper bound (DAPO's clip-higher: 0.28)."""
    loss: Literal["ppo", "grpo", "dr-grpo", "dapo", "gspo"] | None = None
    """How tokens are weighted, and the ratio: `ppo` and `dapo` over tokens, `grpo` over completions, `dr-grpo` by a constant
    and without the deviation, `gspo` with one ratio for a completion. Default: `grpo` for grpo, `ppo` for ppo and rloo."""
    whiten_rewards: bool = False
    """PPO: token rewards get unit variance before GAE (off in most published runs)."""
    center: int = 0
    """Shift and scale the reward to mean 0 and deviation 1 over this many samples of the reference before training."""
    missing_eos_penalty: float | None = None
    """Taken off the reward of a completion that was cut at max-new-tokens."""
    reward_clip: float | None = None
    """Rewards are held within plus or minus this (after centring)."""
    held_out_budget: int = 64
    """Samples of each step that the held-out reward scores. The monitor works from these, and asks for up to four times as
    many while it has a suspicion."""
    on_overopt: Literal["warn", "stop", "rollback"] = "warn"
    """What happens when the monitor says stop: nothing but a line, the end, or the end with the best earlier policy."""
    reward_failures: Literal["mask", "wait", "stop"] = "mask"
    """A completion without a reward is left out of the step, or ends the run. It never counts as 0. `wait` asks a server that
    does not answer again, for up to half an hour, and then ends the run."""
    drift_data: tuple[str, ...] = ()
    """Comparisons the reward model was trained on: the drift of the policy's answers is measured against them."""
    seed: int = 0
    """Seed of the order of prompts, the sampling and new weights."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the policy. `auto`: bf16 where CUDA supports it, else fp32."""
    save_every: int | None = None
    """Steps between resumable checkpoints and snapshots to roll back to. Default: twenty in a run."""
    sample_every: int = 1
    """Steps between rollouts whose samples are written to samples.jsonl."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers of Accelerate: tensorboard, wandb, trackio, ..."""
    resume: bool = False
    """Go on from the last checkpoint in `output`; the result equals a run that was never interrupted."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{flag(name)} must be greater than 0, got {value}")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"{flag(name)} must be 0 or greater, got {value}")
        for name in ("warmup", "gamma", "lam", "clip"):
            if (getattr(self, name) or 0.0) > 1:
                raise ConfigError(f"{flag(name)} must be in [0, 1], got {getattr(self, name)}")
        if self.algorithm != "ppo" and self.samples_per_prompt < 2:
            raise ConfigError(
                f"--samples-per-prompt must be at least 2 for {self.algorithm}: the others are the baseline"
            )
        parse_rule(self.reward_rule)
        if self.minibatches > self.prompts_per_step:
            raise ConfigError(
                "--minibatches must not be more than --prompts-per-step: a prompt's samples stay together"
            )
        if self.on_overopt != "warn" and not self.held_out:
            raise ConfigError(
                f"--on-overopt {self.on_overopt} needs --held-out: a reward to see over-optimisation with"
            )
        if self.on_overopt != "warn" and not self.held_out_budget:
            raise ConfigError(f"--on-overopt {self.on_overopt} needs a --held-out-budget above 0: scores to decide by")
        if self.kl_target is not None and not self.beta:
            raise ConfigError("--kl-target moves beta by a share of itself, so --beta must be above 0 with it")

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_new_tokens, self.temperature)

    @property
    def clip_bounds(self) -> tuple[float, float]:
        """How far the probability ratio may fall below 1 and rise above it."""
        low = self.clip if self.clip is not None else 3e-4 if self.loss == "gspo" else 0.2
        return low, low if self.clip_high is None else self.clip_high

    def require_paths(self) -> OptimizeConfig:
        """Itself, once policy, prompts, reward and output are named. Raises ConfigError for the first that is missing."""
        for name in ("policy", "prompts", "reward", "output"):
            if not getattr(self, name):
                raise ConfigError(f"{flag(name)} is missing; give it as a flag or in the --config file")
        return self


def from_yaml(path: str | Path) -> OptimizeConfig:
    """A config from a YAML file whose keys are the field names (dashes allowed). Raises ConfigError, naming the key."""
    return options.from_yaml(OptimizeConfig, path)


def resolve(config: OptimizeConfig, parameters: int, device: str) -> OptimizeConfig:
    """The config with every default that depends on algorithm, size or device filled in."""
    config = replace(config, loss=config.loss or ("grpo" if config.algorithm == "grpo" else "ppo"))
    full = 1e-4 if parameters < 50e6 else 1e-5 if parameters < 200e6 else 3e-6
    return replace(
        config,
        learning_rate=config.learning_rate or (1e-4 if config.lora_rank else full),
        tokens_per_row=config.tokens_per_row or (16384 if device == "cuda" else 512),
        save_every=config.save_every or max(1, config.steps // 20),
        kl_in=config.kl_in or ("loss" if config.algorithm == "grpo" else "reward"),
        clip=config.clip_bounds[0],
    )


def learning_rate(config: OptimizeConfig, step: int) -> float:
    """Learning rate of `step` (from 1). Needs a resolved config."""
    peak, rise = config.learning_rate or 0.0, round(config.warmup * config.steps)
    if step <= rise:
        return peak * step / rise
    return peak if config.schedule == "constant" else peak * (1 - (step - 1 - rise) / max(1, config.steps - rise))
