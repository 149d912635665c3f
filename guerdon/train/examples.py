"""From comparisons to training examples: each completion encoded once, every pair an index into its prompt tree.

Comparisons over the same prompt share one example, and always one optimizer step: pairs of one prompt that are spread
over an epoch let the model overfit to it in a single pass (Ouyang et al. 2022, arXiv 2203.02155, section 3.5).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import torch
from torch import Tensor

from guerdon.model.encode import Encoded, Encoder
from guerdon.model.tree import Ids, Row, Tree
from guerdon.types import Comparison, DataError


class TrainPair(NamedTuple):
    """Indices into the tree, probability that `chosen` wins, weight in the mean, and margin in reward units."""

    chosen: int
    rejected: int
    target: float
    weight: float
    margin: float


@dataclass(frozen=True)
class Example:
    """One prompt: its completions as token ids, the pairs over them, and the ids of the rows they came from.

    `draws` says how often each member of an ensemble has drawn the prompt; () for a single model.
    """

    tree: Tree
    pairs: tuple[TrainPair, ...]
    rows: tuple[str, ...]
    draws: tuple[int, ...] = ()

    @property
    def weight(self) -> float:
        return sum(pair.weight for pair in self.pairs)


@dataclass
class EncodeReport:
    """What encoding cut or kept out: shown before training starts and written into run.json."""

    conversations: int = 0
    truncated: int = 0
    tokens: int = 0
    tokens_cut: int = 0
    identical_after_cut: int = 0
    refused: int = 0
    first_refusal: str = ""


def encode_comparisons(
    comparisons: Sequence[Comparison],
    encoder: Encoder,
    *,
    margin: float,
    ties: str,
    group_limit: int,
    ensemble: int = 1,
    seed: int = 0,
) -> tuple[list[Example], EncodeReport]:
    """Encode all comparisons into examples of at most `group_limit` comparisons, in the order prompts first appear.

    Each member of an ensemble gets its own bootstrap of the prompts: as many draws as there are prompts, with
    replacement, by `seed`.

    Rows the encoder refuses, and pairs that are equal token for token after the cut to the context (they have no
    gradient), are kept out and counted.
    """
    report = EncodeReport()
    groups: dict[tuple[tuple[str, str], ...], list[list[tuple[Comparison, list[Encoded]]]]] = {}
    for comparison, encoded in _encode_all(comparisons, encoder, report):
        prompt = tuple((message["role"], message["content"]) for message in comparison.prompt) or (("", comparison.id),)
        chunks = groups.setdefault(prompt, [[]])
        if len(chunks[-1]) >= group_limit:
            chunks.append([])
        chunks[-1].append((comparison, encoded))
    draws = _bootstrap(len(groups), ensemble, seed)
    examples = [
        _example(chunk, margin, ties, report, drawn)
        for chunks, drawn in zip(groups.values(), draws, strict=True)
        for chunk in chunks
    ]
    return [example for example in examples if example.pairs], report


def _encode_all(
    comparisons: Sequence[Comparison], encoder: Encoder, report: EncodeReport, block: int = 256
) -> Iterator[tuple[Comparison, list[Encoded]]]:
    for start in range(0, len(comparisons), block):
        batch = comparisons[start : start + block]
        try:
            flat = encoder([c for comparison in batch for c in comparison.conversations()])
        except DataError as error:
            if len(batch) == 1:
                report.refused += 1
                report.first_refusal = report.first_refusal or f"{batch[0].id}: {error}"
            else:
                yield from _encode_all(batch, encoder, report, block=max(1, len(batch) // 8))
            continue
        position = 0
        for comparison in batch:
            encoded = flat[position : position + len(comparison.completions)]
            position += len(comparison.completions)
            report.conversations += len(encoded)
            report.truncated += sum(item.truncated for item in encoded)
            report.tokens += sum(item.full_length for item in encoded)
            report.tokens_cut += sum(item.full_length - len(item.ids) for item in encoded)
            yield comparison, encoded


def _example(
    chunk: Sequence[tuple[Comparison, list[Encoded]]],
    margin: float,
    ties: str,
    report: EncodeReport,
    draws: tuple[int, ...],
) -> Example:
    place: dict[Ids, int] = {}
    pairs: list[TrainPair] = []
    for comparison, encoded in chunk:
        index = [place.setdefault(item.ids, len(place)) for item in encoded]
        spread = (max(comparison.ranks) - min(comparison.ranks)) or 1.0
        for chosen, rejected, target, weight in comparison.pairs():
            if (target == 0.5 and ties == "drop") or weight == 0:
                continue
            if index[chosen] == index[rejected]:
                report.identical_after_cut += 1
                continue
            share = (comparison.ranks[rejected] - comparison.ranks[chosen]) / spread
            gap = margin * (comparison.strength or 0.0) * share
            pairs.append(TrainPair(index[chosen], index[rejected], target, weight, gap))
    return Example(tuple(place), tuple(pairs), tuple(comparison.id for comparison, _ in chunk), draws)


def _bootstrap(prompts: int, members: int, seed: int) -> list[tuple[int, ...]]:
    """How often each member draws each prompt; empty draws for a single model."""
    if members == 1:
        return [()] * prompts
    generator = torch.Generator().manual_seed(seed)
    counts = torch.stack(
        [
            torch.bincount(torch.randint(prompts, (prompts,), generator=generator), minlength=prompts)
            for _ in range(members)
        ]
    )
    return [tuple(row) for row in counts.T.tolist()]


def batches(examples: Sequence[Example], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The order of one epoch: shuffled indices cut into steps of about `batch_size` comparisons.

    It depends on (seed, epoch) alone, so a resumed run sees the same steps.
    """
    order = list(range(len(examples)))
    random.Random(f"{seed}-{epoch}").shuffle(order)
    steps: list[list[int]] = []
    size = batch_size
    for index in order:
        rows = len(examples[index].rows)
        if size + rows > batch_size:
            steps.append([])
            size = 0
        steps[-1].append(index)
        size += rows
    return steps


def digest(examples: Sequence[Example], order: Sequence[Sequence[int]]) -> str:
    """Fingerprint of what a run trains on: every token and pair, and the order of all steps."""
    found = sha256(repr(order).encode())
    for example in examples:
        found.update(repr((example.tree, example.pairs, *example.draws)).encode())
    return found.hexdigest()[:16]


class PairTensors(NamedTuple):
    """The pairs of one row: (pair,) positions in the row's rewards, targets, weights and margins.

    `draws` (pair, M) is how often each member of an ensemble sees the pair; (pair, 0) for a single model.
    """

    chosen: Tensor
    rejected: Tensor
    target: Tensor
    weight: Tensor
    margin: Tensor
    draws: Tensor


def pair_tensors(row: Row, examples: Sequence[Example], device: torch.device) -> PairTensors:
    """Where the pairs of the examples packed into `row` find their two rewards."""
    place = {origin: position for position, origin in enumerate(row.origin)}
    columns: list[tuple[int, int, float, float, float, tuple[int, ...]]] = [
        (place[tree, pair.chosen], place[tree, pair.rejected], *pair[2:], examples[tree].draws)
        for tree in dict.fromkeys(tree for tree, _ in row.origin)
        for pair in examples[tree].pairs
    ]
    chosen, rejected, target, weight, margin, draws = zip(*columns, strict=True)
    return PairTensors(
        torch.tensor(chosen, device=device),
        torch.tensor(rejected, device=device),
        torch.tensor(target, device=device),
        torch.tensor(weight, device=device),
        torch.tensor(margin, device=device),
        torch.tensor(draws, dtype=torch.float32, device=device),
    )
