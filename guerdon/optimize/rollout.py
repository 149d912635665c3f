"""One rollout as tensors: what was sampled, what it was worth, and how far it is from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.generate import Sample
from guerdon.optimize.layout import Group
from guerdon.types import Conversation, Score


@dataclass(frozen=True)
class Rollout:
    """`n` samples in groups of one prompt; T is the longest completion.

    prompts       conversation of each sample
    samples       what was drawn
    group         (n,) number of the prompt of each sample
    mask          (n, T) True on completion tokens
    behaviour     (n, T) log-probabilities under the policy that drew them, nats; 0 outside the mask
    """

    prompts: list[Conversation]
    samples: list[Sample]
    group: Tensor
    mask: Tensor
    behaviour: Tensor

    @classmethod
    def build(cls, prompts: Sequence[Conversation], drawn: Sequence[Sequence[Sample]]) -> Rollout:
        """From the samples of each prompt."""
        samples = [sample for group in drawn for sample in group]
        numbers = [i for i, group in enumerate(drawn) for _ in group]
        lengths = torch.tensor([len(sample.ids) for sample in samples])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        behaviour = scatter(mask, torch.tensor([value for sample in samples for value in sample.logprobs]))
        return cls([prompts[i] for i in numbers], samples, torch.tensor(numbers), mask, behaviour)

    @property
    def lengths(self) -> Tensor:
        """(n,) tokens of each completion."""
        return self.mask.sum(1)

    @property
    def finished(self) -> Tensor:
        """(n,) True where the completion ended by itself."""
        return torch.tensor([sample.finished for sample in self.samples])

    def conversations(self) -> list[Conversation]:
        """Prompt and answer of each sample, as the reward reads them."""
        return [
            (*prompt, {"role": "assistant", "content": sample.text})
            for prompt, sample in zip(self.prompts, self.samples, strict=True)
        ]

    def groups(self, chosen: Tensor | None = None) -> list[Group]:
        """Samples by prompt, all of them or those of `chosen` (n,) bool."""
        members: dict[int, list[int]] = {}
        for i, number in enumerate(self.group.tolist()):
            if chosen is None or bool(chosen[i]):
                members.setdefault(number, []).append(i)
        return [
            Group(self.samples[indices[0]].prompt, tuple(self.samples[i].ids for i in indices), tuple(indices))
            for indices in members.values()
        ]

    def gather(self, values: dict[int, Tensor]) -> Tensor:
        """(n, T) from the token values of each sample; 0 for samples and places without."""
        found = torch.zeros(self.mask.shape)
        for sample, row in values.items():
            found[sample, : len(row)] = row
        return found


def scatter(mask: Tensor, values: Tensor) -> Tensor:
    """(n, T) with `values`, one for each True of the mask in order; 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype).masked_scatter(mask, values)


def shaped_rewards(
    scores: Sequence[Score], rollout: Rollout, config: OptimizeConfig, shift: float, scale: float
) -> Tensor:
    """(n,) what each sample is worth to the optimiser, NaN where it has no reward: (score - shift) / scale, clipped, less the
    penalty for a missing end.
    """
    rewards = torch.tensor([float(score) for score in scores], dtype=torch.float32)
    rewards = (rewards - shift) / scale
    if config.reward_clip is not None:
        rewards = rewards.clamp(-config.reward_clip, config.reward_clip)
    if config.missing_eos_penalty is not None:
        rewards = rewards - config.missing_eos_penalty * (~rollout.finished).float()
    return rewards
