"""Frozen layers: exactly what the lower layers compute from, left as it was bit for bit, in every architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_fit import setting  # noqa: F401
from tiny_models import tiny_config
from torch import nn
from transformers import AutoModelForSequenceClassification

from guerdon.train.freeze import freeze_layers
from guerdon.train.loop import fit
from guerdon.types import ConfigError

ARCHITECTURES = ["qwen3", "qwen3-moe", "llama", "mistral", "gemma2", "gemma3", "gpt2", "gpt-neox", "bert", "deberta-v2", "modernbert"]  # fmt: skip


def tiny_net(name: str) -> nn.Module:
    torch.manual_seed(0)
    config = tiny_config(name, 64)
    config.num_labels = 1
    return AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_frozen_is_what_the_lower_layers_read_and_nothing_else(name):
    net = tiny_net(name)
    layer = next(m for m in net.modules() if isinstance(m, nn.ModuleList) and len(m) == net.config.num_hidden_layers)[0]
    seen: list[torch.Tensor] = []
    layer.register_forward_hook(lambda _, inputs, output: seen.append(output if torch.is_tensor(output) else output[0]))
    net(input_ids=torch.arange(3, 35)[None], attention_mask=torch.ones(1, 32, dtype=torch.long))
    names, parameters = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(seen[0].square().sum(), parameters, allow_unused=True)
    read = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    freeze_layers(net, 1)
    assert {name for name, parameter in net.named_parameters() if not parameter.requires_grad} == read
    assert 0 < len(read) < len(names)


def test_a_run_leaves_them_bit_for_bit_and_trains_the_rest(setting, tmp_path):  # noqa: F811
    said: list[str] = []
    fit(replace(setting, output=str(tmp_path), freeze_layers=1, eval_fraction=0.0), say=said.append)
    start = load_file(Path(setting.model) / "model.safetensors")
    end = load_file(tmp_path / "model" / "model.safetensors")
    same = {name for name, weight in start.items() if torch.equal(end[f"model.{name}"], weight)}
    assert same == {name for name in start if name.startswith(("embed_tokens.", "layers.0."))}
    total = sum(weight.numel() for weight in end.values())
    trained = total - sum(start[name].numel() for name in same)
    assert any(f"{trained:,} of {total:,} weights" in line for line in said)


def test_one_layer_at_least_must_train():
    with pytest.raises(ConfigError, match=r"--freeze-layers 3: the model has 3 layers.*give 2 or less"):
        freeze_layers(tiny_net("bert"), 3)
