"""A reward for OpenRLHF's `--reward.remote_url FILE.py`: rewards for texts of prompt and answer.

    from guerdon.adapters.openrlhf import reward_function
    reward_func = reward_function("runs/hh/model", tokenizer="Qwen/Qwen3-0.6B")

OpenRLHF has no way to leave a sample out, and it logs and swallows whatever a reward function raises: the sample is left
without a reward, and the run ends when its samples are put together. `failed` names a number instead, where that is wanted.
Read in and tested with OpenRLHF 0.11.2.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoTokenizer

from guerdon.adapters.chat_text import ChatText
from guerdon.adapters.source import Queue, Rewards, conversation_of, scorer_of
from guerdon.optimize.rewards import Masked, parts_of
from guerdon.types import ConfigError, Conversation, ScoringError

RewardFunction = Callable[..., dict[str, Any]]


def reward_function(
    reward: Rewards,
    tokenizer: Any,
    *,
    failed: float | None = None,
    filter_score: Callable[[float], float] | None = None,
    masked: Masked = "mask",
    rule: str = "mean",
    device: str | None = None,
) -> RewardFunction:
    """`reward_func(queries, prompts, labels, **kw)`, returning `rewards`, `scores` and `extra_logs`, float32 tensors (n,).

    reward        a scorer, or one part or several as behind `--reward`
    tokenizer     of the policy, or its folder or hub id: prompts are read back by its chat template, and its special
                  tokens are removed from the end of the answers
    failed        what a sample that could not be scored counts as; None: ScoringError
    filter_score  from a reward to the score in [0, 1] that OpenRLHF's dynamic filtering compares; default: the reward itself
    """
    if failed is not None and not math.isfinite(failed):
        raise ConfigError(f"failed={failed}: write the finite number that a sample without a reward shall count as")
    queue = Queue(scorer_of(reward, masked=masked, rule=rule, device=device))
    chat = ChatText(AutoTokenizer.from_pretrained(tokenizer) if isinstance(tokenizer, str) else tokenizer)

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Any = None, **_: Any) -> dict[str, Any]:
        rows = [_row(chat, query, prompt) for query, prompt in zip(queries, prompts, strict=True)]
        scores = [future.result() for future in [queue.submit(row) for row in rows]]
        if failed is None and (lost := [score for score in scores if score.status != "ok"]):
            reason = f"{len(lost)} of {len(scores)} samples could not be scored ({lost[0].reason or lost[0].status})"
            logging.getLogger("guerdon.openrlhf").error(reason)
            raise ScoringError(f"{reason}, and OpenRLHF cannot leave them out")
        lost_value = math.nan if failed is None else float(failed)
        values = [float(score) if score.status == "ok" else lost_value for score in scores]
        logs = {"guerdon_scored": [float(score.status == "ok") for score in scores]}
        for part in {name: None for score in scores for name in parts_of(score)}:
            logs[f"guerdon_{part}"] = [float(parts_of(score).get(part, math.nan)) for score in scores]
        return {
            "rewards": torch.tensor(values, dtype=torch.float32),
            "scores": torch.tensor([filter_score(v) for v in values] if filter_score else values, dtype=torch.float32),
            "extra_logs": {name: torch.tensor(column, dtype=torch.float32) for name, column in logs.items()},
        }

    return reward_func


def _row(chat: ChatText, query: str, prompt: str) -> Conversation | str:
    """The conversation in a query, or why there is none."""
    answer, messages = chat.answer(query, prompt), chat.prompt(prompt)
    if answer is None:
        return "the query does not start with its prompt"
    return messages if isinstance(messages, str) else conversation_of(messages, answer)
