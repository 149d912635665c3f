"""Who follows a policy run from outside; free of torch, so that a progress bar can be one."""

from __future__ import annotations

from typing import Any


class Watch:
    """Follows a run from outside; the command line draws a progress bar with one. This one looks away."""

    def start(self, steps: int, done: int) -> None:
        """Called once, with the number of steps and how many an earlier run has done."""

    def step(self, row: dict[str, Any]) -> None:
        """Called with each row of metrics.jsonl."""

    def stop(self) -> None:
        """Called when the last step is done, or the run ends with an error."""
