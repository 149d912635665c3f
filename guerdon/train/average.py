"""The mean of the weights along a run, kept beside the weights that are trained.

Late weights that scatter around a minimum have a mean closer to it than each of them, for one more copy and no further
training (Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Running mean of the trained parameters of `model`, in float32, by polynomial decay.

    After step t it is `mean_t = mean_(t-1) + (power + 1) / (t + power) * (weights_t - mean_(t-1))`: step i of t counts in
    proportion to about (i / t)^power, and it looks back on 1 / (power + 2) of the run in the mean, whatever the length of
    the run (Shamir and Zhang 2013, arXiv 1212.1824). Power 0 keeps no mean: `applied` is then the model as it is.
    """

    def __init__(self, model: nn.Module, power: float) -> None:
        self.power = power
        self.live = [p.detach() for p in model.parameters() if p.requires_grad] if power else []
        self.mean = [p.to(torch.float32, copy=True) for p in self.live]

    def update(self, step: int) -> None:
        """Take in the weights after `step`, which counts from 1."""
        if self.mean:
            share = (self.power + 1) / (step + self.power)
            torch._foreach_lerp_(self.mean, [p.float() for p in self.live], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the mean weights; afterwards the trained ones again, bit for bit."""
        trained = [p.clone() for p in self.live]
        self._write(self.mean)
        try:
            yield
        finally:
            self._write(trained)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mean, saved in zip(self.mean, state["mean"], strict=True):
            mean.copy_(saved)

    def _write(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.live, values, strict=True):
            parameter.copy_(value)
