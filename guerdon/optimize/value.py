"""PPO's value model: a decoder of its own with one number per token, started from the reward model or the policy."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from guerdon.model.head import final_layers, plain
from guerdon.model.reward import RewardModel
from guerdon.model.tree import TreeRow
from guerdon.model.trunk import tree_masks
from guerdon.optimize.layout import TokenRow
from guerdon.optimize.policy import Policy
from guerdon.types import ConfigError


class ValueModel(nn.Module):
    """V(state before each completion token), in reward units: a body and a linear head in float32."""

    def __init__(self, body: nn.Module, head: nn.Linear, uses_flex: bool = False) -> None:
        super().__init__()
        self.body = body
        self.head = head.float()
        self.uses_flex = uses_flex

    @torch.no_grad()
    def rescale(self, weight: float, shift: float, scale: float) -> None:
        """From the score of a reward model to what it adds to the reward that is optimised: (weight * V - shift) / scale."""
        self.head.weight.mul_(weight / scale)
        self.head.bias.copy_((self.head.bias * weight - shift) / scale)

    def forward(self, row: TokenRow) -> Tensor:
        """Values (t,) float32 of the states that predict the completion tokens of a row."""
        inner: Any = row.row
        if isinstance(inner, TreeRow):
            states = self.body(
                input_ids=inner.ids[None],
                attention_mask=tree_masks(self.body, inner, self.uses_flex),
                position_ids=inner.position[None],
                use_cache=False,
            ).last_hidden_state[0]
        else:
            states = self.body(input_ids=inner.ids, attention_mask=inner.mask, use_cache=False).last_hidden_state
            states = states.flatten(0, 1)
        values: Tensor = self.head(states[row.predictor].float())[:, 0]
        return values


def from_policy(policy: Policy) -> ValueModel:
    """A copy of the policy's body with a head of zeros: every value starts at 0."""
    net: Any = copy.deepcopy(policy.net)
    net = net.merge_and_unload() if hasattr(net, "peft_config") else net
    body = getattr(net, net.base_model_prefix).requires_grad_(True)
    head = nn.Linear(body.config.get_text_config().hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return ValueModel(body, head.to(policy.device), policy.uses_flex).eval()


def from_reward(model: RewardModel, policy: Policy) -> ValueModel:
    """A copy of the reward model, its head read at every token; an ensemble's mean.

    Raises ConfigError when the reward model is no decoder, or reads other token ids than the policy writes.
    """
    same_ids = model.encoder.tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    if not model.shares_prefix or not same_ids:
        reason = "reads other tokens than the policy writes" if model.shares_prefix else "is no decoder"
        raise ConfigError(f"--value-from reward: the reward model {reason}; choose --value-from policy")
    merged = model.merged()
    inner = copy.deepcopy(plain(merged.net))
    layer = final_layers(inner)[0][2]
    head = nn.Linear(layer.in_features, 1)
    with torch.no_grad():
        head.weight.copy_(layer.weight.float().mean(0, keepdim=True))
        head.bias.zero_()
    body = getattr(inner, inner.base_model_prefix).requires_grad_(True)
    return ValueModel(body, head.to(policy.device), policy.uses_flex).to(policy.device).eval()
