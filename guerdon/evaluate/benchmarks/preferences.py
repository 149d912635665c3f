"""Any file of preferences as a benchmark: HH, its parts, one's own held-out pairs.

Rule (Bai et al. 2022, arXiv 2204.05862, and RewardBench for the same sets): the preferred answer scores strictly higher, a
tie of scores is wrong; overall is the micro average over decided pairs, categories are the sources. A ranking of K
answers gives every pair that it decides; tied labels give none. `guerdon evaluate` measures the same files with ties
counted one half, calibration and baselines; this is for numbers that are to stand beside published ones.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from guerdon.data.read import load as read
from guerdon.data.split import prompt_key
from guerdon.evaluate.benchmarks.estimate import RESAMPLES, Result, accuracy
from guerdon.evaluate.benchmarks.item import Item, sheet
from guerdon.evaluate.columns import Floats

HUB = "Anthropic/hh-rlhf:test"
METRIC = "accuracy over decided pairs"


def load(path: str | os.PathLike[str]) -> list[Item]:
    """One item per decided pair, the preferred answer first; anything that `guerdon.data` reads."""
    items = []
    for comparison in read(os.fspath(path)).comparisons:
        group = prompt_key(comparison)
        for pair in comparison.pairs():
            if pair.target != 0.5:
                answers = (comparison.completions[pair.chosen], comparison.completions[pair.rejected])
                lengths = tuple(float(sum(len(message["content"]) for message in answer)) for answer in answers)
                id = f"{comparison.id} {pair.chosen}>{pair.rejected}"
                items.append(
                    Item(id, comparison.source or "unnamed", (True, False), group, comparison.prompt, answers, lengths)
                )
    return items


def measure(items: Sequence[Item], scores: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Result:
    """Accuracy over pairs, overall and by source."""
    return accuracy("hh", sheet(items, scores), metric=METRIC, seed=seed, resamples=resamples)
