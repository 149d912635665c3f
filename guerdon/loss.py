"""Ranking losses as pure tensor functions: one value per pair, in nats, nothing averaged, nothing logged.

Callers weight and sum. Adding one constant to all rewards of a prompt changes no ranking loss, only `centering`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    *,
    target: Tensor | None = None,
    margin: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood in nats that `chosen` beats `rejected`, (pair,) each -> (pair,).

    With d = chosen - rejected - margin and t = `target` (probability that chosen is better; None means 1, a tie is
    0.5):

        loss = -t * log sigmoid(d) - (1 - t) * log sigmoid(-d)

    `margin` (reward units) asks for a gap in proportion to how much better the rater found the chosen answer; it is
    applied to decided pairs only, since a tie has no direction. `smoothing` e in [0, 0.5) replaces t by t(1 - e) + (1 -
    t)e: labels are taken to be flipped with probability e, which bounds the reward gap at log((1 - e) / e).

    Source: Bradley-Terry loss, Ouyang et al. 2022 (arXiv 2203.02155) eq. 1; margin, Touvron et al. 2023 (arXiv
    2307.09288) eq. 2; smoothing, the conservative loss of Mitchell 2023 ("A note on DPO with noisy preferences") on
    rewards. Raises ValueError if shapes differ or `smoothing` is out of range. NaN passes through: `fit` stops on it by
    name of row.
    """
    if chosen.shape != rejected.shape:
        raise ValueError(
            f"chosen has shape {tuple(chosen.shape)}, rejected {tuple(rejected.shape)}; they must be equal"
        )
    if not 0.0 <= smoothing < 0.5:
        raise ValueError(f"smoothing must be in [0, 0.5), got {smoothing}")
    t = torch.ones_like(chosen) if target is None else target
    if margin is not None and margin.shape != chosen.shape:
        raise ValueError(f"margin has shape {tuple(margin.shape)}, the pairs {tuple(chosen.shape)}; they must be equal")
    d = chosen - rejected
    if margin is not None:
        d = d - torch.where(t == 0.5, torch.zeros_like(margin), margin)
    t = t * (1 - smoothing) + (1 - t) * smoothing
    return -(t * F.logsigmoid(d) + (1 - t) * F.logsigmoid(-d))


def centering(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(chosen + rejected)^2 per pair: pulls rewards towards mean zero without changing which answer wins.

    Source: Eisenstein et al. 2023 (arXiv 2312.09244), section on identifiability; TRL calls it
    `center_rewards_coefficient`.
    """
    return (chosen + rejected) ** 2
