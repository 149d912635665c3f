"""Which prompts a run uses, and in what order it asks them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from functools import lru_cache

from guerdon.data.rows import load_prompts
from guerdon.model.tree import Ids
from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.generate import room_for_prompt
from guerdon.optimize.policy import Policy
from guerdon.types import ConfigError, Conversation


def usable_prompts(
    config: OptimizeConfig, policy: Policy, say: Callable[[str], None]
) -> tuple[list[Conversation], list[Ids]]:
    """Prompts that fit, their longest answer included, and their ids. What is left out is counted and said."""
    prompts, room = load_prompts(config.prompts), room_for_prompt(policy, config.sampling)
    ids = policy.encode(prompts)
    is_tight = room is not None and room < config.max_length
    longest = room if is_tight and room is not None else config.max_length
    why = f" (the policy's context of {policy.context} less --max-new-tokens)" if is_tight else ""
    kept = [i for i, row in enumerate(ids) if len(row) <= longest]
    say(
        f"{len(kept)} prompts"
        + (f", {len(ids) - len(kept)} longer than {longest} tokens{why} left out" if len(kept) < len(ids) else "")
    )
    if len(kept) < config.prompts_per_step:
        raise ConfigError(
            f"{len(kept)} usable prompts are fewer than --prompts-per-step {config.prompts_per_step}; give more prompts"
        )
    return [prompts[i] for i in kept], [ids[i] for i in kept]


def digest(ids: Sequence[Ids]) -> str:
    """What tells one list of prompts from another."""
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def picked_prompts(config: OptimizeConfig, step: int, count: int) -> list[int]:
    """The prompts of a step: every prompt once in random order, then again in another."""
    first = (step - 1) * config.prompts_per_step
    picked = []
    for position in range(first, first + config.prompts_per_step):
        epoch, place = divmod(position, count)
        picked.append(_order(config.seed, epoch, count)[place])
    return picked


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    return random.Random(f"prompts {seed} {epoch}").sample(range(count), count)
