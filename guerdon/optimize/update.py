"""From a rollout to new weights: advantages, and the passes over the rollout that follow."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.kl import kl_loss, kl_value
from guerdon.optimize.layout import Group, TokenRow
from guerdon.optimize.objective import (
    Clip,
    Weighting,
    clipped_loss,
    gae,
    group_relative,
    leave_one_out,
    sequence_log_ratio,
    token_weights,
    value_loss,
    whiten,
)
from guerdon.optimize.policy import Policy
from guerdon.optimize.rollout import Rollout
from guerdon.optimize.value import ValueModel
from guerdon.types import TrainingError

WEIGHTING: dict[str, Weighting] = {
    "ppo": "token", "grpo": "sequence", "dr-grpo": "constant", "dapo": "token", "gspo": "sequence"
}  # fmt: skip
# What a minibatch is summed up by, each a sum over tokens times their weight; and what an update says beside their means.
STATISTICS = ("policy_loss", "kl_loss", "value_loss", "clip_fraction", "value_clip_fraction", "ratio_kl", "entropy")
MEASURED = (*STATISTICS, "loss", "grad_norm", "explained_variance")


class Learner(nn.Module):
    """All that is trained: the policy, and PPO's value model."""

    def __init__(self, policy: Policy, value: ValueModel | None) -> None:
        super().__init__()
        self.policy = policy
        self.value = value

    def forward(self, row: TokenRow, temperature: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probability, entropy and value of each completion token of a row, (t,) each."""
        scores = self.policy(row, temperature)
        return scores.logprob, scores.entropy, self.value(row) if self.value is not None else None


@dataclass(frozen=True)
class Targets:
    """What the update aims at, (n, T) each: advantages, log-probabilities of behaviour and reference; PPO's values, returns.

    `used` (n,) is False for samples without a reward.
    """

    used: Tensor
    advantages: Tensor
    behaviour: Tensor
    reference: Tensor
    values: Tensor | None
    returns: Tensor | None


def make_targets(
    rollout: Rollout,
    rewards: Tensor,
    reference: Tensor,
    values: Tensor | None,
    beta: float,
    config: OptimizeConfig,
    total: Callable[[Tensor], Tensor],
) -> Targets:
    """Advantages of every token by the algorithm of the config.

    rewards    (n,), NaN where a sample has none: it is then in no baseline and in no loss
    reference  (n, T) log-probabilities under the reference, nats
    values     (n, T) of PPO's value model
    """
    used = rewards.isfinite()
    mask = rollout.mask & used[:, None]
    price = (
        beta * kl_value(rollout.behaviour - reference, "k1") if config.kl_in == "reward" else torch.zeros(mask.shape)
    )
    if values is None:
        worth = rewards - (price * mask).sum(1)
        if config.algorithm == "rloo":
            each = leave_one_out(worth, rollout.group)
        else:
            each = group_relative(worth, rollout.group, scale=config.loss != "dr-grpo")
        return Targets(used, each[:, None] * mask, rollout.behaviour, reference, None, None)
    worth = torch.where(mask, -price, 0.0)
    worth[torch.arange(len(worth)), rollout.lengths - 1] += rewards.nan_to_num(0.0)
    if config.whiten_rewards:
        worth = whiten(worth, mask, shift_mean=False, total=total)
    advantages, returns = gae(worth, values, mask, config.gamma, config.lam)
    return Targets(used, whiten(advantages, mask, total=total), rollout.behaviour, reference, values, returns)


def update(
    accelerator: Accelerator,
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    targets: Targets,
    beta: float,
    step: int,
    config: OptimizeConfig,
) -> dict[str, float]:
    """Take the optimizer steps of one rollout; returns their mean statistics. Raises TrainingError, the weights as they
    were before the step at fault, when loss or gradient are not finite.
    """
    policy: Policy = accelerator.unwrap_model(learner).policy
    every, groups = rollout.groups(), rollout.groups(targets.used)
    rng = random.Random(f"minibatches {config.seed} {step}")
    rows_seen: list[dict[str, float]] = []
    for _ in range(config.updates):
        order = rng.sample(range(len(groups)), len(groups))
        for part in range(config.minibatches):
            members = [groups[i] for i in order[part :: config.minibatches]]
            if not int(accelerator.reduce(torch.tensor([len(members)], device=accelerator.device), "sum")):
                continue  # no gradient, but the optimizer would still move on its momentum
            statistics = _accumulate(accelerator, learner, policy, members, every[:1], targets, beta, step, config)
            norm = float(accelerator.clip_grad_norm_(learner.parameters(), config.max_grad_norm or math.inf))
            loss = statistics[0] + statistics[1] + statistics[2]
            if not (math.isfinite(norm) and math.isfinite(loss)):
                raise TrainingError(
                    f"step {step}: the loss or its gradient is not finite (loss {loss:g}, gradient norm {norm:g}); lower "
                    "--learning-rate, set --reward-clip, or --precision fp32; go on from the last checkpoint with --resume"
                )
            optimizer.step()
            optimizer.zero_grad()
            rows_seen.append(dict(zip(STATISTICS, statistics, strict=True)) | {"loss": loss, "grad_norm": norm})
    found = {name: sum(row[name] for row in rows_seen) / len(rows_seen) for name in rows_seen[0]}
    return found | {"explained_variance": _explained(accelerator, rollout, targets)}


def _explained(accelerator: Accelerator, rollout: Rollout, targets: Targets) -> float:
    """1 - Var(return - value) / Var(return) over the tokens of all processes; NaN without a value model."""
    if targets.values is None or targets.returns is None:
        return math.nan
    mask = rollout.mask & targets.used[:, None]
    returns, error = targets.returns[mask].double(), (targets.returns - targets.values)[mask].double()
    sums = torch.stack([torch.ones_like(returns), returns, returns**2, error, error**2]).sum(1)
    n, first, second, off, square = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
    spread = second / n - (first / n) ** 2
    return 1 - (square / n - (off / n) ** 2) / spread if spread > 0 else math.nan


def _accumulate(
    accelerator: Accelerator,
    learner: nn.Module,
    policy: Policy,
    members: Sequence[Group],
    spare: Sequence[Group],
    targets: Targets,
    beta: float,
    step: int,
    config: OptimizeConfig,
) -> list[float]:
    """The gradient of one minibatch, rows of all processes together; returns its statistics.

    A process with fewer rows runs one again at weight 0, so that all meet in the same number of collective operations.
    """
    device, world = accelerator.device, accelerator.num_processes
    samples = torch.tensor([s for group in members for s in group.samples], dtype=torch.long)
    lengths = torch.tensor([len(c) for group in members for c in group.completions], dtype=torch.float32)

    def total(sums: Tensor) -> Tensor:
        return accelerator.reduce(sums.to(device), "sum").cpu()  # type: ignore[no-any-return]

    how = WEIGHTING[config.loss or "ppo"]
    weights, shares = torch.zeros(2, len(targets.used))
    weights[samples] = token_weights(lengths, how, config.max_new_tokens, total)
    shares[samples] = token_weights(lengths, "token" if how == "constant" else how, config.max_new_tokens, total)
    rows = policy.rows(members or spare, config.tokens_per_row or 512)
    turns = len(rows) if world == 1 else int(accelerator.gather(torch.tensor([len(rows)], device=device)).max())
    sums = torch.zeros(len(STATISTICS))
    for turn in range(turns):
        row = rows[turn if turn < len(rows) else 0]
        weight, share = (each[row.sample].to(device) * (turn < len(rows)) for each in (weights, shares))
        with contextlib.nullcontext() if turn + 1 == turns else accelerator.no_sync(learner):
            loss, statistics = _row_loss(learner, row.to(device), weight, share, targets, beta, step, config)
            accelerator.backward(loss * world)  # gradients are averaged over processes
        sums += statistics.cpu()
    return total(sums).tolist()


def _row_loss(
    learner: nn.Module,
    row: TokenRow,
    weight: Tensor,
    share: Tensor,
    targets: Targets,
    beta: float,
    step: int,
    config: OptimizeConfig,
) -> tuple[Tensor, Tensor]:
    """Weighted loss of the tokens of one row, and its statistics in the order of `STATISTICS`.

    weight, share  (t,) what a token counts in the loss, and in a mean: the latter sum to 1 over the minibatch
    """

    def pick(values: Tensor) -> Tensor:
        return values[row.sample.cpu(), row.place.cpu()].to(weight.device)

    logprob, entropy, values = learner(row, config.temperature)
    behaviour, reference = pick(targets.behaviour), pick(targets.reference)
    log_ratio = logprob - behaviour
    if config.loss == "gspo":
        log_ratio = sequence_log_ratio(log_ratio, row.sample)
    each, clipped = clipped_loss(log_ratio, pick(targets.advantages), Clip(*config.clip_bounds))
    moves = weight * (step > config.value_warmup or values is None)  # 0 while the value model trains alone
    policy_loss = (moves * each).sum()
    loss, nothing = policy_loss, policy_loss.new_zeros(())
    kl, error, held = nothing, nothing, nothing
    if config.kl_in == "loss" and beta:
        kl = beta * (moves * kl_loss(logprob, behaviour, reference, config.kl_estimator)).sum()
        loss = loss + kl
    if values is not None and targets.values is not None and targets.returns is not None:
        errors, bounded = value_loss(values, pick(targets.values), pick(targets.returns), config.value_clip)
        error, held = config.value_weight * (weight * errors).sum(), (share * bounded).sum()
        loss = loss + error
    with torch.no_grad():
        moved = kl_value(behaviour - logprob.detach(), "k3")  # the tokens are those of the policy that sampled
        found = [policy_loss, kl, error, (share * clipped).sum(), held, (share * moved).sum(), (share * entropy).sum()]
    return loss, torch.stack([value.detach().float() for value in found])
