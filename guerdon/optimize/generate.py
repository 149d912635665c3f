"""Sampling from a policy: prompts of similar length together, each prompt read once, finished answers leaving the batch.

A prompt is computed once and its cache copied for its n completions; once half of the rows have ended, the cache is cut
down to the others. Sampling is by Gumbel noise from a generator of the caller's, so a run can be repeated and resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from guerdon.model.tree import Ids
from guerdon.optimize.policy import Policy, evaluating
from guerdon.types import ConfigError, DataError


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    max_new_tokens  longest completion, tokens; a longer one is cut and has no end-of-sequence token
    temperature     divides the logits; 0 takes the most probable token
    top_p           only the most probable tokens that hold this share are drawn (1: all)
    rows            answers drawn side by side, the dial between memory and speed
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    rows: int = 128

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.rows < 1:
            raise ConfigError("max_new_tokens and rows must be at least 1")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"temperature must be 0 or more and top_p in (0, 1], got {self.temperature} and {self.top_p}"
            )


@dataclass(frozen=True)
class Sample:
    """One completion: its ids (end-of-sequence token included when `finished`), their log-probabilities in nats under the
    policy at the sampling temperature (over all tokens, whatever top_p), its text, and the ids of its prompt.
    """

    prompt: Ids
    ids: Ids
    logprobs: tuple[float, ...]
    text: str
    finished: bool


def generate(
    policy: Policy,
    prompts: Sequence[Ids],
    n: int,
    sampling: Sampling,
    generator: torch.Generator,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[Sample]]:
    """`n` completions of each prompt, in the order of the prompts. `advance` is told how many answers were finished.

    Raises DataError when a prompt leaves less room in the policy's context than an answer may take.
    """
    room, longest = room_for_prompt(policy, sampling), max(map(len, prompts), default=0)
    if room is not None and longest > room:
        raise DataError(
            f"a prompt of {longest} tokens and {sampling.max_new_tokens} of an answer are more than the policy's context of "
            f"{policy.context}; lower --max-new-tokens, or --max-length to {max(room, 0)}"
        )
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    per_batch = max(1, sampling.rows // n)
    found: list[list[Sample]] = [[] for _ in prompts]
    with evaluating(policy), torch.inference_mode():
        for start in range(0, len(order), per_batch):
            batch = order[start : start + per_batch]
            drawn = _decode(policy, [prompts[i] for i in batch], n, sampling, generator)
            for place, i in enumerate(batch):
                found[i] = drawn[place * n : (place + 1) * n]
            advance(len(drawn))
    return found


def room_for_prompt(policy: Policy, sampling: Sampling) -> int | None:
    """The longest prompt, tokens, behind which the longest answer still fits the policy's context; None: no limit."""
    return None if policy.context is None else policy.context - sampling.max_new_tokens


def _decode(
    policy: Policy, prompts: Sequence[Ids], n: int, sampling: Sampling, generator: torch.Generator
) -> list[Sample]:
    """Completions of one batch, n in a row for each prompt."""
    device, rows = policy.device, len(prompts) * n
    ends = torch.tensor(policy.end_ids, device=device)
    logits, cache, mask = _read(policy, prompts, n)
    position = mask.sum(1)
    alive = torch.arange(rows, device=device)  # which completion each row of the cache is
    going = torch.ones(rows, dtype=torch.bool, device=device)
    tokens = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(rows, sampling.max_new_tokens, device=device)
    lengths = torch.full((rows,), sampling.max_new_tokens, device=device)
    for step in range(sampling.max_new_tokens):
        token, logprob = _draw(logits, sampling, generator)
        tokens[alive, step], logprobs[alive, step] = token, logprob
        ended = going & torch.isin(token, ends)
        lengths[alive[ended]] = step + 1
        going = going & ~ended
        left = int(going.sum())
        if not left or step + 1 == sampling.max_new_tokens:
            break
        if left <= len(going) // 2:
            keep = going.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            alive, going, mask, position, token = alive[keep], going[keep], mask[keep], position[keep], token[keep]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = policy.net(
            input_ids=token[:, None], attention_mask=mask, position_ids=position[:, None], past_key_values=cache, use_cache=True
        ).logits[:, -1]  # fmt: skip
        position = position + 1
    end_ids = set(policy.end_ids)
    samples = []
    for row, (ids, values, length) in enumerate(zip(tokens.tolist(), logprobs.tolist(), lengths.tolist(), strict=True)):
        kept = tuple(ids[:length])
        finished = kept[-1] in end_ids
        samples.append(Sample(prompts[row // n], kept, tuple(values[:length]), policy.decode(kept), finished))
    return samples


def _read(policy: Policy, prompts: Sequence[Ids], n: int) -> tuple[Tensor, Any, Tensor]:
    """Read the prompts once, padded on the left; returns next-token logits, cache and mask, repeated for n completions."""
    width = max(map(len, prompts))
    pad = policy.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=policy.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=policy.device)
    cache = DynamicCache(config=policy.net.config)
    logits = policy.net(
        input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0), past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]  # fmt: skip
    cache.batch_repeat_interleave(n)
    return logits.repeat_interleave(n, 0), cache, mask.repeat_interleave(n, 0)


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A token for each row, and its log-probability at the temperature, before top_p cuts."""
    logits = logits.float()
    if sampling.temperature == 0:
        logprobs = torch.log_softmax(logits, dim=-1)
        token = logprobs.argmax(-1)
    else:
        logprobs = torch.log_softmax(logits / sampling.temperature, dim=-1)
        open_to = logprobs if sampling.top_p == 1 else _nucleus(logprobs, sampling.top_p)
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device).clamp_(1e-20)
        token = (open_to - torch.log(-torch.log(uniform))).argmax(-1)
    return token, logprobs.gather(1, token[:, None])[:, 0]


def _nucleus(logprobs: Tensor, top_p: float) -> Tensor:
    """Log-probabilities with all but the smallest set of tokens that holds `top_p` set to -inf (Holtzman et al. 2020)."""
    ordered, index = logprobs.sort(dim=-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    return torch.full_like(logprobs, -torch.inf).scatter(1, index, ordered.masked_fill(before >= top_p, -torch.inf))
