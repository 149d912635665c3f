"""Where the policy was of late: the running mean of its weights.

The log-ratio of the policy to that mean, on answers drawn from the policy, points along the road it has just come. Its
covariance with held-out scores is the rate at which they change on that road (docs/monitor.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from guerdon.optimize.policy import Policy

SHARE = 1 / 8  # of the way to the policy that the mean goes at every step: it lags 7 steps behind on average


class Course:
    """The mean of the weights that train, the latest counting most: m <- m + (w - m) / 8 after every step."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._mean = {name: p.detach().clone() for name, p in policy.net.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def follow(self) -> None:
        """Take in the policy as it is now."""
        for name, weight in self._policy.net.named_parameters():
            if name in self._mean:
                self._mean[name].lerp_(weight, SHARE)

    @contextmanager
    def taken(self) -> Iterator[Policy]:
        """The policy with the mean in place of its weights, until the block ends. Nothing is copied."""
        self._swap()
        try:
            yield self._policy
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self._policy.net.named_parameters():
            if name in self._mean:
                weight.data, self._mean[name] = self._mean[name], weight.data

    def state_dict(self) -> dict[str, Any]:
        return dict(self._mean)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, mean in self._mean.items():
            mean.copy_(state[name])
