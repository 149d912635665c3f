"""One policy run as the server has seen it: its closed steps, its open ones, and what the monitor says; and the file it is in.

The file has one JSON line for each closed step, appended when the step is closed. A line that was torn by a crash is cut off
when the file is read again. Nothing in it was made up: what was not measured is null.
"""

from __future__ import annotations

import json
import logging
import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote

from guerdon.diagnose.monitor import Monitor, Settings
from guerdon.diagnose.monitor_evidence import STARTING
from guerdon.serve.run_tally import Tally
from guerdon.types import ConfigError

logger = logging.getLogger("guerdon.serve")
VERSION = 1
GRACE = 2.0  # seconds that samples of a step may still come in after the next one has begun
PATIENCE = 120.0  # seconds that a step waits for its held-out scores
MOST_OPEN = 8  # steps open at once; with more, the oldest is closed
MOST_CONTRACTS = 32  # of a run that are told apart
MOST_STEPS = 10_000  # closed steps of a run; those after them are counted and no longer judged
NOTHING_YET = "No step is closed yet, so nothing is known."


@dataclass(eq=False)
class Open:
    """A step whose samples are still coming in. `left` and `ended` are monotonic seconds; `asked` is set when it is to be closed."""

    tally: Tally
    pending: int = 0  # held-out scores that are still out
    chosen: int = 0  # samples given to the held-out model
    left: float | None = None  # since when a later step is under way
    is_ended: bool = False  # the client said that it is over


@dataclass(eq=False)
class RunRecord:
    """Everything that is known of a run.

    name      the client's name for it
    monitor   the state of the test
    settings  of the monitor
    columns   name -> one number for each closed step, NaN where it was not measured; `step` and `samples` among them
    said      status of the monitor after each closed step
    verdict   `Verdict.to_dict()` after the last closed step
    counts    samples by status, and those that came too late, without a step, or when there was no room (`dropped`)
    models    what scored it: "name reward-rule"
    contracts (model, contract hash) -> the first step that it scored, or checked
    seen      seconds since 1970 of the last sample
    """

    name: str
    settings: Settings = field(default_factory=Settings)
    monitor: Monitor = field(init=False)
    columns: dict[str, array[float]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    verdict: dict[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    models: dict[str, None] = field(default_factory=dict)
    contracts: dict[tuple[str, str], int] = field(default_factory=dict)
    open: dict[int, Open] = field(default_factory=dict)
    seen: float = 0.0

    def __post_init__(self) -> None:
        self.monitor = Monitor(self.settings)

    @property
    def steps(self) -> int:
        return len(self.said)

    @property
    def last_step(self) -> int | None:
        """The last step that was closed."""
        return int(self.columns["step"][-1]) if self.said else None

    @property
    def wanted(self) -> int:
        """Held-out scores that the next step should get."""
        return int(self.verdict.get("wanted") or self.settings.budget)

    def scored_by(self, model: str, contract: str, step: int) -> None:
        """Note the contract of a model that scores the run, and when it is another than before."""
        if len(self.contracts) < MOST_CONTRACTS:
            self.contracts.setdefault((model, contract), step)

    @property
    def changes(self) -> dict[str, int]:
        """Model -> the step at which its contract was another for the first time, for those it changed of."""
        first: dict[str, str] = {}
        found: dict[str, int] = {}
        for (model, contract), step in self.contracts.items():
            if first.setdefault(model, contract) != contract:
                found.setdefault(model, step)
        return found

    def opened(self, step: int, now: float, clock: float) -> Open | None:
        """The step, open for samples; None when it is over. `now` is monotonic, `clock` is seconds since 1970."""
        if (self.last_step is not None and step <= self.last_step) or step < 0:
            return None
        if step not in self.open:
            self.open[step] = Open(Tally(step, clock))
            newest = max(self.open)
            for number, one in self.open.items():
                if number < newest and one.left is None:
                    one.left = now
        return self.open[step]

    def settle(self, now: float, grace: float = GRACE) -> list[dict[str, Any]]:
        """Close, in order, every step that is over; one line for the file for each."""
        lines = []
        for step in sorted(self.open):
            one = self.open[step]
            waited = now - one.left if one.left is not None else -math.inf
            is_over = one.is_ended or waited >= grace
            is_full = len(self.open) > MOST_OPEN
            if not (is_full or (is_over and (one.pending == 0 or waited >= PATIENCE))):
                break
            del self.open[step]
            lines.append(self._close(one.tally, one.pending))
        return lines

    def _close(self, tally: Tally, pending: int) -> dict[str, Any]:
        tally.missing += pending
        row = {"step": float(tally.step), **tally.row(), "started": tally.started, "ended": self.seen}
        if self.steps >= MOST_STEPS:
            self.counts["unjudged"] += tally.samples
            return {}
        self.verdict = self.monitor.observe(tally.observation()).to_dict()
        self._append(row, str(self.verdict["status"]))
        kept = self.monitor.state()["rows"][-1]
        return {"row": _plain(row), "monitor": kept, "verdict": self.verdict, **self._rest()}

    def _rest(self) -> dict[str, Any]:
        return {
            "counts": dict(self.counts),
            "models": list(self.models),
            "contracts": self._hashes(),
            "seen": self.seen,
        }

    def _hashes(self) -> list[dict[str, Any]]:
        return [{"model": model, "contract": hash, "step": step} for (model, hash), step in self.contracts.items()]

    def _append(self, row: Mapping[str, float | None], status: str) -> None:
        for name, value in row.items():
            if name not in self.columns:
                self.columns[name] = array("d", [math.nan] * self.steps)
            self.columns[name].append(math.nan if value is None else value)
        self.said.append(status)

    def suspended(self) -> dict[str, Any]:
        """The line that a server leaves when it stops in the middle of a step."""
        parts = [one.tally.to_dict() | {"missing": one.tally.missing + one.pending} for one in self.open.values()]
        return {"open": parts, **self._rest()}

    def above_start(self, name: str) -> list[float]:
        """A reward by step above its start, in standard deviations over the answers of the start: the first four steps, of
        those with held-out scores where there are any.
        """
        values, spreads = self.columns[name], self.columns[f"{name}_std"]
        anchor = self.columns["held_out"] if any(map(math.isfinite, self.columns["held_out"])) else values
        first = [i for i in range(self.steps) if math.isfinite(anchor[i]) and math.isfinite(values[i])][:STARTING]
        if not first:
            return [math.nan] * self.steps
        start = math.fsum(values[i] for i in first) / len(first)
        spread = math.fsum(spreads[i] for i in first) / len(first)
        return [(value - start) / spread if spread > 0 else math.nan for value in values]

    def view(self, last: int | None = None) -> dict[str, Any]:
        """What GET /runs/{id} answers: verdict, reason, series. Plain JSON; what is not known is null."""
        series: dict[str, Any] = {name: list(values) for name, values in self.columns.items()}
        if self.said:
            proxy, held = self.above_start("proxy"), self.above_start("held_out")
            gap = [p - h for p, h in zip(proxy, held, strict=True)]
            series |= {"proxy_above": proxy, "held_out_above": held, "gap": gap}
        series["status"] = list(self.said)
        series["step"] = [int(step) for step in series.get("step", [])]
        if last is not None:
            series = {name: values[-last:] if last else [] for name, values in series.items()}
        return self.summary() | {"verdict": self.verdict or None, "series": _plain(series)}

    def summary(self) -> dict[str, Any]:
        """The same without its series and the details of the verdict."""
        newest = max(self.open, default=None)
        return {
            "run": self.name,
            "status": self.status,
            "reason": self.reason,
            "step": self.last_step,
            "steps": self.steps,
            "best_step": self.verdict.get("best_step"),
            "open": None if newest is None else {"step": newest, "samples": self.open[newest].tally.samples},
            "counts": dict(self.counts),
            "models": list(self.models),
            "contracts": self._hashes(),
            "seen": self.seen or None,
        }

    @property
    def status(self) -> str:
        """What the monitor says; no better than `warn` once a contract has changed."""
        said = str(self.verdict.get("status", "ok"))
        return "warn" if said == "ok" and self.changes else said

    @property
    def reason(self) -> str:
        """Why the status is what it is, in sentences for a person."""
        reason = str(self.verdict.get("reason", NOTHING_YET))
        for model, step in self.changes.items():
            reason += f" The contract of {model} changed at step {step}: scores before and after are unlike things."
        if self.counts["unjudged"]:
            reason += f" Judged until step {self.last_step}: a run is watched for {MOST_STEPS:,} steps."
        return reason


def path_of(folder: Path, run: str) -> Path:
    """The file of a run. Whatever its name, the file lies in the folder."""
    name = quote(run, safe="").replace(".", "%2E")
    if len(name) > 180:
        name = f"{name[:140]}-{blake2b(run.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"
    return folder / f"{name}.jsonl"


def append(path: Path, run: RunRecord, line: Mapping[str, Any]) -> None:
    """Add one line to the file of a run, with a first line that says whose it is when it is new. Raises OSError."""
    with path.open("ab") as file:
        if file.tell() == 0:
            file.write(_bytes({"version": VERSION, "run": run.name}))
        file.write(_bytes(line))


def kept(folder: Path, settings: Settings, most: int, rows: int) -> dict[str, RunRecord]:
    """The runs in a folder, the last seen last: at most so many, with so many steps in all. What else lies there is left alone."""
    found: dict[str, RunRecord] = {}
    files = [path for path in folder.glob("*.jsonl") if _is_run(path)]
    for path in sorted(files, key=lambda path: -path.stat().st_mtime_ns)[:most]:
        try:
            run = read(path, settings)
        except ConfigError as error:
            logger.warning("%s", error)
            continue
        if run is not None:
            if found and run.steps + sum(one.steps for one in found.values()) > rows:
                break
            found[run.name] = run
    return dict(reversed(found.items()))


def _is_run(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            return path_of(path.parent, str(json.loads(file.readline(10_000))["run"])) == path
        except (ValueError, TypeError, KeyError, RecursionError):
            return False


def read(path: Path, settings: Settings) -> RunRecord | None:
    """The run in a file, as it was when its last whole line was written; None without a whole first line.

    What a crash left of a line is cut off. Raises ConfigError for a file of another version.
    """
    lines, end = [], 0
    with path.open("rb") as file:
        for text in file:
            try:
                line = json.loads(text) if text.endswith(b"\n") else None
            except ValueError:
                line = None
            if not isinstance(line, dict):
                break
            lines.append(line)
            end += len(text)
    if lines and lines[0].get("version") != VERSION:
        raise ConfigError(
            f"{path}: is a run of version {lines[0].get('version')}, this server reads {VERSION}; move it elsewhere"
        )
    if end < path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(end)
    if not lines:
        return None
    return _rebuilt(str(lines[0]["run"]), lines[1:], settings)


def _rebuilt(name: str, lines: list[dict[str, Any]], settings: Settings) -> RunRecord:
    run = RunRecord(name, settings)
    rows = [line for line in lines if "row" in line]
    for line in rows:
        run._append(line["row"], str(line["verdict"]["status"]))
    if rows:
        run.verdict = rows[-1]["verdict"]
        stopped = next((line["verdict"]["reason"] for line in rows if line["verdict"]["status"] == "stop"), "")
        state = run.monitor.state() | {
            "rows": [line["monitor"] for line in rows],
            "warned_at": run.verdict["warned_at"],
            "stopped_at": run.verdict["stopped_at"],
            "stop_reason": stopped,
        }
        run.monitor = Monitor.restore(state)
    if lines:
        last = lines[-1]
        run.counts, run.seen = Counter(last["counts"]), float(last["seen"])
        run.models = dict.fromkeys(last["models"])
        run.contracts = {(one["model"], one["contract"]): int(one["step"]) for one in last.get("contracts", [])}
        for found in last.get("open", []):
            tally = Tally.of(found)
            run.open[tally.step] = Open(tally)
    return run


def _bytes(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    """JSON has no NaN: it becomes null."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
