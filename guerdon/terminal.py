"""What the commands share at a terminal: output, progress, and the model they score with. Heavy imports wait for their use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon import files
from guerdon.types import ConfigError

if TYPE_CHECKING:
    from guerdon.model.ensemble import Ensemble
    from guerdon.model.reward import RewardModel


def load_scorer(path: str, device: str | None, reward: str = "mean") -> RewardModel | Ensemble:
    """The reward model at `path`, or an ensemble of those named between commas. Raises ConfigError when a head was never
    trained.
    """
    from guerdon.model.ensemble import Ensemble
    from guerdon.model.reward import RewardModel

    paths = [name for name in path.split(",") if name]
    with spinner(f"loading {path}"):
        alone = reward if len(paths) == 1 else "mean"
        models = [RewardModel.load(name, device=device, reward=alone) for name in paths or [path]]
    for name, model in zip(paths, models, strict=False):
        if model.has_new_head:
            raise ConfigError(
                f"{name}: has no trained score head, so its scores would be random; train it first: guerdon train"
            )
    return models[0] if len(models) == 1 else Ensemble(models, reward)


def require_writable(*paths: str | None) -> None:
    """Raise ConfigError, before any work, when one of the files that are named cannot be written."""
    for path in filter(None, paths):
        files.require_writable(Path(path))


def write_json(path: str | None, value: Any) -> None:
    """Write the value where a path is given."""
    if path:
        files.write_json(Path(path), value)


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
