"""Every choice of a rejection-sampling run, in one frozen dataclass: the flags of `guerdon optimize rejection`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from guerdon.optimize.generate import Sampling
from guerdon.optimize.sft_config import require_ranges
from guerdon.types import ConfigError

_POSITIVE = (
    *(
        "rounds",
        "prompts_per_round",
        "samples",
        "eval_samples",
        "max_new_tokens",
        "temperature",
        "max_length",
        "epochs",
    ),
    *("batch_size", "learning_rate", "lora_rank", "tokens_per_row", "rows"),
)


@dataclass(frozen=True)
class RejectionConfig:
    """How to sample, keep what the reward picks, and fine-tune on it."""

    policy: str = ""
    """What to start from, a causal language model: folder or hub id."""
    prompts: tuple[str, ...] = ()
    """Files, folders or hub ids of prompts; of comparisons, their prompts."""
    reward: tuple[str, ...] = ()
    """What picks: a reward model's folder, a server's address, or NAME=SPEC:WEIGHT for each part of a sum (docs/rewards.md)."""
    held_out: tuple[str, ...] = ()
    """A reward that picks nothing and is reported: a second reward model, an ensemble, `lab-gold`. Spelt as `reward`."""
    output: str = ""
    """Run folder: config.yaml, metrics.jsonl, round-01/ ..., policy/, control/, run.json."""
    rounds: int = 1
    """How often to sample and fine-tune; each round samples from the policy of the round before."""
    prompts_per_round: int | None = None
    """Prompts of a round, drawn at random. Default: all."""
    samples: int = 8
    """Answers sampled for each prompt."""
    share: float | None = None
    """Keep this share of all samples of a round, those of the highest reward, whatever their prompts. Default: the best answer of
    each prompt."""
    min_reward: float | None = None
    """Keep nothing with a reward below this: 1 for a verifier keeps right answers alone."""
    keep_cut: bool = False
    """Keep also answers that were cut at max-new-tokens; they are then learnt as if they ended there. Blank ones never are."""
    control: bool = True
    """Fine-tune a second policy in the same way on as many answers picked at random: what fine-tuning does without the reward."""
    eval_prompts: tuple[str, ...] = ()
    """Prompts to compare the policies on. Without any, `eval-fraction` of the prompts is set aside."""
    eval_fraction: float = 0.2
    """Share of the prompts set aside when there are no eval-prompts."""
    eval_samples: int = 4
    """Answers to each of these prompts, from each policy."""
    max_new_tokens: int = 128
    """Longest answer, tokens."""
    temperature: float = 1.0
    """Sampling temperature."""
    top_p: float = 1.0
    """Sample from the most probable tokens that hold this share."""
    rows: int = 128
    """Answers drawn side by side."""
    max_length: int = 1024
    """Longest prompt and answer together, tokens; longer prompts are left out and counted."""
    epochs: float = 1.0
    """Passes over the kept answers in each round."""
    batch_size: int = 32
    """Answers per optimizer step."""
    learning_rate: float | None = None
    """Peak learning rate. Default: that of `guerdon optimize sft`."""
    lora_rank: int | None = None
    """Train a LoRA adapter of this rank; it is merged after each round."""
    tokens_per_row: int | None = None
    """Tokens per forward pass. Default: 1024 on CPU, 16384 on CUDA."""
    masked: Literal["mask", "renormalise", "error"] = "mask"
    """What becomes of an answer that a part of the reward could not score; without a reward it is never kept."""
    seed: int = 0
    """Seed of sampling, random choice and fine-tuning."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of fine-tuning. `auto`: bf16 where CUDA supports it, else fp32."""
    resume: bool = False
    """Go on where a run was cut short: what is finished is not done again."""

    def __post_init__(self) -> None:
        require_ranges(self, _POSITIVE, ())
        if self.share is not None and not 0 < self.share <= 1:
            raise ConfigError(f"--share must be in (0, 1], got {self.share}")
        if not 0 < self.eval_fraction < 1:
            raise ConfigError(f"--eval-fraction must be in (0, 1), got {self.eval_fraction}")
        if self.min_reward is not None and not math.isfinite(self.min_reward):
            raise ConfigError(f"--min-reward must be a finite number, got {self.min_reward}")

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, self.rows)
