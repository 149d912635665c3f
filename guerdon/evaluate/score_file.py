"""Score a file of any size: rows stream through a scorer in constant memory, and a killed run goes on where it stopped.

In: an iterator of rows (`guerdon.data.rows.stream_conversations`) and anything that scores.
Out: one JSON row per input row, in order. While it runs, rows lie in `OUT.partial` beside `OUT.partial.json`, which
names the input and the scorer, so that two models never end up in one file; the final name appears when all is done.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guerdon.data.containers import find_files
from guerdon.data.hub import is_hub_id
from guerdon.data.rows import ScoreRow
from guerdon.files import replacing
from guerdon.types import ConfigError, ContractError, DataError, Score, Scorer

if sys.platform != "win32":
    import fcntl

HEAD = 1 << 20  # bytes of each input file that go into its name
MEASURED = ("probability", "distance", "out_of_distribution")  # what a reward server may say of a score beside it


@dataclass(frozen=True)
class ScoreFileSummary:
    """What is in the finished file, and how long this run took.

    rows         input rows, each with one output row
    statuses     rows by status: `ok` when every completion was scored, else `error`, else `masked`
    completions  conversations in all rows
    truncated    how many of them were cut to the context
    resumed      rows that an earlier run had already scored
    seconds      wall clock of this run
    """

    output: Path
    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    completions: int = 0
    truncated: int = 0
    resumed: int = 0
    seconds: float = 0.0

    @property
    def rows_per_second(self) -> float:
        return (self.rows - self.resumed) / self.seconds if self.seconds else 0.0

    def add(self, record: dict[str, Any]) -> ScoreFileSummary:
        """The summary with one more row of the output counted."""
        return replace(
            self,
            rows=self.rows + 1,
            statuses=self.statuses + Counter([record["status"]]),
            completions=self.completions + len(record["scores"]),
            truncated=self.truncated + sum(record["truncated"]),
        )


def score_file(
    scorer: Scorer,
    source_rows: Iterable[ScoreRow],
    output: Path | str,
    *,
    source: str = "",
    batch: int = 256,
    sync_every: int = 1000,
    total: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> ScoreFileSummary:
    """Write one row per input row to `output` (`.jsonl` or `.parquet`), continuing a run that was cut short.

    source      name of the input for the resume check; `input_identity(path)` makes one
    batch       conversations handed to the scorer at once; a row is never divided
    sync_every  rows between two fsyncs; every batch reaches the operating system, so only a power cut can lose more
    total       number of rows, if known, for the time left

    `scorer.fingerprint`, if there is one, names the model in the resume check. Raises ConfigError when the output
    exists, when the partial file belongs to another model or input, or when another process is writing it.
    """
    output = Path(output)
    partial = _prepare(output, overwrite)
    header = {"input": source, "scorer": str(getattr(scorer, "fingerprint", ""))}
    started = time.perf_counter()
    with partial.open("ab") as file:
        _lock(file, partial)
        summary, last = _recover(file, partial, header, output, overwrite)
        rows = _skip(iter(source_rows), summary.rows, last, partial)
        unsynced = 0
        with _bar(progress) as bar:
            task = bar.add_task("scoring", total=total, completed=summary.rows, speed="")
            for group in _batches(rows, batch):
                records = _score_rows(scorer, group)
                file.write(b"".join(json.dumps(record, allow_nan=False).encode() + b"\n" for record in records))
                file.flush()
                unsynced += len(records)
                if unsynced >= sync_every:
                    os.fsync(file.fileno())
                    unsynced = 0
                for record in records:
                    summary = summary.add(record)
                speed = (summary.rows - summary.resumed) / max(time.perf_counter() - started, 1e-9)
                bar.update(task, completed=summary.rows, speed=f"{speed:,.1f} rows/s")
        os.fsync(file.fileno())
    _finish(partial, output)
    return replace(summary, seconds=time.perf_counter() - started)


def input_identity(path: Path | str) -> str:
    """A name for the input that changes with its content: path, bytes, and a hash of names, sizes and first MiBs.

    A hub set goes by its id. Raises DataError when there is nothing at the path.
    """
    if is_hub_id(str(path)):
        return str(path)
    digest, size = sha256(), 0
    for file in find_files(path):
        size += file.stat().st_size
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(HEAD))
    return f"{Path(path).name}, {size} bytes, {digest.hexdigest()[:16]}"


def _prepare(output: Path, overwrite: bool) -> Path:
    if output.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(f"{output}: scores are written as .jsonl or .parquet; choose one of these endings")
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists; remove it, choose another name, or overwrite it (--overwrite)")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_name(output.name + ".partial")
        partial.touch()
    except OSError as error:
        raise ConfigError(f"{output}: cannot write there ({error}); choose a folder that can be written") from error
    return partial


def _lock(file: BinaryIO, partial: Path) -> None:
    """Two writers would interleave rows; the lock goes when the process does, however it ends."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{partial}: another process is scoring into it; wait for it or choose another name"
            ) from None
        except OSError:
            pass  # some network file systems know no locks


def _recover(
    file: BinaryIO, partial: Path, header: dict[str, str], output: Path, overwrite: bool
) -> tuple[ScoreFileSummary, dict[str, Any] | None]:
    """Count the whole rows that are there, cut off a torn last line, and refuse rows of another model or input."""
    sidecar = partial.with_name(partial.name + ".json")
    summary, last = ScoreFileSummary(output), None
    if partial.stat().st_size:
        found = _read_header(sidecar)
        if found == header:
            end = 0
            for line in _whole_lines(partial):
                last = json.loads(line)
                summary = summary.add(last)
                end += len(line)
            file.truncate(end)
        elif overwrite:
            file.truncate(0)
        else:
            _refuse(partial, found, header)
    with replacing(sidecar) as temporary:
        temporary.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    return replace(summary, resumed=summary.rows), last


def _read_header(sidecar: Path) -> dict[str, str]:
    try:
        header: dict[str, str] = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return header


def _refuse(partial: Path, found: dict[str, str], header: dict[str, str]) -> None:
    for key, what in (("input", "input"), ("scorer", "model")):
        if found.get(key) != header[key]:
            raise ConfigError(
                f"{partial} holds scores of another {what} ('{found.get(key, 'unknown')}', now '{header[key]}'); "
                "remove it to start again, finish it with the old one, or write to another name"
            )


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Lines up to the first that is torn: without its end, or, after a power cut, not JSON."""
    with path.open("rb") as file:
        for line in file:
            try:
                is_row = line.endswith(b"\n") and isinstance(json.loads(line), dict)
            except ValueError:
                is_row = False
            if not is_row:
                return
            yield line


def _skip(rows: Iterator[ScoreRow], done: int, last: dict[str, Any] | None, partial: Path) -> Iterator[ScoreRow]:
    """Step over the rows that are done; the last of them must be the row that was written last."""
    if last is None:
        return rows
    row = next(islice(rows, done - 1, None), None)
    if row is None or row.index != last["index"]:
        raise DataError(
            f"{partial} ends with row {last['index']}, which the input does not have at that place; remove it"
        )
    return rows


def _batches(rows: Iterator[ScoreRow], size: int) -> Iterator[list[ScoreRow]]:
    group: list[ScoreRow] = []
    waiting = 0
    for row in rows:
        group.append(row)
        waiting += max(1, len(row.conversations))
        if waiting >= size:
            yield group
            group, waiting = [], 0
    if group:
        yield group


def _score_rows(scorer: Scorer, rows: Sequence[ScoreRow]) -> list[dict[str, Any]]:
    conversations = [conversation for row in rows if not row.problem for conversation in row.conversations]
    scores = scorer.score(conversations) if conversations else []
    if len(scores) != len(conversations):
        raise ContractError(f"the scorer returned {len(scores)} scores for {len(conversations)} conversations")
    stream = iter(scores)
    return [_record(row, [] if row.problem else [next(stream) for _ in row.conversations]) for row in rows]


def _record(row: ScoreRow, scores: Sequence[Score]) -> dict[str, Any]:
    record: dict[str, Any] = {"index": row.index}
    if isinstance(row.raw, dict) and row.raw.get("id") is not None:
        record["id"] = row.raw["id"]
    failed = [score for score in scores if score.status != "ok"]
    reason = row.problem or (failed[0].reason if failed else "" if scores else "the row holds no conversation")
    if row.problem or not scores or any(score.status == "error" for score in failed):
        status = "error"
    else:
        status = "masked" if failed else "ok"
    record["scores"] = [float(score) if score.status == "ok" else None for score in scores]
    if any(score.members for score in scores):
        record["members"] = [list(score.members) if score.status == "ok" else None for score in scores]
    for name in MEASURED:
        if any(getattr(score, name) is not None for score in scores):
            record[name] = [getattr(score, name) for score in scores]
    record["status"] = status
    if status != "ok":
        record["reason"] = reason
    record["tokens"] = [score.tokens for score in scores]
    record["truncated"] = [score.truncated for score in scores]
    return record


def _finish(partial: Path, output: Path) -> None:
    if output.suffix == ".parquet":
        _to_parquet(partial, output)
        partial.unlink()
    else:
        os.replace(partial, output)
    partial.with_name(partial.name + ".json").unlink()


def _to_parquet(partial: Path, output: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"index": pa.int64(), "id": pa.string(), "scores": pa.list_(pa.float64()), "status": pa.string()}
    kinds |= {"members": pa.list_(pa.list_(pa.float64()))}
    kinds |= {name: pa.list_(pa.bool_() if name == "out_of_distribution" else pa.float64()) for name in MEASURED}
    kinds |= {"reason": pa.string(), "tokens": pa.list_(pa.int64()), "truncated": pa.list_(pa.bool_())}
    schema = pa.schema(kinds)
    with replacing(output) as temporary, partial.open("rb") as file, pq.ParquetWriter(temporary, schema) as writer:
        while lines := list(islice(file, 10_000)):
            records = [json.loads(line) for line in lines]
            for record in records:
                record["id"] = None if record.get("id") is None else str(record["id"])
            writer.write_table(pa.Table.from_pylist(records, schema=schema))


def _bar(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} rows"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not show,
    )
