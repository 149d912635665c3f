"""Progress bars for long work, on stderr, so that what a command prints can still be piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guerdon.optimize.watch import Watch as RunWatch
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


class OptimizeBar(RunWatch):
    """Watches `optimize`: steps, reward, held-out, KL, length, status, speed, time left; what the monitor says when it changes
    its mind appears as a line above the bar.
    """

    def __init__(self, text: str) -> None:
        self.text, self.status = text, "ok"
        self.progress = _progress(
            "reward {task.fields[reward]}  held-out {task.fields[held]}  KL {task.fields[kl]} nats  "
            "{task.fields[length]} tokens  {task.fields[status]}  {task.fields[speed]}"
        )

    def start(self, steps: int, done: int) -> None:
        empty: dict[str, Any] = dict.fromkeys(("reward", "held", "kl", "length", "status"), "-")
        self.task = self.progress.add_task(self.text, total=steps, completed=done, speed="", **empty)
        self.progress.start()

    def step(self, row: dict[str, Any]) -> None:
        self.progress.update(
            self.task,
            completed=row["step"],
            reward=number(row["proxy"]),
            held=number(row["held_out"]),
            kl=number(row["kl"], 2),
            length=number(row["length"], 0),
            status=row["status"] + (f" {row['masked']} masked" if row["masked"] else ""),
            speed=f"{row['samples_per_s']:.1f} samples/s {row['tokens_per_s']:,.0f} tokens/s",
        )
        if row["status"] != self.status:
            self.status = row["status"]
            line = f"step {row['step']}: monitor says {self.status}: {row['reason']}"
            self.progress.console.print(line, markup=False)

    def stop(self) -> None:
        self.progress.stop()


def number(value: float | None, digits: int = 3) -> str:
    """A number to show, or a dash for one that was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def accuracy_line(evaluation: dict[str, Any]) -> str:
    """Accuracy and its interval; a single prompt has none."""
    low, high = evaluation["accuracy_low"], evaluation["accuracy_high"]
    interval = "one prompt, no interval" if low is None else f"{low:.3f} to {high:.3f}"
    return f"{evaluation['accuracy']:.3f} ({interval})"


def _progress(extra: str) -> Progress:
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()]
    columns += [TextColumn(extra)] if extra else []
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
