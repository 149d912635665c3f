"""guerdon demo: the whole path on a simulated world."""

from __future__ import annotations

from pathlib import Path


def demo(output: str = "runs/demo", seed: int = 0) -> None:
    """The whole path on a simulated world, offline: simulate raters, check, train, evaluate, score, report.

    Args:
        output: Run folder; a finished demo in it is replaced.
        seed: Of the world, the raters and the model.
    """
    from guerdon.demo import run

    run(Path(output), seed)
