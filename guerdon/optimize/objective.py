"""Advantages and policy losses as plain functions: nothing is sampled, nothing is logged.

Advantages work on the padded matrix of a batch: (n, T) values with a boolean mask of the completion tokens. Losses work on
the tokens of a row, one after another: (t,) values with the number of the sample each belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Weighting = Literal["sequence", "token", "constant"]
Reduce = Callable[[Tensor], Tensor]


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns, (n, T) each, 0 outside the mask.

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lam A_{t+1}        R_t = A_t + V_t

    `rewards` and `values` are (n, T); V_t is the value before token t, and the value after the last token is 0, because an
    answer ends there, cut or not. Source: Schulman et al. 2015 (arXiv 1506.02438) eq. 16.
    """
    advantages = torch.zeros_like(rewards)
    carry = next_value = rewards.new_zeros(len(rewards))
    for t in range(rewards.shape[1] - 1, -1, -1):
        inside = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        carry = torch.where(inside, delta + gamma * lam * carry, torch.zeros_like(carry))
        advantages[:, t] = carry
        next_value = torch.where(inside, values[:, t], torch.zeros_like(next_value))
    return advantages, torch.where(mask, advantages + values, torch.zeros_like(values))


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True, total: Reduce = lambda sums: sums) -> Tensor:
    """Values with mean 0 and variance 1 over the mask (all tokens count alike); 0 outside. The mean is kept on request.

    `total` adds sums up over the processes of a run, so that all are whitened alike.
    """
    inside = values[mask].double()
    count, mean = total(torch.stack([torch.ones_like(inside).sum(), inside.sum()]))
    mean = mean / count.clamp_min(1)
    variance = total(((inside - mean) ** 2).sum()[None])[0] / count.clamp_min(1)
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(mask, white if shift_mean else white + mean, 0.0).to(values.dtype)


def leave_one_out(rewards: Tensor, group: Tensor) -> Tensor:
    """RLOO: each reward less the mean of the others of its group, (n,). NaN rewards (masked) are in no mean and get 0.

    A sample that is alone in its group has no baseline and gets 0. Source: Ahmadian et al. 2024 (arXiv 2402.14740) eq. 7.
    """
    count, total = _sums(rewards, group)
    others = (total - rewards) / (count - 1).clamp_min(1)
    return torch.where(rewards.isfinite() & (count > 1), rewards - others, 0.0).nan_to_num(0.0)


def group_relative(rewards: Tensor, group: Tensor, scale: bool = True, eps: float = 1e-4) -> Tensor:
    """GRPO: (reward - mean of the group) / (standard deviation of the group + eps), (n,); masked (NaN) rewards get 0.

    Without `scale` the deviation is left out, as in Dr. GRPO (Liu et al. 2025, arXiv 2503.20783). Source: Shao et al. 2024
    (arXiv 2402.03300) section 4.1; the deviation is the sample's (n - 1), as in TRL.
    """
    count, total = _sums(rewards, group)
    centred = rewards - total / count.clamp_min(1)
    if scale:
        _, squares = _sums(centred**2, group)
        centred = centred / ((squares / (count - 1).clamp_min(1)).sqrt() + eps)
    return torch.where(count > 1, centred, 0.0).nan_to_num(0.0)


def _sums(rewards: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """For each sample, how many of its group have a reward, and their sum."""
    known = rewards.isfinite()
    size = int(group.max()) + 1
    count = rewards.new_zeros(size).index_add(0, group, known.to(rewards.dtype))
    total = rewards.new_zeros(size).index_add(0, group, torch.where(known, rewards, 0.0))
    return count[group], total[group]


class Clip(NamedTuple):
    """Bounds of the probability ratio: 1 - low to 1 + high. DAPO's clip-higher is high > low (Yu et al. 2025, 2503.14476)."""

    low: float = 0.2
    high: float = 0.2


def clipped_loss(log_ratio: Tensor, advantages: Tensor, clip: Clip) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate of each token, (t,), and whether clipping decided it.

    -min(ratio A, clip(ratio) A), with `log_ratio` = log pi - log pi_behaviour. Source: Schulman et al. 2017 (arXiv
    1707.06347) eq. 7.
    """
    ratio = log_ratio.exp()
    free = -ratio * advantages
    bound = -ratio.clamp(1 - clip.low, 1 + clip.high) * advantages
    return torch.maximum(free, bound), bound > free


def sequence_log_ratio(log_ratio: Tensor, sample: Tensor) -> Tensor:
    """GSPO: each token's ratio replaced by the geometric mean over its completion, (t,) -> (t,).

    s = (pi(y) / pi_behaviour(y))^(1/|y|). The gradient reaches a token through its own log-probability alone, as in the
    token form of the paper: the value is the sequence's, the derivative the token's. Source: Zheng et al. 2025 (arXiv
    2507.18071) eq. 7 and 14.
    """
    _, number, count = torch.unique_consecutive(sample, return_inverse=True, return_counts=True)
    sums = log_ratio.detach().new_zeros(len(count)).index_add(0, number, log_ratio.detach())
    mean: Tensor = (sums / count)[number]
    return mean + log_ratio - log_ratio.detach()


def token_weights(lengths: Tensor, how: Weighting, max_new_tokens: int, total: Reduce = lambda sums: sums) -> Tensor:
    """What one token of each sample weighs in the loss, (n,), so that the weighted sum over a batch is its loss.

    sequence  1 / (n |y|): mean over tokens, then over completions (GRPO)
    token     1 / sum |y|: every token of the batch alike (DAPO, and PPO's masked mean)
    constant  1 / (n max_new_tokens): a sum over tokens, so that length changes no token's weight (Dr. GRPO)

    `total` adds n and sum |y| up over the processes of a run.
    """
    lengths = lengths.float()
    n, tokens = total(torch.stack([torch.ones_like(lengths).sum(), lengths.sum()]))
    share = {
        "sequence": lengths * n,
        "token": tokens.expand_as(lengths),
        "constant": (n * max_new_tokens).expand_as(lengths),
    }
    weights: Tensor = 1 / share[how]
    return weights


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Half the squared error of each token's value, (t,), and whether clipping decided it.

    The larger of the error and that of the value held within `clip` of the old one (0: no bound; Huang et al. 2024,
    arXiv 2403.17031, detail on value clipping).
    """
    near = old + (values - old).clamp(-clip, clip) if clip else values
    free, bound = (values - returns) ** 2, (near - returns) ** 2
    return 0.5 * torch.maximum(free, bound), bound > free
