"""KL estimators: their values, and that their gradients are those of the exact divergence of a small categorical policy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from guerdon.optimize.kl import Controller, kl_loss, kl_value

VOCABULARY = 6


def test_values_by_hand():
    """l = log 2: k1 = 0.6931, k2 = 0.2402, k3 = 1/2 - 1 + log 2 = 0.1931; l = -log 2: k3 = 2 - 1 - log 2 = 0.3069."""
    ratio = torch.tensor([math.log(2), -math.log(2), 0.0])
    torch.testing.assert_close(kl_value(ratio, "k1"), torch.tensor([0.693147, -0.693147, 0.0]))
    torch.testing.assert_close(kl_value(ratio, "k2"), torch.tensor([0.240227, 0.240227, 0.0]))
    torch.testing.assert_close(kl_value(ratio, "k3"), torch.tensor([0.193147, 0.306853, 0.0]))


def test_k3_keeps_its_digits_near_zero():
    ratio = torch.tensor([1e-4])
    assert float(kl_value(ratio, "k3")) == pytest.approx(0.5e-8, rel=1e-2)


def setting() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of policy, reference and behaviour, float64."""
    g = torch.Generator().manual_seed(0)
    logits, reference, behaviour = (torch.randn(VOCABULARY, generator=g, dtype=torch.float64) for _ in range(3))
    return logits.requires_grad_(), reference.log_softmax(0), behaviour.log_softmax(0)


def exact_gradient(logits: Tensor, reference: Tensor) -> Tensor:
    logprobs = logits.log_softmax(0)
    return torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits)[0]


def expected_gradient(loss: Tensor, behaviour: Tensor, logits: Tensor) -> Tensor:
    """Gradient of a loss of each token, summed over all tokens at the probability with which they were drawn."""
    return torch.autograd.grad((behaviour.detach().exp() * loss).sum(), logits)[0]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_on_policy_the_expected_gradient_is_that_of_the_exact_kl(estimator):
    logits, reference, _ = setting()
    logprobs = logits.log_softmax(0)
    found = expected_gradient(kl_loss(logprobs, logprobs.detach(), reference, estimator), logprobs, logits)
    assert (found - exact_gradient(logits, reference)).abs().max() < 1e-6


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_off_policy_as_well(estimator):
    logits, reference, behaviour = setting()
    found = expected_gradient(kl_loss(logits.log_softmax(0), behaviour, reference, estimator), behaviour, logits)
    assert (found - exact_gradient(logits, reference)).abs().max() < 1e-6


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_sample_of_tokens_points_the_same_way(estimator):
    """What the exact sums say holds for drawn tokens: the mean gradient of 200,000 of them, to its standard error."""
    logits, reference, behaviour = setting()
    tokens = torch.multinomial(behaviour.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(1))
    share = torch.bincount(tokens, minlength=VOCABULARY).double() / len(tokens)
    loss = kl_loss(logits.log_softmax(0), behaviour, reference, estimator)
    (found,) = torch.autograd.grad((share * loss).sum(), logits)
    assert (found - exact_gradient(logits, reference)).abs().max() < 0.02


def test_plain_k1_as_a_loss_has_no_gradient_at_all():
    """Known to fail: E[grad log pi] = 0, whatever the reference."""
    logits, reference, _ = setting()
    logprobs = logits.log_softmax(0)
    found = expected_gradient(kl_value(logprobs - reference, "k1"), logprobs, logits)
    assert found.abs().max() < 1e-12
    assert exact_gradient(logits, reference).abs().max() > 0.1


def test_plain_k3_as_a_loss_has_the_gradient_of_the_forward_divergence():
    """Known to fail: without the weight it is grad KL(ref || pi) = pi - pi_ref, another direction than grad KL(pi || ref)."""
    logits, reference, _ = setting()
    logprobs = logits.log_softmax(0)
    found = expected_gradient(kl_value(logprobs - reference, "k3"), logprobs, logits)
    torch.testing.assert_close(found, (logprobs.exp() - reference.exp()).detach())
    assert (found - exact_gradient(logits, reference)).abs().max() > 0.05


def test_plain_k2_off_policy_is_wrong():
    """Known to fail: k2 needs its constant weight as soon as tokens come from another policy."""
    logits, reference, behaviour = setting()
    found = expected_gradient(kl_value(logits.log_softmax(0) - reference, "k2"), behaviour, logits)
    assert (found - exact_gradient(logits, reference)).abs().max() > 0.05


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_expected_value_is_the_kl(estimator):
    logits, reference, behaviour = setting()
    logprobs = logits.log_softmax(0)
    logprobs = logprobs.detach()
    exact = float((logprobs.exp() * (logprobs - reference)).sum())
    assert float((logprobs.exp() * kl_value(logprobs - reference, estimator)).sum()) == pytest.approx(exact, abs=1e-9)
    weighted = kl_loss(logprobs, behaviour, reference, estimator)
    assert float((behaviour.exp() * weighted).sum()) == pytest.approx(exact, abs=1e-9)


def test_controller_by_hand():
    """Target 6 nats: KL 9 is 50 % over, counted as 20 %; KL 6.6 is 10 % over; KL 0 is counted as 20 % under."""
    controller = Controller(0.2, target=6.0, gain=0.1)
    assert controller.update(9.0) == pytest.approx(0.2 * 1.02)
    assert controller.update(6.6) == pytest.approx(0.2 * 1.01)
    assert controller.update(0.0) == pytest.approx(0.2 * 0.98)
    assert controller.update(6.0) == 0.2
    assert Controller(0.2).update(100.0) == 0.2


def test_a_target_copied_from_per_token_units_would_be_off_by_the_length():
    """6 nats per sequence of 50 tokens are 0.12 per token; fed that, the controller believes there is hardly any KL."""
    controller = Controller(0.2, target=6.0)
    assert controller.update(6.0) == 0.2
    assert controller.update(6.0 / 50) == pytest.approx(0.2 * 0.98)
