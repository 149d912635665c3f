"""The Kullback-Leibler divergence of policy and reference: estimators for reading and for training, and who sets beta.

With l = log pi(token) - log pi_ref(token) on tokens drawn from pi, and r = exp(-l) (Schulman 2020, "Approximating KL
divergence"):

    k1 = l            unbiased, may be negative
    k2 = l^2 / 2      biased as a value; its gradient on tokens of pi is that of KL(pi || pi_ref)
    k3 = r - 1 + l    unbiased, never negative

Every one is per token; summed over a completion it is in nats per sequence. What is reported is always k1 and k3 per
sequence and per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


def kl_value(log_ratio: Tensor, estimator: Estimator) -> Tensor:
    """The estimator of each token, nats, as a number to read or to put into the reward; shape as `log_ratio`."""
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio**2
    return torch.expm1(-log_ratio) + log_ratio


def kl_loss(logprob: Tensor, behaviour: Tensor, reference: Tensor, estimator: Estimator) -> Tensor:
    """A loss per token whose expected gradient is that of KL(pi || pi_ref) at the token's state.

    logprob    under the policy, with gradient
    behaviour  under the policy that drew the tokens
    reference  under the frozen reference

    k1 and k3 carry the importance weight pi / pi_behaviour, gradient included: without it the gradient of k1 is zero in
    expectation and that of k3 is that of the forward divergence. k2 needs none on the policy's own tokens; away from them
    its weight is held constant. The divergence of later states through earlier tokens is not in a loss; it is where KL
    is part of the reward.
    """
    weight = torch.exp(logprob - behaviour)
    if estimator == "k2":
        return weight.detach() * kl_value(logprob - reference, "k2")
    return weight * kl_value(logprob - reference, estimator)


@dataclass(frozen=True)
class Controller:
    """Who sets beta, the price of one nat.

    `target` None keeps beta fixed. Else beta moves after every step so that KL approaches the target (Ziegler et al. 2019,
    arXiv 1909.08593, section 2.2): beta <- beta (1 + gain clip(KL / target - 1, -0.2, 0.2)), KL and target in nats per
    *sequence*; `gain` is 0.1 in the paper.
    """

    beta: float
    target: float | None = None
    gain: float = 0.1

    def update(self, kl: float) -> float:
        """The next beta, given the KL of the step in nats per sequence."""
        if self.target is None:
            return self.beta
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return self.beta * (1 + self.gain * error)
