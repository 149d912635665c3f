"""On CUDA: FlexAttention scores and gradients equal the dense path, in float32 and under bfloat16 autocast."""

from __future__ import annotations

import pytest
import torch
from tiny_models import chat

from guerdon.model.reward import RewardModel

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

TALKS = [chat("hello world " * 9, "fox " * n) for n in (1, 4, 9, 30)]


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-4), (True, 5e-2)])
def test_flex_equals_dense(make_backbone, tmp_path, bf16, tolerance):
    model = RewardModel.load(make_backbone(tmp_path, "llama"), device="cuda")
    trees = [tuple(e.ids for e in model.encoder(TALKS)), tuple(e.ids for e in model.encoder(TALKS[::-1]))]

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        outputs = []
        for row in model.rows(trees, 1024):
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                rewards = model(row.to(model.device))
            (rewards**2).sum().backward()
            outputs.append(rewards.detach())
        return torch.cat(outputs), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    dense_scores, dense_gradients = run()
    model.trunk.use_flex()
    flex_scores, flex_gradients = run()
    assert (dense_scores - flex_scores).abs().max() <= tolerance * dense_scores.abs().max()
    for a, b in zip(dense_gradients, flex_gradients, strict=True):
        assert (a - b).abs().max() <= tolerance * a.abs().max().clamp_min(1e-6)
