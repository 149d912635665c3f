"""A tiny causal language model with its tokenizer on disk, for tests that need a policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from policy_runs import write_prompts
from tiny_models import tiny_config
from transformers import AutoModelForCausalLM

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def tiny_policy(
    folder: Path, make_tokenizer: Callable[..., Any], name: str = "qwen3", seed: int = 1, **changes: Any
) -> Path:
    """Write a causal language model of a few thousand weights into a folder."""
    tokenizer = make_tokenizer(**NAMES)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = tiny_config(name, len(tokenizer))
        config.update(changes)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_world(folder: Path, make_tokenizer: Callable[..., Any]) -> Path:
    """A folder with `base`, a tiny policy, and `prompts.jsonl`."""
    tiny_policy(folder / "base", make_tokenizer)
    write_prompts(folder / "prompts.jsonl")
    return folder
