"""The members of an ensemble as M score heads over one trunk: one forward pass gives M rewards.

The saved folder stays a plain checkpoint whose single head is the mean of the members (heads are linear, so the mean of
their scores is the score of their mean). The members themselves lie beside it in `ensemble.npz`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from guerdon.model.head import MemberHead, final_layers, keep_head_in_fp32
from guerdon.types import ConfigError

FILE = "ensemble.npz"  # not .safetensors: servers load every file of that kind as weights of the model


def count(net: nn.Module) -> int:
    """How many members the head has; 1 for a plain reward model."""
    layer = final_layers(net)[-1][2]
    return layer.out_features


def grow(net: nn.Module, members: int, seed: int, is_new: bool) -> None:
    """Replace the score head by `members` of them, in place.

    A new head becomes the first member, and the others are drawn from `seed` with its spread; the head of a reward model
    is copied, so that members differ by what they are trained on alone.
    """
    generator = torch.Generator().manual_seed(seed)
    for parent, name, single in final_layers(net):
        weight = single.weight.detach().expand(members, -1).clone()
        if is_new:
            drawn = torch.randn(weight[1:].shape, generator=generator) * single.weight.detach().float().std().cpu()
            weight[1:] = drawn.to(weight)
        bias = None if single.bias is None else single.bias.detach().expand(members).clone()
        _put(parent, name, weight, bias, torch.zeros(members))
    keep_head_in_fp32(net)


def collapse(net: nn.Module) -> None:
    """Replace the members by their mean, in place: a plain reward model with the same mean score."""
    for parent, name, layer in final_layers(net):
        if isinstance(layer, MemberHead):
            single = nn.Linear(layer.in_features, 1, bias=layer.bias is not None, device=layer.weight.device)
            single.load_state_dict({key: tensor.mean(0, keepdim=True) for key, tensor in _trained(layer).items()})
            setattr(parent, name, single)
    keep_head_in_fp32(net)


@contextmanager
def collapsed(net: nn.Module) -> Iterator[None]:
    """The net with the mean in place of its members until the block ends, so that it is saved as a plain model."""
    kept = final_layers(net)
    collapse(net)
    try:
        yield
    finally:
        for parent, name, layer in kept:
            setattr(parent, name, layer)


def write(net: nn.Module, folder: Path, offset: Tensor) -> None:
    """Write the members beside the checkpoint, shifted by `offset` (M,)."""
    layer = final_layers(net)[-1][2]
    assert isinstance(layer, MemberHead)
    state = _trained(layer) | {"offset": layer.offset.cpu() + offset}
    arrays: dict[str, Any] = {name: tensor.float().cpu().numpy() for name, tensor in state.items()}
    np.savez(folder / FILE, **arrays)


def read(net: nn.Module, folder: Path) -> None:
    """Put the members of a saved ensemble into the net, in place; nothing happens where there is no such file.

    Raises ConfigError when the file is damaged or belongs to another model.
    """
    path = folder / FILE
    if not path.is_file():
        return
    try:
        with np.load(path) as file:
            state = {name: torch.from_numpy(file[name]) for name in file.files}
        weight, bias, offset = state["weight"], state.get("bias"), state["offset"]
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); copy the model folder again whole") from error
    single = final_layers(net)[-1][2]
    same = torch.allclose(weight.float().mean(0), single.weight.detach().float().cpu()[0], rtol=1e-4, atol=1e-5)
    if weight.shape[1] != single.in_features or (bias is None) != (single.bias is None) or not same:
        raise ConfigError(f"{path}: does not belong to the model beside it; copy the model folder again whole")
    for parent, name, _ in final_layers(net):
        _put(parent, name, weight, bias, offset)
    keep_head_in_fp32(net)


def _put(parent: nn.Module, name: str, weight: Tensor, bias: Tensor | None, offset: Tensor) -> None:
    head = MemberHead(weight.shape[1], len(weight), bias is not None).to(_device(parent))
    state = {"weight": weight, "offset": offset} | ({} if bias is None else {"bias": bias})
    head.load_state_dict(state)
    setattr(parent, name, head)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _trained(layer: nn.Linear) -> dict[str, Tensor]:
    return {"weight": layer.weight.detach()} | ({} if layer.bias is None else {"bias": layer.bias.detach()})
