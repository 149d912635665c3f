"""The lower layers of a trunk, left as they were pretrained.

What they know of words and syntax serves every task; with few comparisons, training them can add more noise than
knowledge (Lee, Tang and Lin 2019, arXiv 1911.03090). Nothing below the lowest trained layer needs a backward pass.
"""

from __future__ import annotations

from torch import nn

from guerdon.model.head import plain
from guerdon.types import ConfigError


def freeze_layers(net: nn.Module, count: int) -> None:
    """Take the embeddings and the first `count` layers of the trunk out of training.

    Raises ConfigError when the trunk has no more than `count` layers, or keeps them where Guerdon does not find them.
    """
    inner = plain(net)
    body = getattr(inner, inner.base_model_prefix, inner)
    path, layers = _layers(body, inner.config.get_text_config().num_hidden_layers)
    if count >= len(layers):
        raise ConfigError(
            f"--freeze-layers {count}: the model has {len(layers)} layers, and at least one must be left to train; "
            f"give {len(layers) - 1} or less"
        )
    outside = [child for module in path for child in module.children() if child not in path and child is not layers]
    embeddings = [child for child in outside if any(isinstance(part, nn.Embedding) for part in child.modules())]
    for module in (*embeddings, *layers[:count]):
        module.requires_grad_(False)


def _layers(body: nn.Module, depth: int) -> tuple[list[nn.Module], nn.ModuleList]:
    """The modules from `body` down to the list of its `depth` layers, and the list."""
    for name, found in body.named_modules():
        if isinstance(found, nn.ModuleList) and len(found) == depth:
            steps = name.split(".")[:-1]
            return [body.get_submodule(".".join(steps[:n])) for n in range(len(steps) + 1)], found
    raise ConfigError(
        f"--freeze-layers: {type(body).__name__} has no list of {depth} layers that Guerdon knows; leave it 0"
    )
