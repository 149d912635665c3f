"""What a file of picks is worth: the reward and the held-out reward for every n, and of what was picked against chance.

In: the rows that `best_of_n` writes. Out: means over prompts with intervals over prompts, as a `Summary`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.evaluate.best_of_n import best_of_n, grid, interval, kl_nats, resampled_means
from guerdon.evaluate.columns import Floats
from guerdon.evaluate.intervals import prompt_bootstrap

SMALL = (
    0.05  # share of the prompts with the fewest candidates that are set aside, so that the ladder goes on beyond them
)


@dataclass(frozen=True)
class Mean:
    """A mean over prompts with its 95 % interval (bootstrap over prompts); None where it is not known."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Rung:
    """Best of n by the reward, unbiased over all subsets of the candidates: reward and held-out reward of the winner.

    kl  log n - (n-1)/n nats: an upper bound of the divergence from the policy that wrote the candidates
    """

    n: int
    kl: float
    reward: Mean
    held_out: Mean | None


@dataclass(frozen=True)
class Summary:
    """What is in the finished file.

    rows        input rows, each with one output row         statuses  rows by status
    candidates  in all rows                                  masked    of them without a score
    ladder      best of n for every n, `prompts` in it; `set_aside` had fewer candidates or no held-out reward
    picked      held-out reward of the pick; `chance` of a random candidate to the same prompts; `gain` their difference
    margin      mean distance to the runner-up              resumed   rows that an earlier run had done
    """

    output: Path
    rows: int
    statuses: Counter[str]
    candidates: int
    masked: int
    ladder: tuple[Rung, ...] = ()
    prompts: int = 0
    set_aside: int = 0
    picked: Mean | None = None
    chance: Mean | None = None
    gain: Mean | None = None
    margin: float | None = None
    resumed: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | {"output": str(self.output), "statuses": dict(self.statuses)}


def summarise(path: Path) -> Summary:
    """Read a file of picks. A candidate without a score is in no mean."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    pools: list[tuple[Floats, Floats]] = []
    picks: list[tuple[float, float]] = []  # held-out of the pick, mean held-out of the candidates
    margins: list[float] = []
    candidates = masked = 0
    with path.open(encoding="utf-8") as file:
        for record in map(json.loads, file):
            counts[record["status"]] += 1
            if record["status"] != "ok":
                reasons[record["reason"]] += 1
            candidates, masked = candidates + record["n"], masked + record["n"] - record["scored"]
            score = _floats(record["scores"])
            has_held = "held_out" in record
            held = _floats(record["held_out"]) if has_held else score
            known = np.isfinite(score) & np.isfinite(held)
            pools.append((score[known], held[known] if has_held else np.full(int(known.sum()), np.nan)))
            if has_held and record["pick"] is not None and np.isfinite(held[record["pick"]]):
                picks.append((float(held[record["pick"]]), float(held[np.isfinite(held)].mean())))
            if record["margin"] is not None:
                margins.append(record["margin"])
    ladder, prompts = _ladder([pool for pool in pools if len(pool[0])])
    picked = chance = gain = None
    if picks:
        table = np.array(picks)
        picked, chance, gain = _mean(table[:, 0]), _mean(table[:, 1]), _mean(table[:, 0] - table[:, 1])
    return Summary(
        path, sum(counts.values()), counts, candidates, masked, ladder, prompts, len(pools) - prompts, picked, chance, gain,
        float(np.mean(margins)) if margins else None, reasons=dict(reasons.most_common(5)),
    )  # fmt: skip


def _ladder(pools: list[tuple[Floats, Floats]]) -> tuple[tuple[Rung, ...], int]:
    """Best of n over the prompts with enough candidates, and how many these are."""
    if not pools:
        return (), 0
    largest = int(np.quantile([len(score) for score, _ in pools], SMALL, method="lower"))
    kept = [pool for pool in pools if len(pool[0]) >= largest]
    sizes, score, held = grid(largest), np.concatenate([p[0] for p in kept]), np.concatenate([p[1] for p in kept])
    starts = np.concatenate([[0], np.cumsum([len(pool[0]) for pool in kept])]).astype(np.int64)
    has_held = bool(np.isfinite(held).all())
    columns = np.stack([score, held], axis=1) if has_held else score[:, None]
    found = best_of_n(score, columns, starts, sizes)
    means = found.mean(0)
    draws = resampled_means(found.reshape(len(kept), -1)).reshape(-1, *found.shape[1:])
    low, high = interval(draws, len(kept))
    return tuple(
        Rung(
            int(n),
            float(kl),
            _known(means[i, 0], low[i, 0], high[i, 0]),
            _known(means[i, 1], low[i, 1], high[i, 1]) if has_held else None,
        )
        for i, (n, kl) in enumerate(zip(sizes, kl_nats(sizes), strict=True))
    ), len(kept)


def _mean(values: Floats) -> Mean:
    low, high = prompt_bootstrap(values, np.arange(len(values), dtype=np.int64))
    return _known(values.mean(), low, high)


def _known(*values: float) -> Mean:
    mean, low, high = (float(value) if math.isfinite(value) else None for value in values)
    return Mean(mean, low, high)


def _floats(values: list[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
