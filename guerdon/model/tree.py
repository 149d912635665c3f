"""Prompt trees: a prompt is computed once, however many completions hang on it.

A *tree* is the token ids of K conversations that start alike: the shared prefix once, then each completion's own
tokens. The prefix is the longest common prefix of the finished token sequences, so sharing is exact whatever the
template does. Trees are packed, without padding, into *rows* of about `budget` tokens; a row knows, for each token, its
tree, its branch (0 = shared prefix, k = completion k) and its position on the path from the root:

    tree   0 0 0 0 0 0 0 0 1 1 1 1 1
    branch 0 0 0 1 1 1 2 2 0 0 1 2 2        a token sees the tokens of its tree that are in the prefix
    pos    0 1 2 3 4 5 3 4 0 1 2 2 3        or in its own branch, at its own position or before

Models that cannot share (bidirectional encoders, recurrent layers) get `PaddedRow`s: completions sorted by length, so
that little is padded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Ids = tuple[int, ...]
Tree = tuple[Ids, ...]


@dataclass(frozen=True)
class TreeRow:
    """One packed row. `ids`, `tree`, `branch`, `position` are (T,); `scored` (n,) points at each completion's last
    token.

    `origin` names, for each scored token, the (tree, completion) it belongs to, as indices into the packed list.
    """

    ids: Tensor
    tree: Tensor
    branch: Tensor
    position: Tensor
    scored: Tensor
    origin: tuple[tuple[int, int], ...]

    def to(self, device: torch.device) -> TreeRow:
        tensors = (self.ids, self.tree, self.branch, self.position, self.scored)
        ids, tree, branch, position, scored = (t.to(device, non_blocking=True) for t in tensors)
        return TreeRow(ids, tree, branch, position, scored, self.origin)

    @property
    def tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return int(self.ids.numel())


@dataclass(frozen=True)
class PaddedRow:
    """Completions of similar length, right-padded: `ids` and `mask` are (n, T); `origin` as in `TreeRow`."""

    ids: Tensor
    mask: Tensor
    origin: tuple[tuple[int, int], ...]

    def to(self, device: torch.device) -> PaddedRow:
        return PaddedRow(self.ids.to(device, non_blocking=True), self.mask.to(device, non_blocking=True), self.origin)

    @property
    def tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return int(self.ids.numel())


Row = TreeRow | PaddedRow


def shared_prefix(tree: Tree) -> int:
    """Length in tokens of the prefix all K sequences share, leaving each at least one token of its own."""
    first, last = min(tree), max(tree)  # the common prefix of the extremes is the common prefix of all
    limit = min(map(len, tree)) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return length


def tree_tokens(tree: Tree) -> int:
    """Tokens the tree costs: the prefix once, each completion once."""
    prefix = shared_prefix(tree)
    return prefix + sum(len(ids) - prefix for ids in tree)


def common_prefix(a: Ids, b: Ids) -> int:
    """Length in tokens of the prefix that two sequences share."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # comparing slices is done in C; stepping through the ids is not
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def grow_trees(sequences: Collection[Ids], budget: int) -> list[Tree]:
    """Trees over different sequences, divided so that about as many tokens as possible are computed once.

    In sorted order, what starts alike stands together. A stretch becomes one tree when that saves more than the best
    division of its two parts at the place where they have least in common; a tree is cut where it would exceed `budget`.
    """
    order = sorted(sequences)
    shared = [common_prefix(a, b) for a, b in pairwise(order)]
    trees: list[Tree] = []
    for start, stop in _stretches(shared, 0, len(order)) if order else ():
        tree: list[Ids] = []
        room = budget
        prefix = min(shared[start : stop - 1], default=0)
        for ids in order[start:stop]:
            cost = len(ids) - prefix if tree else len(ids)
            if tree and cost > room:
                trees.append(tuple(tree))
                tree, room, cost = [], budget, len(ids)
            tree.append(ids)
            room -= cost
        trees.append(tuple(tree))
    return trees


def _stretches(shared: Sequence[int], first: int, last: int) -> list[tuple[int, int]]:
    """Stretches (start, stop) of the best division, in order; shared[i] is what sequences i and i + 1 have in common."""
    best: list[
        tuple[int, int, int, list[tuple[int, int]]]
    ] = []  # start, least in common with the next, saved, division
    for index in range(first, last):
        start, saved, division = index, 0, [(index, index + 1)]
        follows = shared[index] if index + 1 < last else -1
        while best and best[-1][1] >= follows:
            left_start, least, left_saved, left_division = best.pop()
            whole = (index - left_start) * least
            if whole > left_saved + saved:
                saved, division = whole, [(left_start, index + 1)]
            else:
                saved, division = left_saved + saved, left_division + division
            start = left_start
        best.append((start, follows, saved, division))
    return best[0][3]


def pack(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """First-fit decreasing: indices of `sizes` grouped so that each group sums to at most `budget`.

    An item larger than the budget travels alone. Deterministic: equal sizes keep their order, groups are listed by
    their first item.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        slot = next((g for g, left in enumerate(room) if sizes[index] <= left), None)
        if slot is None:
            groups.append([index])
            room.append(budget - sizes[index])
        else:
            groups[slot].append(index)
            room[slot] -= sizes[index]
    return sorted(sorted(group) for group in groups)


def tree_rows(trees: Sequence[Tree], budget: int, pad_to: int = 1) -> list[TreeRow]:
    """Pack trees into rows of at most `budget` tokens; row lengths are rounded up to a multiple of `pad_to`.

    Padding tokens form a tree of their own (index -1) that nothing scored can see.
    """
    groups = pack([tree_tokens(tree) for tree in trees], budget)
    return [_lay_out([(index, trees[index]) for index in group], pad_to) for group in groups]


def _lay_out(members: Sequence[tuple[int, Tree]], pad_to: int) -> TreeRow:
    ids: list[int] = []
    tree_of: list[int] = []
    branch: list[int] = []
    position: list[int] = []
    scored: list[int] = []
    origin: list[tuple[int, int]] = []
    for slot, (index, tree) in enumerate(members):
        prefix = shared_prefix(tree)
        ids += tree[0][:prefix]
        branch += [0] * prefix
        position += range(prefix)
        for k, completion in enumerate(tree):
            own = len(completion) - prefix
            ids += completion[prefix:]
            branch += [k + 1] * own
            position += range(prefix, len(completion))
            scored.append(len(ids) - 1)
            origin.append((index, k))
        tree_of += [slot] * (len(ids) - len(tree_of))
    padding = -len(ids) % pad_to
    return TreeRow(
        torch.tensor(ids + [0] * padding),
        torch.tensor(tree_of + [-1] * padding),
        torch.tensor(branch + [0] * padding),
        torch.tensor(position + [0] * padding),
        torch.tensor(scored),
        tuple(origin),
    )


def padded_rows(trees: Sequence[Tree], budget: int, pad_id: int, least: int | None = None) -> list[PaddedRow]:
    """Lay every completion out in full, shortest first, in blocks of at most `budget` tokens, padding counted.

    A tree is never divided: its pairs need all its scores in one block. A block of `least` tokens or more is closed before
    its padding would exceed a sixteenth of it; by default only when it is full.
    """
    order = sorted(range(len(trees)), key=lambda i: (max(map(len, trees[i])), i))
    blocks: list[list[int]] = []
    rows = real = size = 0
    for index in order:
        tokens = sum(map(len, trees[index]))
        grown = (rows + len(trees[index])) * max(map(len, trees[index]))
        loose = least is not None and size >= least and 16 * (grown - real - tokens) > grown
        if not blocks or grown > budget or loose:
            blocks.append([])
            rows = real = 0
            grown = len(trees[index]) * max(map(len, trees[index]))
        blocks[-1].append(index)
        rows, real, size = rows + len(trees[index]), real + tokens, grown
    return [_pad([(i, k, ids) for i in block for k, ids in enumerate(trees[i])], pad_id) for block in blocks]


def _pad(members: Sequence[tuple[int, int, Ids]], pad_id: int) -> PaddedRow:
    width = max(len(ids) for _, _, ids in members)
    ids = torch.full((len(members), width), pad_id)
    mask = torch.zeros((len(members), width), dtype=torch.long)
    for row, (_, _, tokens) in enumerate(members):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return PaddedRow(ids, mask, tuple((i, k) for i, k, _ in members))


def sees(row: TreeRow, queries: Tensor | None = None, window: int | None = None) -> Tensor:
    """Boolean attention mask (q, T): True where a query token may look. `queries` (q,) picks tokens; None means all.

    `window` is the model's sliding window in tokens of position, as in transformers' sliding attention.
    """
    tree, branch, position = (t.int() for t in (row.tree, row.branch, row.position))
    q_tree, q_branch, q_position = (t if queries is None else t[queries] for t in (tree, branch, position))
    same_tree = q_tree[:, None] == tree[None, :]
    on_path = (branch == 0)[None, :] | (q_branch[:, None] == branch[None, :])
    distance = q_position[:, None] - position[None, :]
    mask = same_tree & on_path & (distance >= 0)
    return mask if window is None else mask & (distance < window)
