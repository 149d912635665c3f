"""FlexAttention rows: the block mask is the tree mask, and attention under it equals dense attention."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import flex_attention

from guerdon.model.tree import sees, tree_rows
from guerdon.model.trunk import block_mask


@pytest.mark.parametrize("window", [None, 3])
def test_block_mask_is_the_tree_mask(window):
    trees = [((7, 8, 9, 1, 2), (7, 8, 9, 3), (7, 8, 9, 4, 4, 4)), ((5, 6), (5, 9))]
    (row,) = tree_rows(trees, 200, pad_to=128)
    rule = block_mask(row, window).mask_mod
    q, k = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    zero = torch.zeros((), dtype=torch.long)
    assert torch.equal(rule(zero, zero, q, k), sees(row, None, window))


def test_attention_under_the_block_mask_equals_dense_attention():
    """The reference implementation of FlexAttention, forward only, which is what the CPU has."""
    (row,) = tree_rows([((7, 8, 9, 1, 2), (7, 8, 9, 3), (7, 8, 9, 4, 4, 4))] * 9, 128, pad_to=128)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, row.ids.numel(), 16, generator=generator) for _ in range(3))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it was not compiled, which is the point here
        flex = flex_attention(q, k, v, block_mask=block_mask(row, None))
        dense = F.scaled_dot_product_attention(q, k, v, attn_mask=sees(row)[None, None])
    assert (flex - dense).abs().max() < 1e-5
