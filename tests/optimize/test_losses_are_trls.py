"""Loss and gradient of an update equal those of TRL's own GRPO and RLOO trainers on the same completions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny_policy import tiny_policy

from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.generate import Sample
from guerdon.optimize.policy import Policy
from guerdon.optimize.rollout import Rollout
from guerdon.optimize.update import STATISTICS, Learner, Targets, _accumulate, make_targets

grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer")
rloo_trainer = pytest.importorskip("trl.trainer.rloo_trainer")

LONGEST = 9
CONFIG = OptimizeConfig(
    algorithm="grpo", max_new_tokens=LONGEST, tokens_per_row=64, kl_in="loss", clip=0.2, clip_high=0.28
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory, make_tokenizer) -> Policy:
    return Policy.load(tiny_policy(tmp_path_factory.mktemp("trl") / "base", make_tokenizer), device="cpu")


@pytest.fixture(scope="module")
def rollout(policy) -> Rollout:
    """Three prompts with four completions each, of 1 to 9 tokens, their log-probabilities under the policy."""
    g = torch.Generator().manual_seed(0)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, 300, (n,), generator=g).tolist())

    prompts = [draw(n) for n in (3, 7, 5)]
    lengths = [[4, 9, 1, 6], [2, 2, 8, 5], [3, 7, 9, 9]]
    drawn = [
        [Sample(prompt, ids, (0.0,) * len(ids), "", False) for ids in map(draw, row)]
        for prompt, row in zip(prompts, lengths, strict=True)
    ]
    made = Rollout.build([[] for _ in prompts], drawn)
    return replace(made, behaviour=made.gather(policy.logprobs(made.groups(), 64)))


def moved(rollout: Rollout, scale: float, seed: int) -> torch.Tensor:
    """Log-probabilities of another policy near by, (n, T)."""
    noise = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(seed))
    return (rollout.behaviour + scale * noise) * rollout.mask


def ours(policy: Policy, rollout: Rollout, targets: Targets, beta: float, config: OptimizeConfig) -> tuple[float, Any]:
    accelerator = Accelerator(cpu=True)
    learner = Learner(policy, None)
    policy.zero_grad()
    groups = rollout.groups(targets.used)
    found = _accumulate(accelerator, learner, policy, groups, groups[:1], targets, beta, 1, config)
    statistics = dict(zip(STATISTICS, found, strict=True))
    return statistics["policy_loss"] + statistics["kl_loss"], gradient(policy)


def gradient(policy: Policy) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]).clone()


def trainer(module: Any, policy: Policy, **attributes: Any) -> Any:
    """TRL's trainer with what its loss reads, and nothing else set up; log-probabilities by plain transformers."""
    base = module.GRPOTrainer if module is grpo_trainer else module.RLOOTrainer

    class Bare(base):
        def __init__(self) -> None:
            pass

        def _get_per_token_logps_and_entropies(self, model: Any, ids: Any, mask: Any, keep: int, **_: Any) -> Any:
            position = (mask.cumsum(1) - 1).clamp_min(0)
            logits = model(input_ids=ids, attention_mask=mask, position_ids=position).logits[:, -keep - 1 : -1]
            logprobs = logits.log_softmax(-1)
            entropy = -(logprobs.exp() * logprobs).sum(-1).detach()
            return logprobs.gather(2, ids[:, -keep:, None])[..., 0], entropy, None

    bare = Bare()
    policy.net.train()
    vars(bare).update(
        model=policy.net, accelerator=Accelerator(cpu=True), aux_loss_enabled=False, top_entropy_quantile=1.0,
        off_policy_mask_threshold=None, use_vllm=False, _entropy_bonus_enabled=False, max_completion_length=LONGEST,
        current_gradient_accumulation_steps=1, epsilon_low=0.2, epsilon_high=0.28,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
    )  # fmt: skip
    arguments = {
        "delta": None,
        "steps_per_generation": 1,
        "use_bias_correction_kl": attributes.pop("correction", False),
    }
    bare.args = SimpleNamespace(**arguments)
    vars(bare).update(attributes)
    return bare


def inputs(policy: Policy, rollout: Rollout, advantages: torch.Tensor, **more: Any) -> dict[str, Any]:
    """The rollout as TRL lays it out: prompts padded on the left, completions on the right."""
    pad, width = policy.tokenizer.pad_token_id, max(len(sample.prompt) for sample in rollout.samples)
    prompts = [sample.prompt for sample in rollout.samples]
    completions = [list(s.ids) + [pad] * (rollout.mask.shape[1] - len(s.ids)) for s in rollout.samples]
    return {
        "prompt_ids": torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts]),
        "prompt_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
        "completion_ids": torch.tensor(completions),
        "completion_mask": rollout.mask.long(),
        "advantages": advantages,
        "num_items_in_batch": rollout.mask.sum(),
        **more,
    }


def theirs(bare: Any, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    bare.model.zero_grad()
    loss = bare._compute_loss(bare.model, batch)
    loss.backward()
    found = torch.cat([p.grad.flatten() for p in bare.model.parameters() if p.grad is not None]).clone()
    bare.model.eval()
    return float(loss.detach()), found


def advantages_of(rollout: Rollout) -> torch.Tensor:
    return torch.randn(len(rollout.samples), generator=torch.Generator().manual_seed(5))


def both(
    policy: Policy, rollout: Rollout, kind: str, beta: float, old: torch.Tensor, *, correction: bool = True
) -> Any:
    advantages, reference = advantages_of(rollout), moved(rollout, 0.5, 7)
    used = torch.ones(len(rollout.samples), dtype=torch.bool)
    targets = Targets(used, advantages[:, None] * rollout.mask, old, reference, None, None)
    name = {"dr-grpo": "dr_grpo", "gspo": "grpo", "ppo": "bnpo"}.get(kind, kind)
    level = "sequence" if kind == "gspo" else "token"
    bare = trainer(
        grpo_trainer, policy, loss_type=name, importance_sampling_level=level, beta=beta, correction=correction
    )
    batch = inputs(policy, rollout, advantages, old_per_token_logps=old, ref_per_token_logps=reference)
    return ours(policy, rollout, targets, beta, replace(CONFIG, loss=kind)), theirs(bare, batch)


def assert_equal(found: tuple[float, torch.Tensor], expected: tuple[float, torch.Tensor]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
    assert (found[1] - expected[1]).norm() < 1e-5 * expected[1].norm()


@pytest.mark.parametrize("kind", ["grpo", "dr-grpo", "dapo", "ppo", "gspo"])
@pytest.mark.parametrize("distance", [0.0, 0.4], ids=["on-policy", "off-policy"])
def test_policy_loss_and_gradient(policy, rollout, kind, distance):
    found, expected = both(policy, rollout, kind, 0.0, moved(rollout, distance, 3))
    assert_equal(found, expected)
    assert expected[1].norm() > 1e-3


@pytest.mark.parametrize("kind", ["grpo", "dr-grpo", "dapo", "ppo"])
@pytest.mark.parametrize("distance", [0.0, 0.4], ids=["on-policy", "off-policy"])
def test_with_kl_in_the_loss_weighted_as_we_do(policy, rollout, kind, distance):
    assert_equal(*both(policy, rollout, kind, 0.3, moved(rollout, distance, 3)))


def test_without_its_correction_trls_kl_has_the_same_value_and_another_gradient(policy, rollout):
    """Known to differ: plain k3 as a loss, see test_kl."""
    found, expected = both(policy, rollout, "grpo", 0.3, rollout.behaviour, correction=False)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert (found[1] - expected[1]).norm() > 0.01 * expected[1].norm()


def test_the_clip_is_reached(policy, rollout):
    """The off-policy cases above mean something: ratios leave the bounds on both sides."""
    ratio = (rollout.behaviour - moved(rollout, 0.4, 3)).exp()[rollout.mask]
    assert (ratio < 0.8).any()
    assert (ratio > 1.28).any()


def test_what_an_update_says_of_itself(policy, rollout):
    """Share of clipped tokens, and KL of the policy that sampled by k3, rho - 1 - log rho, written out."""
    old, advantages = moved(rollout, 0.4, 3), advantages_of(rollout)
    targets = Targets(torch.ones(12, dtype=torch.bool), advantages[:, None] * rollout.mask, old, old, None, None)
    accelerator, learner, groups = Accelerator(cpu=True), Learner(policy, None), rollout.groups()
    for loss in ("dapo", "dr-grpo"):  # a constant weight does not sum to 1; the shares still do
        found = _accumulate(
            accelerator, learner, policy, groups, groups[:1], targets, 0.0, 1, replace(CONFIG, loss=loss)
        )
        statistics = dict(zip(STATISTICS, found, strict=True))
        log_ratio = rollout.behaviour - old
        up = (advantages[:, None] > 0).expand_as(rollout.mask)
        held = torch.where(up, log_ratio.exp() > 1.28, log_ratio.exp() < 0.8)
        assert statistics["clip_fraction"] == pytest.approx(float(held[rollout.mask].float().mean()), abs=1e-5)
        k3 = (log_ratio.exp() - 1 - log_ratio)[rollout.mask].mean()
        assert statistics["ratio_kl"] == pytest.approx(float(k3), rel=1e-4)


@pytest.mark.parametrize("loss", ["dr-grpo", "ppo"])
def test_rloo_on_policy_is_trls_up_to_a_constant(policy, rollout, loss):
    """TRL sums over tokens and means over completions; ours divides by the longest completion, or weighs tokens alike."""
    rewards = torch.randn(len(rollout.samples), generator=torch.Generator().manual_seed(2))
    reference, config = moved(rollout, 0.3, 9), replace(CONFIG, algorithm="rloo", kl_in="reward", loss=loss)
    targets = make_targets(rollout, rewards, reference, None, 0.05, config, lambda sums: sums)
    kl = ((rollout.behaviour - reference) * rollout.mask).sum(1)
    worth = (rewards - 0.05 * kl).view(3, 4)
    advantages = (worth - (worth.sum(1, keepdim=True) - worth) / 3).flatten()  # TRL: grouped mean of the others
    bare = trainer(rloo_trainer, policy)
    batch = inputs(policy, rollout, advantages, old_logps=(rollout.behaviour * rollout.mask).sum(1))
    _, found = ours(policy, rollout, targets, 0.05, config)
    _, expected = theirs(bare, batch)
    scale = LONGEST if loss == "dr-grpo" else float(rollout.mask.sum()) / len(rollout.samples)
    assert (scale * found - expected).norm() < 1e-5 * expected.norm()


def test_rows_of_another_budget_give_the_same_gradient(policy, rollout):
    targets = Targets(
        torch.ones(12, dtype=torch.bool), advantages_of(rollout)[:, None] * rollout.mask, rollout.behaviour, rollout.behaviour,
        None, None,
    )  # fmt: skip
    config = replace(CONFIG, loss="grpo")
    one, many = (ours(policy, rollout, targets, 0.0, replace(config, tokens_per_row=n)) for n in (4096, 20))
    assert one[0] == pytest.approx(many[0], abs=1e-6)
    assert (one[1] - many[1]).norm() < 1e-5 * one[1].norm()


def test_a_sample_without_a_reward_is_in_no_loss(policy, rollout):
    """The gradient equals that of the same rollout with those samples taken out."""
    rewards = torch.randn(12, generator=torch.Generator().manual_seed(4))
    rewards[[1, 6, 7]] = torch.nan
    kept = rewards.isfinite()
    members = [[s for s, k in zip(rollout.samples[i : i + 4], kept[i : i + 4], strict=True) if k] for i in (0, 4, 8)]
    less = Rollout.build([[]] * 3, members)
    less = replace(less, behaviour=rollout.behaviour[kept][:, : less.mask.shape[1]])
    for algorithm in ("rloo", "grpo"):
        config = replace(CONFIG, algorithm=algorithm, loss="grpo", kl_in="reward")
        found = [
            ours(policy, part, make_targets(part, r, 0.9 * part.behaviour, None, 0.1, config, lambda s: s), 0.1, config)
            for part, r in ((rollout, rewards), (less, rewards[kept]))
        ]
        assert_equal(*found)
