"""Policies compared on the same prompts: what their answers are worth, how far they have moved, and the paired difference.

In: policies and prompts. Out: one value per prompt and reward, and means with intervals over prompts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from guerdon.evaluate.columns import Floats
from guerdon.evaluate.intervals import prompt_bootstrap
from guerdon.optimize.generate import Sample, Sampling, generate
from guerdon.optimize.layout import Group
from guerdon.optimize.policy import Policy
from guerdon.optimize.rewards import require_all
from guerdon.types import Conversation, Scorer


@dataclass(frozen=True, eq=False)
class Judged:
    """Answers of one policy.

    reward, held_out  (prompts,) mean over a prompt's scored answers; NaN where none has a score, or nobody asked
    kl                mean over answers of sum log pi / pi_start, nats per sequence (k1)
    tokens, words     mean length of an answer         finished  share of answers that ended by themselves
    masked            answers without a reward
    """

    reward: Floats
    held_out: Floats
    kl: float
    tokens: float
    words: float
    finished: float
    masked: int


@dataclass(frozen=True)
class Difference:
    """A mean paired difference over prompts with its 95 % interval (bootstrap over prompts); None where unknown."""

    mean: float | None
    low: float | None
    high: float | None
    prompts: int


def judge(
    policy: Policy,
    start: Policy,
    prompts: Sequence[Conversation],
    n: int,
    sampling: Sampling,
    reward: Scorer,
    held_out: Scorer | None,
    seed: int,
) -> Judged:
    """Sample `n` answers to each prompt and judge them. Policies judged with one seed share their sampling noise."""
    generator = torch.Generator(policy.device).manual_seed(random.Random(f"judge {seed}").getrandbits(60))
    drawn = generate(policy, policy.encode(prompts), n, sampling, generator)
    conversations: list[Conversation] = [
        (*prompt, {"role": "assistant", "content": sample.text})
        for prompt, group in zip(prompts, drawn, strict=True)
        for sample in group
    ]
    scores = _scores(reward, conversations, "the reward")
    checks = _scores(held_out, conversations, "the held-out reward")
    flat = [sample for group in drawn for sample in group]
    return Judged(
        _by_prompt(scores, len(prompts)),
        _by_prompt(checks, len(prompts)),
        0.0 if policy is start else _kl(start, drawn, sampling),
        float(np.mean([len(sample.ids) for sample in flat])),
        float(np.mean([len(sample.text.split()) for sample in flat])),
        float(np.mean([sample.finished for sample in flat])),
        int(np.isnan(scores).sum()),
    )


def facts(judged: Judged) -> dict[str, Any]:
    """Means over prompts, for a row of metrics.jsonl; null where nothing is known."""
    found = {"reward": _mean(judged.reward), "held_out": _mean(judged.held_out), "kl": judged.kl}
    return found | {
        "tokens": judged.tokens,
        "words": judged.words,
        "eos_rate": judged.finished,
        "eval_masked": judged.masked,
    }


def difference(first: Judged, second: Judged, name: str) -> Difference:
    """Mean of first - second over the prompts on which both are known; `name` is `reward` or `held_out`."""
    values = getattr(first, name) - getattr(second, name)
    values = values[np.isfinite(values)]
    if not len(values):
        return Difference(None, None, None, 0)
    low, high = prompt_bootstrap(values, np.arange(len(values), dtype=np.int64))
    known = [float(value) if math.isfinite(value) else None for value in (values.mean(), low, high)]
    return Difference(known[0], known[1], known[2], len(values))


def _scores(scorer: Scorer | None, conversations: Sequence[Conversation], what: str) -> Floats:
    """(answers,) NaN for what cannot be scored, and without a scorer."""
    if scorer is None:
        return np.full(len(conversations), math.nan)
    found = scorer.score(conversations)
    require_all(found, conversations, what)
    return np.array([float(score) for score in found], dtype=np.float64)


def _by_prompt(values: Floats, prompts: int) -> Floats:
    table = values.reshape(prompts, -1)
    known = np.isfinite(table)
    count = known.sum(1)
    sums = np.where(known, table, 0.0).sum(1)
    return np.where(count > 0, sums / np.maximum(count, 1), math.nan)


def _kl(start: Policy, drawn: Sequence[Sequence[Sample]], sampling: Sampling) -> float:
    groups, number = [], 0
    for group in drawn:
        groups.append(Group(group[0].prompt, tuple(s.ids for s in group), tuple(range(number, number + len(group)))))
        number += len(group)
    base = start.logprobs(groups, 16384 if start.device.type == "cuda" else 1024, sampling.temperature or 1.0)
    flat = [sample for group in drawn for sample in group]
    return float(np.mean([math.fsum(sample.logprobs) - float(base[i].double().sum()) for i, sample in enumerate(flat)]))


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
