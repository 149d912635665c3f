"""Advantages and losses against numbers worked out by hand, and against loops that do nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from guerdon.optimize.objective import (
    Clip,
    clipped_loss,
    gae,
    group_relative,
    leave_one_out,
    sequence_log_ratio,
    token_weights,
    value_loss,
    whiten,
)

NAN = math.nan


def test_gae_by_hand():
    """Three tokens, reward 1 at the end, values 0.5, 0.2, 0.6; gamma 0.9, lambda 0.8.

    delta = (0 + 0.9*0.2 - 0.5, 0 + 0.9*0.6 - 0.2, 1 - 0.6) = (-0.32, 0.34, 0.4); A_3 = 0.4, A_2 = 0.34 + 0.72*0.4 = 0.628,
    A_1 = -0.32 + 0.72*0.628 = 0.13216; returns are A + V.
    """
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.2, 0.6]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=0.9, lam=0.8)
    torch.testing.assert_close(advantages, torch.tensor([[0.13216, 0.628, 0.4]]))
    torch.testing.assert_close(returns, torch.tensor([[0.63216, 0.828, 1.0]]))


def gae_of_one(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t as the sum over all later deltas, as the paper defines it, not by the recursion."""
    n = len(rewards)
    deltas = [rewards[t] + gamma * (values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, n)) for t in range(n)]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (1.0, 0.0)])
def test_gae_of_answers_of_different_length_equals_the_definition(gamma, lam):
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([1, 4, 7, 3])
    rewards, values = torch.randn(4, 7, generator=g), torch.randn(4, 7, generator=g)
    mask = torch.arange(7)[None] < lengths[:, None]
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for i, n in enumerate(lengths.tolist()):
        expected = torch.tensor(gae_of_one(rewards[i, :n].tolist(), values[i, :n].tolist(), gamma, lam))
        torch.testing.assert_close(advantages[i, :n], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(returns[i, :n], expected + values[i, :n], atol=1e-5, rtol=1e-5)
        assert not advantages[i, n:].any()
        assert not returns[i, n:].any()


def test_lambda_1_gives_the_sum_of_later_rewards_less_the_value():
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.5, 0.5]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 1.0, 1.0)
    torch.testing.assert_close(returns, torch.tensor([[6.0, 5.0, 3.0]]))
    torch.testing.assert_close(advantages, torch.tensor([[5.5, 4.5, 2.5]]))


def test_whiten_counts_tokens_inside_alone():
    """Of (1, 3, 5) and whatever lies outside: mean 3, variance 8/3."""
    values = torch.tensor([[1.0, 3.0], [5.0, 1000.0]])
    mask = torch.tensor([[True, True], [True, False]])
    white = whiten(values, mask)
    scale = math.sqrt(8 / 3)
    torch.testing.assert_close(white, torch.tensor([[-2 / scale, 0.0], [2 / scale, 0.0]]))
    kept = whiten(values, mask, shift_mean=False)
    torch.testing.assert_close(kept, torch.tensor([[3 - 2 / scale, 3.0], [3 + 2 / scale, 0.0]]))


def test_whiten_over_two_processes_equals_whiten_over_one():
    g = torch.Generator().manual_seed(1)
    values, mask = torch.randn(6, 5, generator=g) * 3 + 2, torch.rand(6, 5, generator=g) < 0.7
    inside = [values[half][mask[half]].double() for half in (slice(0, 2), slice(2, 6))]
    count, mean = sum(map(len, inside)), torch.cat(inside).mean()
    sums = [
        torch.stack([torch.tensor(float(count)).double(), torch.cat(inside).sum()]),
        ((torch.cat(inside) - mean) ** 2).sum()[None],
    ]
    answers = iter(sums)
    found = whiten(values[:2], mask[:2], total=lambda part: next(answers))
    torch.testing.assert_close(found, whiten(values, mask)[:2])


def test_leave_one_out_by_hand():
    """Group 0: rewards 1, 2, 6: others' means 4, 3.5, 1.5. Group 1: 5 and a masked one: nothing to compare with."""
    rewards, group = torch.tensor([1.0, 5.0, 2.0, NAN, 6.0]), torch.tensor([0, 1, 0, 1, 0])
    torch.testing.assert_close(leave_one_out(rewards, group), torch.tensor([-3.0, 0.0, -1.5, 0.0, 4.5]))


def test_group_relative_by_hand():
    """Rewards 1, 2, 6: mean 3, deviation (n - 1) sqrt(7); (r - 3) / (sqrt 7 + 1e-4)."""
    rewards, group = torch.tensor([1.0, 2.0, 6.0, 4.0]), torch.tensor([0, 0, 0, 1])
    scale = math.sqrt(7) + 1e-4
    torch.testing.assert_close(group_relative(rewards, group), torch.tensor([-2 / scale, -1 / scale, 3 / scale, 0.0]))
    torch.testing.assert_close(group_relative(rewards, group, scale=False), torch.tensor([-2.0, -1.0, 3.0, 0.0]))


def test_equal_rewards_give_no_advantage():
    rewards, group = torch.full((4,), 0.3), torch.zeros(4, dtype=torch.long)
    assert group_relative(rewards, group).abs().max() < 1e-3
    assert not leave_one_out(rewards, group).abs().max() > 1e-6


@pytest.mark.parametrize("advantage", [leave_one_out, group_relative, lambda r, g: group_relative(r, g, scale=False)])
def test_a_masked_reward_is_as_if_the_sample_were_not_there(advantage):
    rewards, group = torch.tensor([1.0, NAN, 2.5, -1.0, NAN, 0.0, 3.0]), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    known = rewards.isfinite()
    whole = advantage(rewards, group)
    torch.testing.assert_close(whole[known], advantage(rewards[known], group[known]))
    assert not whole[~known].any()
    as_zero = advantage(rewards.nan_to_num(0.0), group)  # what other libraries do moves everybody else
    assert (as_zero[known] - whole[known]).abs().max() > 0.1


def test_clipped_loss_by_hand():
    """Ratio 1.5 and 0.5 at clip 0.2: the bound decides where it lowers the objective, and then the gradient is 0."""
    log_ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]).log().requires_grad_()
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 3.0])
    loss, clipped = clipped_loss(log_ratio, advantages, Clip())
    torch.testing.assert_close(loss, torch.tensor([-2.4, 3.0, -1.0, 1.6, -3.3]))
    assert clipped.tolist() == [True, False, False, True, False]
    loss.sum().backward()
    torch.testing.assert_close(log_ratio.grad, torch.tensor([0.0, 3.0, -1.0, 0.0, -3.3]))


def test_clip_higher_moves_the_upper_bound_alone():
    log_ratio, advantages = torch.tensor([1.25, 0.75]).log(), torch.tensor([1.0, -1.0])
    assert clipped_loss(log_ratio, advantages, Clip(0.2, 0.28))[1].tolist() == [False, True]


@pytest.mark.parametrize(
    ("how", "expected"),
    [("sequence", [1 / 6, 1 / 3, 1 / 9]), ("token", [1 / 6] * 3), ("constant", [1 / 30] * 3)],
)
def test_token_weights_by_hand(how, expected):
    """Completions of 2, 1 and 3 tokens, at most 10."""
    torch.testing.assert_close(token_weights(torch.tensor([2, 1, 3]), how, 10), torch.tensor(expected))


def test_gspo_ratio_is_the_geometric_mean_and_reaches_each_token():
    """Sample 0 has log-ratios 0.2, -0.4, 0.5 (mean 0.1), sample 1 has 0.3. d/dl_t of s A / |y| is s A / |y| for each token."""
    log_ratio = torch.tensor([0.2, -0.4, 0.5, 0.3], requires_grad=True)
    sample = torch.tensor([7, 7, 7, 3])
    found = sequence_log_ratio(log_ratio, sample)
    torch.testing.assert_close(found, torch.tensor([0.1, 0.1, 0.1, 0.3]))
    weights = torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    advantages = torch.tensor([2.0, 2.0, 2.0, -1.0])
    (weights * found.exp() * advantages).sum().backward()
    free = log_ratio.detach().clone().requires_grad_()
    objective = torch.stack([(free[:3].mean()).exp() * 2.0, free[3].exp() * -1.0]).mean()  # eq. 5 of the paper
    (expected,) = torch.autograd.grad(objective, free)
    torch.testing.assert_close(log_ratio.grad, expected)


def test_value_loss_by_hand():
    """Half squared errors; the value held within 0.2 of the old one counts where its error is larger."""
    values = torch.tensor([1.0, 1.0, 0.1], requires_grad=True)
    old, returns = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, -1.0, 1.0])
    loss, bounded = value_loss(values, old, returns, 0.2)
    torch.testing.assert_close(loss, torch.tensor([0.32, 2.0, 0.405]))
    assert bounded.tolist() == [True, False, False]
    loss.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([0.0, 2.0, -0.9]))
    free, _ = value_loss(values.detach(), old, returns, 0.0)
    torch.testing.assert_close(free, torch.tensor([0.0, 2.0, 0.405]))


def _mean_of_groups(rewards: Tensor, group: Tensor) -> Tensor:
    return torch.stack([rewards[group == g].mean() for g in group])


def test_leave_one_out_is_the_centred_reward_times_n_over_n_less_1():
    """The known identity, on random groups of equal size."""
    rewards, group = torch.randn(12, generator=torch.Generator().manual_seed(3)), torch.arange(12) // 4
    torch.testing.assert_close(leave_one_out(rewards, group), (rewards - _mean_of_groups(rewards, group)) * 4 / 3)
