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


def keep_head_in_fp32(net: nn.Module) -> None:
    """Hold the final linear layer in float32 and compute it in float32, under autocast too, whatever surrounds it."""
    for final in final_layers(net):
        final.float()
        final.forward = types.MethodType(_fp32_forward, final)  # type: ignore[method-assign]


def final_layers(net: nn.Module) -> list[nn.Linear]:
    """The linear layer with one output that ends the head; under PEFT also its other copies, of which one runs.

    Raises ConfigError when there is none.
    """
    _, head = find_head(net)
    finals = [m for m in head.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    if not finals:
        raise ConfigError(f"the score head of {type(plain(net)).__name__} has no linear layer with one output")
    return finals


def head_width(net: nn.Module) -> int:
    """Numbers that the final linear layer reads."""
    return final_layers(net)[0].in_features


@contextmanager
def head_inputs(net: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Watch the final linear layer; yields a function from the rewards of a row to the states (n, width) they came from."""
    seen: list[Tensor] = []
    watches = [
        final.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float())) for final in final_layers(net)
    ]
    try:
        yield lambda rewards: seen.pop()
    finally:
        for watch in watches:
            watch.remove()


def _fp32_forward(layer: nn.Linear, states: Tensor) -> Tensor:
    with torch.autocast(states.device.type, enabled=False):
        return F.linear(states.float(), layer.weight, layer.bias)


def apply_head(net: nn.Module, states: Tensor) -> Tensor:
    """Scores (n,) of pooled states (n, width), in float32."""
    _, head = find_head(net)
    return head(states).squeeze(-1)  # type: ignore[no-any-return]
