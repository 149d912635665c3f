"""From prompts with several completions to rows in which every completion token knows what predicts it.

The rows are those of `model.tree`: a prompt is computed once for all its completions. What a language model needs beside
them is, for each completion token, the flat index of the token before it on its own path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guerdon.model.tree import Ids, Row, TreeRow, padded_rows, shared_prefix, tree_rows


@dataclass(frozen=True)
class Group:
    """One prompt and its completions as token ids; `samples[k]` is the caller's number of completion k.

    Completions hold at least one token each; the end-of-sequence token belongs to the completion it ends.
    """

    prompt: Ids
    completions: tuple[Ids, ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class TokenRow:
    """A row, and its n completion tokens sample by sample.

    row        what the body computes
    predictor  (n,) flat index into the row's states of the token that predicts each completion token
    target     (n,) ids of the completion tokens
    sample     (n,) number of the sample each belongs to
    place      (n,) its place in the completion, from 0
    """

    row: Row
    predictor: Tensor
    target: Tensor
    sample: Tensor
    place: Tensor

    def to(self, device: torch.device) -> TokenRow:
        moved = {name: getattr(self, name).to(device) for name in ("predictor", "target", "sample", "place")}
        return replace(self, row=self.row.to(device), **moved)


def token_rows(
    groups: Sequence[Group], budget: int, *, shares_prefix: bool, pad_id: int, pad_to: int = 1
) -> list[TokenRow]:
    """Lay groups out in rows of about `budget` tokens, as trees where the model can share a prefix, else padded."""
    if not shares_prefix:
        single = [Group(g.prompt, (c,), (s,)) for g in groups for c, s in zip(g.completions, g.samples, strict=True)]
        rows = padded_rows([(g.prompt + g.completions[0],) for g in single], budget, pad_id)
        return [_padded(row, single, row.ids.shape[1]) for row in rows]
    parts = [part for group in groups for part in _cut(group, budget)]
    trees = [tuple(group.prompt + completion for completion in group.completions) for group in parts]
    return [_tree(row, parts) for row in tree_rows(trees, budget, pad_to)]


def _cut(group: Group, budget: int) -> list[Group]:
    """A group in parts that fit the budget, the prompt counted once in each; a longer completion travels alone."""
    parts: list[list[int]] = []
    room = 0
    for k, completion in enumerate(group.completions):
        if len(completion) > room:
            parts.append([])
            room = budget - len(group.prompt)
        parts[-1].append(k)
        room -= len(completion)
    return [
        Group(group.prompt, tuple(group.completions[k] for k in part), tuple(group.samples[k] for k in part))
        for part in parts
    ]


def _tree(row: TreeRow, groups: Sequence[Group]) -> TokenRow:
    starts: dict[int, int] = {}
    prefixes: dict[int, int] = {}
    slots = list(dict.fromkeys(tree for tree, _ in row.origin))
    for slot, tree in enumerate(slots):
        group = groups[tree]
        starts[tree] = int(torch.searchsorted(row.tree[: row.ids.numel() - int((row.tree < 0).sum())], slot))
        prefixes[tree] = shared_prefix(tuple(group.prompt + c for c in group.completions))
    pieces = []
    for (tree, k), last in zip(row.origin, row.scored.tolist(), strict=True):
        group = groups[tree]
        completion = group.completions[k]
        length = len(group.prompt) + len(completion)
        position = torch.arange(len(group.prompt) - 1, length - 1)
        index = torch.where(position < prefixes[tree], starts[tree] + position, last - (length - 1 - position))
        pieces.append((index, completion, group.samples[k]))
    return _joined(row, pieces)


def _padded(row: Row, groups: Sequence[Group], width: int) -> TokenRow:
    pieces = []
    for number, (tree, _) in enumerate(row.origin):
        group = groups[tree]
        first = number * width + len(group.prompt) - 1
        pieces.append((torch.arange(first, first + len(group.completions[0])), group.completions[0], group.samples[0]))
    return _joined(row, pieces)


def _joined(row: Row, pieces: Sequence[tuple[Tensor, Ids, int]]) -> TokenRow:
    return TokenRow(
        row,
        torch.cat([index for index, _, _ in pieces]),
        torch.tensor([token for _, completion, _ in pieces for token in completion]),
        torch.tensor([sample for _, completion, sample in pieces for _ in completion]),
        torch.cat([torch.arange(len(completion)) for _, completion, _ in pieces]),
    )
