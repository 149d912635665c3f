"""What the commands share at a terminal: output, progress, and the model they score with. Heavy imports wait for their use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from guerdon import files
from guerdon.types import ConfigError, GuerdonError

if TYPE_CHECKING:
    from guerdon.model.ensemble import Ensemble
    from guerdon.model.reward import RewardModel
    from guerdon.optimize.implicit import ImplicitReward
    from guerdon.optimize.rewards import Masked, WeightedSum

Options = TypeVar("Options")


def load_model(path: str, device: str | None, reward: str = "mean") -> RewardModel:
    """The reward model at `path`. Raises ConfigError when its head was never trained."""
    from guerdon.model.reward import RewardModel

    with spinner(f"loading {path}"):
        model = RewardModel.load(path, device=device, reward=reward)
    if model.has_new_head:
        raise ConfigError(
            f"{path}: has no trained score head, so its scores would be random; train it first: guerdon train"
        )
    return model


def load_scorer(path: str, device: str | None, reward: str = "mean") -> RewardModel | Ensemble | ImplicitReward:
    """The reward model at `path`, an ensemble of those named between commas, or the implicit reward of a policy from DPO."""
    paths = [name for name in path.split(",") if name]
    if (Path(path) / "implicit_reward.json").is_file():
        from guerdon.optimize.implicit import ImplicitReward

        with spinner(f"loading {path}"):
            return ImplicitReward.load(path, device=device)
    if len(paths) < 2:
        return load_model(path, device, reward)
    from guerdon.model.ensemble import Ensemble

    return Ensemble([load_model(name, device) for name in paths], reward)


def load_reward(
    texts: Sequence[str],
    device: str | None,
    rule: str = "mean",
    masked: Masked = "mask",
    count_tokens: Callable[[str], int] | None = None,
    option: str = "reward",
) -> WeightedSum:
    """The reward that the command line spells, one text for each part (see `parse_rewards`); `rule` is for ensembles,
    `option` for messages.
    """
    from guerdon.optimize.reward_option import parse_rewards

    return parse_rewards(
        texts,
        load=lambda path: load_scorer(path, device, rule),
        count_tokens=count_tokens,
        masked=masked,
        option=option,
    )


def parse_options(cls: type[Options], args: Sequence[str], prog: str, description: str) -> Options:
    """Flags over the --config file over the defaults, for a frozen dataclass; with --resume, what the command leaves open is
    taken from the run that is there.
    """
    import tyro

    from guerdon import options

    words, default = list(args), cls()
    for position, word in enumerate(words):
        if word == "--config" or word.startswith("--config="):
            value, used = (word[9:], 1) if "=" in word else (" ".join(words[position + 1 : position + 2]), 2)
            default, words = options.from_yaml(cls, value), words[:position] + words[position + used :]
            break
    else:
        parts = [part for word in words for part in word.split("=", 1)]
        if "--resume" in parts and "--output" in parts[:-1]:
            saved = Path(parts[parts.index("--output") + 1]) / "config.yaml"
            default = options.from_yaml(cls, saved) if saved.is_file() else default
    words = options.gathered(words, cls)
    # tyro puts what a check of the options raises into a box of its own, so it gets them without checks
    unchecked = type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "__post_init__": lambda self: None})
    given = tyro.cli(unchecked, prog=prog, description=description, args=words, default=unchecked(**vars(default)))
    found = cls(**vars(given))
    _tell_of_a_new_run(found)
    return found


def _tell_of_a_new_run(options: Any) -> None:
    """Say so where --resume finds no run and starts one. Raises ConfigError when nothing is given to start one with."""
    output = getattr(options, "output", "")
    if not output or not getattr(options, "resume", False) or (Path(output) / "config.yaml").is_file():
        return
    if options == type(options)(output=output, resume=True):
        raise ConfigError(f"{output}: there is no run to resume; see to --output, or give the options of a new run")
    if os.environ.get("RANK", "0") == "0":
        print(f"{output}: no run to resume, a new one is started", flush=True)


@contextmanager
def run_folder(path: str) -> Iterator[None]:
    """A folder that did not exist before a run is taken away again when the run ends with an error and left it empty."""
    is_new = bool(path) and not Path(path).exists()
    try:
        yield
    except GuerdonError:
        if is_new:
            with suppress(OSError):
                Path(path).rmdir()
        raise


def require_writable(*paths: str | None) -> None:
    """Raise ConfigError, before any work, when one of the files that are named cannot be written."""
    for path in filter(None, paths):
        files.require_writable(Path(path))


def write_json(path: str | None, value: Any) -> None:
    """Write the value where a path is given, and say where."""
    if path:
        files.write_json(Path(path), value)
        print(f"json: {path}")


def show(renderable: Any) -> None:
    """Print a table or a text on stdout."""
    from rich.console import Console

    Console().print(renderable)


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Say on stderr what is going on until the block ends."""
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextmanager
def counting_bar(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` things on stderr; yields the function that moves it."""
    from guerdon.progress import counting_bar as bar

    with bar(text, total) as advance:
        yield advance
