"""What a run will do, decided before it starts: the steps in order, the learning rate of each, and the defaults by
size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from guerdon.train.config import TrainConfig
from guerdon.train.examples import Example, batches


@dataclass(frozen=True)
class Plan:
    """`order[s - 1]` holds the examples of step s; `per_epoch` steps make one pass over the data."""

    order: list[list[int]]
    per_epoch: int
    log_every: int
    eval_every: int
    save_every: int

    @property
    def steps(self) -> int:
        return len(self.order)

    def remaining(self, done: int) -> Iterator[tuple[int, list[int]]]:
        """(step, examples) after the `done` first steps; steps count from 1."""
        yield from enumerate(self.order[done:], done + 1)


def make_plan(config: TrainConfig, examples: Sequence[Example]) -> Plan:
    """All steps of a run. It depends on the config and the data alone, so a resumed run has the same plan."""
    order = batches(examples, config.batch_size, config.seed, epoch=0)
    per_epoch = len(order)
    wanted = max(1, round(config.epochs * per_epoch))
    if config.max_steps:
        wanted = min(wanted, config.max_steps)
    epoch = 0
    while len(order) < wanted:
        epoch += 1
        order += batches(examples, config.batch_size, config.seed, epoch)
    eval_every = config.eval_every or -(-wanted // 10)
    return Plan(order[:wanted], per_epoch, max(1, min(10, wanted // 50)), eval_every, config.save_every or eval_every)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Learning rate of `step` (from 1): a linear rise over the warm-up, then the schedule's way down.

    `cosine` ends at a tenth of the peak (Ouyang et al. 2022, appendix C.2), `linear` at 0. Needs a resolved config.
    """
    peak = config.learning_rate or 0.0
    rise = round(config.warmup * steps)
    if step <= rise:
        return peak * step / rise
    done = (step - 1 - rise) / max(1, steps - rise)
    if config.schedule == "cosine":
        return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
    return peak * (1 - done) if config.schedule == "linear" else peak


def resolve(config: TrainConfig, parameters: int, device: str) -> TrainConfig:
    """The config with every size-dependent default filled in. `parameters` counts the backbone's weights."""
    full = 1e-4 if parameters < 50e6 else 5e-5 if parameters < 200e6 else 2e-5 if parameters < 1.5e9 else 9e-6
    return replace(
        config,
        learning_rate=config.learning_rate or (1e-4 if config.lora else full),
        tokens_per_row=config.tokens_per_row or (16384 if device == "cuda" else 512),
    )
