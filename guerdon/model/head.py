"""The score head: one linear layer with one output, found in any architecture and always computed in float32.

A head in bfloat16 can tell scores between 8 and 16 apart only in steps of 0.0625, which makes false ties of confident
rewards; the head is tiny, so full precision costs nothing.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guerdon.types import ConfigError


def find_head(net: nn.Module) -> tuple[str, nn.Module]:
    """Top-level name and module of the final linear layer with one output. Raises ConfigError when there is none.

    Decoders call it `score`, encoders `classifier` or `classification_head`, where it may be the last layer of a small
    stack.
    """
    inner = plain(net)
    for name in ("score", "classifier", "classification_head", "logits_proj"):
        if hasattr(inner, name):
            return name, getattr(inner, name)
    raise ConfigError(f"{type(inner).__name__} has no sequence-classification head that Guerdon knows")


def plain(net: nn.Module) -> Any:
    """The transformers model, out of its PEFT wrapper if it has one (LoRA layers stay inside)."""
    return net.get_base_model() if hasattr(net, "peft_config") else net  # type: ignore[operator]


class MemberHead(nn.Linear):
    """M scores from one state: the heads of an ensemble side by side, (n, width) -> (n, M).

    `offset` (M,) is not trained. A ranking loss leaves each member's zero point open, so members are shifted to one
    mean when they are saved; the offsets sum to zero, and the mean of the members stays what it was.
    """

    offset: Tensor

    def __init__(self, width: int, members: int, bias: bool) -> None:
        super().__init__(width, members, bias)
        self.register_buffer("offset", torch.zeros(members))


def final_layers(net: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """(parent, name, layer) of the linear layers that give the score: one, or two copies inside PEFT's wrapper.

    Raises ConfigError when there is none.
    """
    top, head = find_head(net)
    holders = [(plain(net), top, head)] + [
        (parent, name, child) for parent in head.modules() for name, child in parent.named_children()
    ]
    finals = [
        holder
        for holder in holders
        if isinstance(holder[2], nn.Linear) and (holder[2].out_features == 1 or isinstance(holder[2], MemberHead))
    ]
    if not finals:
        raise ConfigError(f"the score head of {type(plain(net)).__name__} has no linear layer with one output")
    return finals  # type: ignore[return-value]


def keep_head_in_fp32(net: nn.Module) -> None:
    """Hold the final linear layer in float32 and compute it in float32, under autocast too, whatever surrounds it."""
    for _, _, final in final_layers(net):
        final.float()
        final.forward = types.MethodType(_fp32_forward, final)  # type: ignore[method-assign]


def head_width(net: nn.Module) -> int:
    """Numbers that the final linear layer reads."""
    return final_layers(net)[0][2].in_features


@contextmanager
def head_inputs(net: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Watch the final linear layer; yields a function from the rewards of a row to the states (n, width) they came from."""
    seen: list[Tensor] = []
    watches = [
        final.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float()))
        for _, _, final in final_layers(net)
    ]
    try:
        yield lambda rewards: seen.pop()
    finally:
        for watch in watches:
            watch.remove()


def _fp32_forward(layer: nn.Linear, states: Tensor) -> Tensor:
    with torch.autocast(states.device.type, enabled=False):
        scores = F.linear(states.float(), layer.weight, layer.bias)
        return scores + layer.offset if isinstance(layer, MemberHead) else scores


def apply_head(net: nn.Module, states: Tensor) -> Tensor:
    """Scores (n,) of pooled states (n, width), in float32; (n, M) from the heads of an ensemble."""
    _, head = find_head(net)
    return head(states).squeeze(-1)  # type: ignore[no-any-return]
