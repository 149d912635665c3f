"""The run folder: made safe to write before training, resumable after `kill -9`, tidy at the end.

config.yaml      the resolved config             metrics.jsonl   one row per log line and evaluation
model/           the best weights so far         checkpoints/    state to resume from, removed when the run ends
run.json         what went in and what came out, written last
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from guerdon.files import require_writable, sync, write_json
from guerdon.options import resumed
from guerdon.train.config import TrainConfig, from_yaml
from guerdon.types import ConfigError, TrainingError

# Fields that may differ between a run and its resumption without changing what it computes.
_FREE_TO_CHANGE = ("resume", "trackers", "keep_checkpoints", "probes")


@dataclass(frozen=True)
class Progress:
    """How far a run has come: steps done, and the best evaluation so far (`best` is higher-is-better).

    `data` is a digest of the encoded examples in their order: a run is resumed on the data it was started on, or not at all.
    """

    step: int = 0
    data: str = ""
    best: float | None = None
    best_step: int = 0
    evaluation: dict[str, Any] = field(default_factory=dict)


def prepare_output(config: TrainConfig) -> TrainConfig:
    """Make the run folder, prove that it can be written, and return the config to run with; nothing is written yet.

    A folder that already holds a run is touched only with `resume`, and only under the config it was started with; what
    the command leaves open is then taken from there. Raises ConfigError before any work is lost.
    """
    if not config.output:
        raise ConfigError("--output is missing; give it as a flag or in the --config file")
    output = Path(config.output)
    saved = output / "config.yaml"
    if config.resume and not saved.is_file():
        config.require_paths()
    require_writable(saved)
    if not config.resume:
        if any((output / name).exists() for name in ("config.yaml", "model", "checkpoints", "metrics.jsonl")):
            raise ConfigError(f"{output}: already holds a run; go on with --resume, or choose another --output")
        return config
    return resumed(config, from_yaml(saved), _FREE_TO_CHANGE, output) if saved.is_file() else config


def require_space(output: Path, model: nn.Module, config: TrainConfig) -> None:
    """Raise TrainingError when the disk cannot hold what the run will write: model, checkpoints, and one of each in the
    making.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    moments = 3 if config.average else 2  # AdamW keeps two moments per trained weight, the average is a third
    checkpoint = weights + moments * trained
    needed = 2 * weights + (config.keep_checkpoints + 1) * checkpoint
    free = shutil.disk_usage(output).free
    if free < needed:
        raise TrainingError(
            f"{output}: the run needs about {needed / 1e9:.2f} GB for its model and checkpoints, the disk has "
            f"{free / 1e9:.2f} GB free; make room or choose another --output"
        )


class Checkpoints:
    """Resumable states under `checkpoints/step-N`. One counts once it holds `progress.json`, which is written last."""

    def __init__(self, output: Path, keep: int) -> None:
        self.folder = output / "checkpoints"
        self.keep = max(1, keep)

    def save(self, accelerator: Accelerator, progress: Progress) -> None:
        """Write model, optimizer and random state as of `progress.step`, then forget the oldest."""
        target = self.folder / f"step-{progress.step:08d}"
        if accelerator.is_main_process:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
        accelerator.wait_for_everyone()
        try:
            accelerator.save_state(str(target))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise TrainingError(f"{target}: cannot be saved ({error}); make room and go on with --resume") from error
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            sync(target)
            write_json(target / "progress.json", asdict(progress))
            for old in self._finished()[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)

    def restore(self, accelerator: Accelerator, data: str) -> Progress:
        """Load the last finished checkpoint into the prepared model and optimizer; a fresh Progress when there is none.

        Raises ConfigError when the data have changed since, TrainingError when the checkpoint cannot be read.
        """
        finished = self._finished()
        if not finished:
            return Progress(data=data)
        progress = Progress(**json.loads((finished[-1] / "progress.json").read_text(encoding="utf-8")))
        if progress.data != data:
            raise ConfigError(
                f"{self.folder.parent}: the training data or its tokens are not those the run was started on; "
                "restore them, or start anew with another --output"
            )
        try:
            accelerator.load_state(str(finished[-1]))
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            raise TrainingError(
                f"{finished[-1]}: cannot be read ({error}); delete it to go on from an earlier state"
            ) from error
        return progress

    def remove(self) -> None:
        """Forget all checkpoints: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _finished(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("step-*/progress.json"))
