"""Rewards for verl: a reward manager that sees the whole prompt, and custom reward functions of verl's own shape.

verl has no way to leave a sample out: every sample enters the advantages with a number, and NaN would spoil its group.
So a sample that could not be scored stops the run with its reason (`failed="raise"`), unless a number is named that it
shall count as; such samples have `guerdon_scored` 0 in verl's extra info. Read in and tested with verl 0.9.1. The only
imports of verl are inside functions, so that this module can be read anywhere.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from guerdon.adapters.source import Queue, Rewards, conversation_of, scorer_of
from guerdon.optimize.rewards import Masked, WeightedSum, parts_of
from guerdon.types import ConfigError, Conversation, Score, ScoringError

Failed = float | Literal["raise"]
PROMPT_KEYS = ("prompt", "question")  # of extra_info, in this order


class RewardManager:
    """verl's reward manager (`RewardManagerBase` shape): scores `raw_prompt` and the decoded response as one conversation.

    Its options stand in verl's config under `reward.reward_kwargs.guerdon`: `reward` (one part or a list of them, as behind
    `--reward`), and optionally `failed`, `masked`, `rule` and `device`. Every sample has the same keys of extra info, as
    verl demands: `guerdon_reward` and each part, NaN where it has none, and `guerdon_scored`, 1 or 0.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, *_: Any, **__: Any) -> None:
        self.tokenizer = tokenizer
        options = dict((config.reward.get("reward_kwargs") or {}).get("guerdon") or {})
        if "reward" not in options:
            raise ConfigError(
                "verl's config names no reward; add +reward.reward_kwargs.guerdon.reward=runs/hh/model to the command"
            )
        reward = options.pop("reward")
        self.failed = _failed(options.pop("failed", "raise"))
        self.queue = _queue(_key(reward), **options)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The reward of the last sequence of one sample. Raises ScoringError as `failed` says."""
        item = data[-1:][0]
        ids = item.batch["responses"]
        used = int(item.batch["attention_mask"][-ids.shape[-1] :].sum())
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(None, lambda: self.tokenizer.decode(ids[:used], skip_special_tokens=True))
        prompt = item.non_tensor_batch.get("raw_prompt")
        row = "the batch has no raw_prompt; set data.return_raw_chat=True" if prompt is None else _row(prompt, text)
        score = await asyncio.wrap_future(self.queue.submit(row))
        result = _result(score, self.queue, self.failed)
        return {"reward_score": result.pop("score"), "reward_extra_info": result}

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: list[float]) -> Any:
        """verl's own placement of the rewards at the last token of each response."""
        from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

        return RewardManagerBase.assemble_rm_scores(data, scores)


async def compute_score(
    data_source: str = "",
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward: Rewards,
    failed: Failed = "raise",
    masked: Masked = "mask",
    rule: str = "mean",
    device: str | None = None,
    **_: Any,
) -> dict[str, float]:
    """A custom reward function of verl; `reward` and what follows come from `reward_kwargs` in verl's config.

    verl hands over the answer alone, so the prompt (text or messages) must stand in the row's `extra_info` as `prompt` or
    `question`. Raises ScoringError as `failed` says.
    """
    queue = _queue(_key(reward), masked=masked, rule=rule, device=device)
    score = await asyncio.wrap_future(queue.submit(_given_row(extra_info, solution_str)))
    return _result(score, queue, _failed(failed))


def compute_score_sync(
    data_source: str = "",
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward: Rewards,
    failed: Failed = "raise",
    masked: Masked = "mask",
    rule: str = "mean",
    device: str | None = None,
    **_: Any,
) -> dict[str, float]:
    """The same for verl's managers that take no coroutine: `remote`, and those of `verl.workers.reward_manager`."""
    queue = _queue(_key(reward), masked=masked, rule=rule, device=device)
    score = queue.submit(_given_row(extra_info, solution_str)).result()
    return _result(score, queue, _failed(failed))


def _given_row(extra_info: Mapping[str, Any] | None, text: str) -> Conversation | str:
    prompt = next((extra_info[key] for key in PROMPT_KEYS if extra_info and key in extra_info), None)
    if prompt is None:
        return (
            f"extra_info holds no prompt; add it to the data as {' or '.join(PROMPT_KEYS)}, or use the reward manager"
        )
    return _row(prompt, text)


def _row(prompt: Any, text: str) -> Conversation | str:
    return conversation_of(prompt if isinstance(prompt, str) else list(prompt), text)


def _result(score: Score, queue: Queue, failed: Failed) -> dict[str, float]:
    """What verl keeps of a score, always under the same keys. Raises ScoringError for none, unless it shall count as a number."""
    is_scored = score.status == "ok"
    if not is_scored and failed == "raise":
        raise ScoringError(
            f"a sample could not be scored ({score.reason or score.status}), and verl cannot leave it out"
        )
    parts = parts_of(score)
    names = queue.scorer.scorers if isinstance(queue.scorer, WeightedSum) else ()
    return {
        "score": float(score) if is_scored else float(failed),
        "guerdon_reward": float(score),
        "guerdon_scored": float(is_scored),
        **{f"guerdon_{name}": float(parts.get(name, math.nan)) for name in names},
    }


def _failed(value: Any) -> Failed:
    if value == "raise":
        return "raise"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(
            f"failed={value}: write raise, or the finite number that a sample without a reward shall count as"
        )
    return number


def _key(reward: Rewards) -> Any:
    """Spelled rewards as a text that can be looked up: verl gives the same list anew with every call."""
    if isinstance(reward, str):
        return json.dumps([reward])
    return json.dumps([str(part) for part in reward]) if isinstance(reward, Sequence) else reward


@cache
def _queue(reward: Any, **options: Any) -> Queue:
    """One scorer and one queue per process, however many managers and calls there are."""
    return Queue(scorer_of(json.loads(reward) if isinstance(reward, str) else reward, **options))
