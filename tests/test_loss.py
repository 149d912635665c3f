"""Losses against hand-computed numbers and against TRL's own expression."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from guerdon.loss import bradley_terry, centering


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_bradley_terry_by_hand():
    loss = bradley_terry(t(2.0, 0.0), t(0.0, 0.0))
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(2)])


def test_margin_by_hand_and_ties_have_none():
    loss = bradley_terry(t(2.0, 1.0), t(0.0, 1.0), target=t(1.0, 0.5), margin=t(1.5, 9.0))
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-0.5)), math.log(2)])


def test_tie_is_lowest_at_equal_rewards_and_symmetric():
    losses = [bradley_terry(t(d), t(0.0), target=t(0.5)).item() for d in (-1.0, 0.0, 1.0)]
    assert losses[0] == pytest.approx(losses[2])
    assert losses[1] == pytest.approx(math.log(2))
    assert losses[1] < losses[0]


def test_smoothing_bounds_the_gap_at_the_log_odds_of_a_flip():
    gap = torch.tensor([0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([gap], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = bradley_terry(gap, torch.zeros(1), smoothing=0.1).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert gap.item() == pytest.approx(math.log(0.9 / 0.1), abs=1e-3)


def test_adding_a_constant_changes_nothing_and_huge_gaps_stay_finite():
    chosen, rejected = torch.randn(50, generator=torch.Generator().manual_seed(0)).double(), torch.zeros(50).double()
    assert torch.allclose(bradley_terry(chosen, rejected), bradley_terry(chosen + 7, rejected + 7))
    assert bradley_terry(t(-1e4, 1e4), t(1e4, -1e4)).tolist() == [2e4, 0.0]


def test_swapping_sides_equals_flipping_the_target():
    chosen, rejected = t(0.3, -1.2), t(0.1, 2.0)
    assert torch.allclose(
        bradley_terry(chosen, rejected, target=t(0.2, 0.7)), bradley_terry(rejected, chosen, target=t(0.8, 0.3))
    )


def test_equal_to_the_reference_expressions_with_margin_and_centering():
    generator = torch.Generator().manual_seed(1)
    chosen, rejected, margin = (torch.randn(64, generator=generator).double() for _ in range(3))
    ours = bradley_terry(chosen, rejected, margin=margin).mean() + 0.01 * centering(chosen, rejected).mean()
    trl = -F.logsigmoid(chosen - rejected - margin).mean() + 0.01 * torch.mean((chosen + rejected) ** 2)
    assert torch.allclose(ours, trl)


def test_wrong_shapes_and_smoothing_are_refused():
    with pytest.raises(ValueError, match="must be equal"):
        bradley_terry(t(1.0, 2.0), t(1.0))
    with pytest.raises(ValueError, match="margin has shape"):
        bradley_terry(t(1.0), t(1.0), margin=t(1.0, 2.0))
    with pytest.raises(ValueError, match="smoothing"):
        bradley_terry(t(1.0), t(1.0), smoothing=0.5)
