"""Progress bars for long work, on stderr, so that what a command prints can still be piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guerdon.train.metrics import Watch


@contextmanager
def counting_bar(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` things; yields the function that moves it."""
    with _progress("") as progress:
        task = progress.add_task(text, total=total)
        yield lambda count: progress.advance(task, count)


class TrainingBar(Watch):
    """Watches `fit`: steps, loss, accuracy, speed, time left; evaluations appear as lines above the bar."""

    def __init__(self) -> None:
        self.progress = _progress("loss {task.fields[loss]}  acc {task.fields[acc]}  {task.fields[speed]}")

    def start(self, steps: int, done: int) -> None:
        self.task = self.progress.add_task("training", total=steps, completed=done, loss="-", acc="-", speed="")
        self.progress.start()

    def step(self, row: dict[str, Any]) -> None:
        speed = f"{row['pairs_per_s']:.1f} pairs/s {row['tokens_per_s']:,.0f} tokens/s"
        self.progress.update(
            self.task,
            completed=row["step"],
            loss=f"{row['loss']:.4f}",
            acc="-" if row["accuracy"] is None else f"{row['accuracy']:.3f}",
            speed=speed,
        )

    def evaluation(self, row: dict[str, Any]) -> None:
        self.progress.console.print(
            f"step {row['step']}: held-out accuracy {accuracy_line({k[5:]: v for k, v in row.items()})}, "
            f"nll {row['eval_nll']:.4f}"
        )

    def stop(self) -> None:
        self.progress.stop()


class StepBar:
    """Watches a run by steps: loss, tokens/s, time left; what `note` makes of a row appears as a line above the bar."""

    def __init__(self, text: str, note: Callable[[dict[str, Any]], str] = lambda row: "") -> None:
        self.text, self.note = text, note
        self.progress = _progress("loss {task.fields[loss]}  {task.fields[speed]}")

    def start(self, steps: int, done: int) -> None:
        self.task = self.progress.add_task(self.text, total=steps, completed=done, loss="-", speed="")
        self.progress.start()

    def step(self, row: dict[str, Any]) -> None:
        speed = f"{row['tokens_per_s']:,.0f} tokens/s"
        self.progress.update(self.task, completed=row["step"], loss=f"{row['loss']:.4f}", speed=speed)
        if line := self.note(row):
            self.progress.console.print(line)

    def stop(self) -> None:
        self.progress.stop()


def accuracy_line(evaluation: dict[str, Any]) -> str:
    """Accuracy and its interval; a single prompt has none."""
    low, high = evaluation["accuracy_low"], evaluation["accuracy_high"]
    interval = "one prompt, no interval" if low is None else f"{low:.3f} to {high:.3f}"
    return f"{evaluation['accuracy']:.3f} ({interval})"


def _progress(extra: str) -> Progress:
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()]
    columns += [TextColumn(extra)] if extra else []
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
