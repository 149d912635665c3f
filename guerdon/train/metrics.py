"""What a run shows while it goes: statistics per row, their means over pairs between two log lines, and who watches."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

# One number each per packed row: sums over its pairs or completions, tokens computed, lowest and highest reward.
STATISTICS = ("loss", "weight", "decided", "correct", "margin", "reward", "completions", "tokens", "low", "high")


class Window:
    """Statistics between two log lines. Every mean is a mean over pairs or completions, never a mean of batch means."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.started = time.monotonic()

    def add(self, statistics: Tensor) -> None:
        """Take in the statistics of one step, (row, statistic); rows of zero weight are other processes' padding."""
        self.rows.append(statistics[statistics[:, 1] > 0].double())

    def pause(self, seconds: float) -> None:
        """Leave out time that was spent on something else than training."""
        self.started += seconds

    def flush(self) -> dict[str, float | None]:
        """The log line since the last one: loss and margin per pair, rewards per completion, speed; and start anew.

        Accuracy and margin are None when all pairs were ties.
        """
        table = torch.cat(self.rows)
        total = dict(zip(STATISTICS, table.sum(0).tolist(), strict=True))
        seconds = max(time.monotonic() - self.started, 1e-9)
        decided = total["decided"]
        self.rows, self.started = [], time.monotonic()
        return {
            "loss": total["loss"] / total["weight"],
            "accuracy": total["correct"] / decided if decided else None,
            "margin": total["margin"] / decided if decided else None,
            "mean_reward": total["reward"] / total["completions"],
            "min_reward": float(table[:, STATISTICS.index("low")].min()),
            "max_reward": float(table[:, STATISTICS.index("high")].max()),
            "pairs_per_s": total["weight"] / seconds,
            "tokens_per_s": total["tokens"] / seconds,
        }


class Watch:
    """Follows a run from outside; the command line draws a progress bar with one. This one looks away."""

    def start(self, steps: int, done: int) -> None:
        """Called once, with the number of steps and how many an earlier run has done."""

    def step(self, row: dict[str, Any]) -> None:
        """Called with each training line of metrics.jsonl."""

    def evaluation(self, row: dict[str, Any]) -> None:
        """Called with each evaluation line of metrics.jsonl."""

    def stop(self) -> None:
        """Called when the last step is done."""
