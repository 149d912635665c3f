"""guerdon train: from comparisons to a reward model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from guerdon.terminal import parse_options, run_folder
from guerdon.types import GuerdonError


def train(config: Any) -> None:
    """Train a reward model; see TrainConfig for the options."""
    from guerdon.progress import TrainingBar, accuracy_line
    from guerdon.train.loop import fit

    def say(line: str) -> None:
        print(line, flush=True)

    bar = TrainingBar()
    with run_folder(config.output):
        try:
            result = fit(config, say=say, watch=bar)
        finally:
            bar.stop()  # also on an error, or its message would be drawn over
    if not result.is_main_process:
        return
    e = result.evaluation
    if e:
        say(
            f"accuracy {accuracy_line(e)} on {e['n']} held-out pairs, always taking the longer answer {e['longer_wins']:.3f}; "
            f"{result.seconds:.0f} s; the model is {result.model}"
        )
    else:
        say(f"trained in {result.seconds:.0f} s, nothing was held out to evaluate on; the model is {result.model}")
    if result.steps:
        _write_report(Path(config.output), config.probes, say)


def _write_report(run: Path, probes: int, say: Callable[[str], None]) -> None:
    """The run's page and model card. The model is there already, so a page that cannot be drawn is no failure."""
    from guerdon.commands.report import write_run_report

    try:
        write_run_report(run, run / "report.html", probes=probes, say=say)
    except GuerdonError as error:
        say(f"no report was written ({error}); try again with: guerdon diagnose report {run}")


def parse(args: list[str]) -> Any:
    """Flags over the --config file over the defaults; all three use the same names."""
    from guerdon.train.config import TrainConfig

    return parse_options(
        TrainConfig,
        args,
        "guerdon train",
        "Train a reward model on comparisons. --config FILE reads any of these options from a YAML file; "
        "flags on the command line win over it.",
    )
