"""Prompt trees by hand: prefixes, masks, positions, packing."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.model.tree import pack, padded_rows, sees, shared_prefix, tree_rows, tree_tokens

TREE = ((7, 8, 1, 2), (7, 8, 3))


def test_shared_prefix_by_hand():
    assert shared_prefix(TREE) == 2
    assert shared_prefix(((1, 2), (1, 2))) == 1  # each completion keeps a token of its own
    assert shared_prefix(((1, 2, 3), (1, 2))) == 1
    assert shared_prefix(((1,), (2,))) == 0
    assert tree_tokens(TREE) == 5


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=5))
def test_shared_prefix_is_common_to_all_and_maximal(sequences):
    tree = tuple(map(tuple, sequences))
    length = shared_prefix(tree)
    assert len({ids[:length] for ids in tree}) == 1
    longer = {ids[: length + 1] for ids in tree}
    assert len(longer) > 1 or length == min(map(len, tree)) - 1


def test_layout_and_mask_by_hand():
    (row,) = tree_rows([TREE, ((5, 6), (5, 9))], budget=99)
    assert row.ids.tolist() == [7, 8, 1, 2, 3, 5, 6, 9]
    assert row.tree.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert row.branch.tolist() == [0, 0, 1, 1, 2, 0, 1, 2]
    assert row.position.tolist() == [0, 1, 2, 3, 2, 0, 1, 1]
    assert row.scored.tolist() == [3, 4, 6, 7]
    assert row.origin == ((0, 0), (0, 1), (1, 0), (1, 1))
    expected = [
        "10000000",
        "11000000",
        "11100000",
        "11110000",
        "11001000",
        "00000100",
        "00000110",
        "00000101",
    ]
    assert ["".join(map(str, line)) for line in sees(row).int().tolist()] == expected
    assert torch.equal(sees(row, row.scored), sees(row)[row.scored])


def test_sliding_window_counts_positions_on_the_path():
    (row,) = tree_rows([TREE], budget=99)
    assert sees(row, window=2).int().tolist()[4] == [0, 1, 0, 0, 1]


def test_padding_sees_itself_and_is_seen_by_nobody():
    (row,) = tree_rows([TREE], budget=99, pad_to=8)
    mask = sees(row)
    assert row.ids.numel() == 8
    assert not mask[:5, 5:].any()
    assert mask.any(1).all()


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 60))
def test_pack_places_everything_once_within_budget(sizes, budget):
    groups = pack(sizes, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    assert all(len(group) == 1 or sum(sizes[i] for i in group) <= budget for group in groups)


def test_pack_fills_by_hand():
    assert pack([5, 9, 4, 1], 10) == [[0, 2], [1, 3]]


def test_padded_rows_sort_by_length_and_never_divide_a_tree():
    trees = [((1,) * 9, (2,) * 8), ((3,), (4, 4)), ((5, 5), (6,))]
    rows = padded_rows(trees, budget=8, pad_id=0)
    assert [row.origin for row in rows] == [((1, 0), (1, 1), (2, 0), (2, 1)), ((0, 0), (0, 1))]
    assert rows[0].ids.tolist() == [[3, 0], [4, 4], [5, 5], [6, 0]]
    assert rows[0].mask.sum(1).tolist() == [1, 2, 2, 1]
