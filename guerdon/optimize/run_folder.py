"""The folder of a policy run: made safe to write, resumable after `kill -9`, with snapshots to roll back to.

config.yaml     the resolved config            metrics.jsonl    one row per step
samples.jsonl   what was answered, and worth   held_out.jsonl   what the monitor was given
policy/         the policy, written at the end monitor.json     the monitor's last verdict
checkpoints/    state to resume from           snapshots/       earlier weights, while the run goes on
run.json        what came out: the run is complete
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from guerdon.files import replacing, require_writable, rewind, sync, write_json
from guerdon.optimize.config import OptimizeConfig, from_yaml
from guerdon.optimize.policy import Policy
from guerdon.options import resumed
from guerdon.types import ConfigError, TrainingError

STREAMS = ("metrics.jsonl", "samples.jsonl", "held_out.jsonl")
# Options that may differ between a run and its resumption without changing what it computes.
_FREE_TO_CHANGE = ("resume", "trackers")


def prepare_output(config: OptimizeConfig) -> OptimizeConfig:
    """Make the run folder, prove that it can be written, and return the config to run with; nothing is written yet.

    Raises ConfigError when the folder holds a run and `resume` is not set, or one with other options.
    """
    if not config.output:
        raise ConfigError("--output is missing; give it as a flag or in the --config file")
    output = Path(config.output)
    saved = output / "config.yaml"
    if config.resume and not saved.is_file():
        config.require_paths()
    require_writable(saved)
    if config.resume:
        return resumed(config, from_yaml(saved), _FREE_TO_CHANGE, output) if saved.is_file() else config
    if any((output / name).exists() for name in ("config.yaml", "policy", "checkpoints", "metrics.jsonl")):
        raise ConfigError(f"{output}: already holds a run; go on with --resume, or choose another --output")
    return config


class RunFolder:
    """What a run writes while it goes. Lines after the last checkpoint are dropped when it is resumed: they come again."""

    def __init__(self, output: Path, accelerator: Accelerator) -> None:
        self.output = output
        self.accelerator = accelerator

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Add rows to one of the streams (main process only)."""
        if self.accelerator.is_main_process and rows:
            with (self.output / name).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows)

    def save(self, step: int, record: dict[str, Any]) -> None:
        """A resumable state as of `step`; `record` is what the loop needs beside weights, plain JSON. The older one goes."""
        target = self.output / "checkpoints" / f"step-{step:08d}"
        if self.accelerator.is_main_process:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        try:
            self.accelerator.save_state(str(target))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise TrainingError(f"{target}: cannot be saved ({error}); make room and go on with --resume") from error
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            sync(target)
            write_json(target / "record.json", {**record, "step": step})
            for old in self._finished()[:-1]:
                shutil.rmtree(old, ignore_errors=True)

    def restore(self) -> dict[str, Any] | None:
        """Load the last finished checkpoint into what was prepared, and return its record; None when there is none."""
        finished = self._finished()
        if not finished:
            self._rewind(0)
            return None
        try:
            record: dict[str, Any] = json.loads((finished[-1] / "record.json").read_text(encoding="utf-8"))
            self.accelerator.load_state(str(finished[-1]))
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            raise TrainingError(
                f"{finished[-1]}: cannot be read ({error}); delete it to go on from an earlier state"
            ) from error
        self._rewind(int(record["step"]))
        return record

    def snapshot(self, policy: Policy, step: int, best: int | None) -> None:
        """Keep the weights that train as of `step`, and of the earlier ones the nearest to `best`, the two before it, since the
        best step may yet turn out to be an earlier one, and all after it.
        """
        if not self.accelerator.is_main_process:
            return
        weights = {name: p.detach().cpu().contiguous() for name, p in policy.net.named_parameters() if p.requires_grad}
        with replacing(self._snapshot(step)) as temporary:
            save_file(weights, str(temporary))
        if best is not None:
            known = self._snapshots()
            for old in known[: max(0, known.index(self.nearest(best)) - 2)]:
                self._snapshot(old).unlink()

    def nearest(self, step: int) -> int:
        """The snapshot that is nearest to a step, the earlier of two."""
        return min(self._snapshots(), key=lambda known: (abs(known - step), known))

    def roll_back(self, policy: Policy, step: int) -> None:
        """Give the policy the weights of a snapshot."""
        weights = load_file(str(self._snapshot(step)))
        with torch.no_grad():
            for name, parameter in policy.net.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])

    def finish(self) -> None:
        """Forget checkpoints and snapshots: the run is complete."""
        for name in ("checkpoints", "snapshots"):
            shutil.rmtree(self.output / name, ignore_errors=True)

    def _finished(self) -> list[Path]:
        return sorted(path.parent for path in (self.output / "checkpoints").glob("step-*/record.json"))

    def _snapshot(self, step: int) -> Path:
        return self.output / "snapshots" / f"step-{step:08d}.safetensors"

    def _snapshots(self) -> list[int]:
        return sorted(int(path.stem[5:]) for path in (self.output / "snapshots").glob("step-*.safetensors"))

    def _rewind(self, step: int) -> None:
        """Drop lines after `step`, and a last line that was cut short; snapshots after it are written again as well."""
        if not self.accelerator.is_main_process:
            return
        for name in STREAMS:
            rewind(self.output / name, step)
        for old in self._snapshots():
            if old > step:
                self._snapshot(old).unlink()
