"""Reads the folder that a policy run leaves, or is still writing, for the run's page and for the choice of pairs to label.

In: a folder with `metrics.jsonl`. Out: a `Run`. Nothing is changed, and what is not there yet is not needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from guerdon.diagnose.kl_fits import Fit
from guerdon.diagnose.monitor_curve import fit_steps, start_of
from guerdon.evaluate.columns import Floats
from guerdon.types import DataError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A policy run as its files tell it.

    name        what it is called on the page
    rows        of metrics.jsonl, in order of step
    config      of config.yaml; empty when there is none
    saved_step  step whose policy was saved; None while the run is unfinished
    """

    path: Path
    name: str
    rows: Sequence[Row]
    config: Mapping[str, Any]
    saved_step: int | None

    @property
    def last(self) -> Row:
        return self.rows[-1]

    @property
    def window(self) -> int:
        """Steps that make up the start and the end: a tenth of the run, at most 10."""
        return min(10, max(1, len(self.rows) // 10))

    @property
    def has_held_out(self) -> bool:
        return any(row.get("held_out") is not None for row in self.rows)

    @property
    def asked_held_out(self) -> int:
        """Answers whose held-out score was asked for, whether or not it came."""
        return sum(int(row.get("held_out_asked") or 0) for row in self.rows)

    def series(self, name: str) -> Floats:
        """(steps,) one column, NaN where it was not measured."""
        values = [row.get(name) for row in self.rows]
        return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)

    def has(self, name: str) -> bool:
        return bool(np.isfinite(self.series(name)).any())

    def start(self, name: str) -> float:
        """Mean over the first steps, see `window`; NaN when nothing was measured there."""
        return _mean(self.series(name)[: self.window])

    def end(self, name: str) -> float:
        """Mean over the last steps, see `window`."""
        return _mean(self.series(name)[-self.window :])

    def first_with(self, *statuses: str) -> int | None:
        """The first step at which the monitor said one of these."""
        return next((int(row["step"]) for row in self.rows if row.get("status") in statuses), None)

    @property
    def best_step(self) -> int | None:
        """Where the monitor saw smoothed held-out highest."""
        found = self.last.get("best_step")
        return None if found is None else int(found)

    def near(self, step: int, name: str) -> float:
        """Mean of a column over the steps about `step`, as many as make up the start."""
        at = int(np.argmin(np.abs(self.series("step") - step)))
        half = self.window // 2
        return _mean(self.series(name)[max(0, at - half) : at + half + 1])

    def fit(self) -> Fit | None:
        """Gao's curve through the run so far, as the monitor fits it; None when there is too little."""
        n, kl, mean = self._scored()
        return fit_steps(n, kl, mean) if len(n) else None

    def held_out_start(self) -> float:
        """Held-out that the fitted curve starts from."""
        n, _, mean = self._scored()
        return start_of(n, mean)

    def _scored(self) -> tuple[Floats, Floats, Floats]:
        """Number, KL and mean of the held-out scores of each step that has any."""
        mean, kl = self.series("held_out"), self.series("kl")
        known = np.isfinite(mean) & np.isfinite(kl)
        n = self.series("held_out_n") if self.has("held_out_n") else np.ones(len(mean))
        return np.nan_to_num(n, nan=1.0)[known], kl[known], mean[known]

    def samples(self, steps: Sequence[int]) -> dict[int, list[Row]]:
        """Rows of samples.jsonl of the written steps nearest to those asked for: written step -> rows."""
        path = self.path / "samples.jsonl"
        if not path.is_file():
            return {}
        known = sorted({int(row["step"]) for row in stream_rows(path)})
        wanted = {min(known, key=lambda one: (abs(one - step), one)) for step in steps} if known else set()
        found: dict[int, list[Row]] = {step: [] for step in sorted(wanted)}
        for row in stream_rows(path):
            if row["step"] in found:
                found[row["step"]].append(row)
        return found


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in these folders, under the shortest names that tell them apart.

    Raises DataError for a folder without `metrics.jsonl`, or with one that holds no step.
    """
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def stream_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a stream of a run. A last line that is still being written is left out.

    Raises DataError, with file and line, for any other line that is no JSON object with a step.
    """
    torn: str | None = None
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if torn is not None:
                raise DataError(torn)
            try:
                row = json.loads(line)
                row["step"]
            except (ValueError, TypeError, KeyError):
                torn = f"{path}:{number}: is not a row of a policy run; restore the file or go on with --resume"
                if line.endswith("\n"):
                    raise DataError(torn) from None
                continue
            yield row


def _read(path: Path, name: str) -> Run:
    metrics = path / "metrics.jsonl"
    if not metrics.is_file():
        raise DataError(f"{path}: is not the folder of a policy run (no metrics.jsonl); give the --output of one")
    rows = sorted(stream_rows(metrics), key=lambda row: int(row["step"]))
    if not rows or "proxy" not in rows[-1]:
        raise DataError(f"{metrics}: holds no step of a policy run; for a reward model use guerdon diagnose report")
    try:
        config = yaml.safe_load(_text(path / "config.yaml")) or {}
        record = json.loads(_text(path / "run.json") or "{}")
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: config.yaml or run.json cannot be read ({error}); restore or delete it") from error
    return Run(path, name, rows, config, record.get("saved_step"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _names(paths: Sequence[Path]) -> list[str]:
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path.name}" for number, path in enumerate(paths, 1)]


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
