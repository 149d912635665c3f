"""The command line: one thin function per command. Heavy libraries are imported inside the command that needs them."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from tyro.conf import Positional

from guerdon.files import require_writable, write_json
from guerdon.types import ConfigError, GuerdonError

if TYPE_CHECKING:
    from guerdon.model.reward import RewardModel

OVERVIEW = """usage: guerdon COMMAND [OPTIONS]

Guerdon turns human comparisons into a reward that can be trusted.

commands, in the order of the work:
  check     say what is in a file, folder or hub set of comparisons, and what is wrong with it
  train     train a reward model on comparisons
  evaluate  measure a reward model on held-out comparisons, with intervals and baselines
  score     score prompts with one or many answers each, resumable, in constant memory
  demo      the whole path on a simulated world, offline, in minutes

`guerdon COMMAND --help` explains the options of a command; `guerdon --version` prints the version.
"""


def check(
    data: Positional[str],
    json: str | None = None,
    format: str | None = None,
    model: str | None = None,
    max_length: int | None = None,
) -> None:
    """Say what is in a set of comparisons: rows, prompts, lengths, ties, duplicates, empty answers, what would be cut.

    Args:
        data: File (.jsonl, .json, .parquet, .csv, each also .gz), folder, or hub dataset id.
        json: Also write the report to this file, as JSON.
        format: Format of the rows, when it is not to be recognised (see docs/data.md).
        model: Count tokens with this model's tokenizer and template; without it lengths are estimates.
        max_length: Context in tokens, to report what it would cut. Default with a model: what the model allows.
    """
    from guerdon.data.check import check as check_data

    _require_writable(json)
    measure = None
    if model:
        from guerdon.model.load import load_encoder

        encoder = load_encoder(model, max_length)
        measure, max_length = encoder.lengths, encoder.max_length
    with _spinner(f"reading {data}"):
        report = check_data(data, format=format, lengths=measure, max_length=max_length)
    _print(report.render())
    _write_json(json, report.to_dict())


def train(config: Any) -> None:
    """Train a reward model; see TrainConfig for the options."""
    from guerdon.progress import TrainingBar, accuracy_line
    from guerdon.train.loop import fit

    def say(line: str) -> None:
        print(line, flush=True)

    bar = TrainingBar()
    try:
        result = fit(config, say=say, watch=bar)
    finally:
        bar.stop()  # also on an error, or its message would be drawn over
    if not result.is_main_process:
        return
    if not result.evaluation:
        say(f"trained in {result.seconds:.0f} s, nothing was held out to evaluate on; the model is {result.model}")
        return
    e = result.evaluation
    say(
        f"accuracy {accuracy_line(e)} on {e['n']} held-out pairs, always taking the longer answer {e['longer_wins']:.3f}; "
        f"{result.seconds:.0f} s; the model is {result.model}"
    )


def evaluate(
    model: str,
    data: tuple[str, ...],
    json: str | None = None,
    table: str | None = None,
    format: str | None = None,
    ceiling: float | None = None,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Measure a reward model: accuracy with a 95 % interval over prompts, calibration, baselines, by source.

    Args:
        model: Folder or hub id of a reward model.
        data: Comparisons to evaluate on.
        json: Write the metrics to this file, as JSON.
        table: Write the scores to this file (.jsonl or .parquet), one row per completion.
        format: Format of the rows, when it is not to be recognised.
        ceiling: Best accuracy that the noise of these labels allows, if known; shown beside the accuracy.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        seed: Of the bootstrap.
    """
    from guerdon.data.read import load
    from guerdon.evaluate.metrics import evaluate as measure
    from guerdon.evaluate.render import render
    from guerdon.evaluate.score import score_comparisons

    _require_writable(json, table)
    comparisons = load(data, format=format)
    reward_model = _load_scorer(model, device)
    with _bar("scoring", len(comparisons.comparisons)) as advance:
        scores = score_comparisons(reward_model, comparisons.comparisons, advance=advance)
    result = measure(scores, seed=seed)
    _print(render(result, ceiling=ceiling, title=f"{model} on {', '.join(data)}"))
    kept_out = ", ".join(f"{count} {reason}" for reason, count in comparisons.dropped.items())
    if kept_out:
        print(f"kept out of {comparisons.rows} rows: {kept_out}")
    if table:
        scores.write(table)
    dropped = {"rows": comparisons.rows, "dropped": comparisons.dropped}
    contract = reward_model.contract.hash if reward_model.contract else None
    _write_json(json, result.to_dict() | dropped | {"model": model, "data": list(data), "contract": contract})


def score(
    model: str,
    data: str,
    output: str,
    batch: int = 256,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Score a file of prompts with one or N answers each: one output row per input row, in order, resumable.

    Args:
        model: Folder or hub id of a reward model.
        data: Rows with `prompt` and `completion` or `completions`, or `messages`, or `chosen` and `rejected`.
        output: File to write (.jsonl or .parquet); each row has `scores`, `status`, `tokens`, `truncated`.
        batch: Conversations scored at once; no effect on the scores.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        overwrite: Replace an output that is already there.
    """
    from guerdon.data.rows import stream_conversations
    from guerdon.evaluate.score_file import input_identity, score_file

    identity = input_identity(data)
    rows = stream_conversations(data)
    summary = score_file(_load_scorer(model, device), rows, output, source=identity, batch=batch, overwrite=overwrite)
    statuses = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
    print(
        f"{summary.output}: {summary.rows} rows ({statuses or 'none'}), {summary.completions} scores, "
        f"{summary.truncated} cut to the context, {summary.resumed} from an earlier run, {summary.rows_per_second:.1f} rows/s"
    )


def demo(output: str = "runs/demo", seed: int = 0) -> None:
    """The whole path on a simulated world, offline: simulate raters, check, train, evaluate, score, report.

    Args:
        output: Run folder; a finished demo in it is replaced.
        seed: Of the world, the raters and the model.
    """
    from guerdon.demo import run

    run(Path(output), seed)


COMMANDS: dict[str, Callable[..., None]] = {
    "check": check,
    "train": train,
    "evaluate": evaluate,
    "score": score,
    "demo": demo,
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Errors a user can mend are one sentence on stderr and exit status 2."""
    args = sys.argv[1:] if arguments is None else arguments
    if not args or args[0] in ("-h", "--help"):
        print(OVERVIEW, end="")
        return
    if args[0] == "--version":
        from guerdon import __version__

        print(f"guerdon {__version__}")
        return
    try:
        _dispatch(args[0], args[1:])
    except GuerdonError as error:
        _stop(str(error))
    except MemoryError:
        _stop("out of memory; lower --tokens-per-row (training) or --batch (scoring)")
    except OSError as error:  # a full disk, a missing right: what and where is all a user needs
        _stop(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        _stop("interrupted", 130)


def _dispatch(name: str, args: list[str]) -> None:
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        raise ConfigError(
            f"there is no command '{name}'" + (f"; did you mean {close[0]}?" if close else "; see guerdon --help")
        )
    if name == "train":
        train(_train_config(args))
        return
    tyro.cli(COMMANDS[name], prog=f"guerdon {name}", args=args)


def _train_config(args: list[str]) -> Any:
    """Flags over the --config file over the defaults; all three use the same names."""
    from guerdon.train.config import TrainConfig, from_yaml

    default = TrainConfig()
    for position, word in enumerate(args):
        if word == "--config" or word.startswith("--config="):
            value, used = (word[9:], 1) if "=" in word else (args[position + 1] if position + 1 < len(args) else "", 2)
            default, args = from_yaml(value), args[:position] + args[position + used :]
            break
    return tyro.cli(
        TrainConfig,
        prog="guerdon train",
        description="Train a reward model on comparisons. --config FILE reads any of these options from a YAML file; "
        "flags on the command line win over it.",
        args=args,
        default=default,
    )


def _load_scorer(path: str, device: str | None) -> RewardModel:
    from guerdon.model.reward import RewardModel

    with _spinner(f"loading {path}"):
        model = RewardModel.load(path, device=device)
    if model.has_new_head:
        raise ConfigError(
            f"{path}: has no trained score head, so its scores would be random; train it first: guerdon train"
        )
    return model


def _require_writable(*paths: str | None) -> None:
    for path in filter(None, paths):
        require_writable(Path(path))


def _write_json(path: str | None, value: Any) -> None:
    if path:
        write_json(Path(path), value)


def _print(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


@contextmanager
def _spinner(text: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextmanager
def _bar(text: str, total: int) -> Iterator[Callable[[int], None]]:
    from guerdon.progress import counting_bar

    with counting_bar(text, total) as advance:
        yield advance


def _stop(message: str, status: int = 2) -> None:
    print(f"guerdon: {message}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
