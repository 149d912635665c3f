"""Tables as columns: read from and written to `.jsonl`, `.jsonl.gz` and `.parquet`, NaN as null."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.files import replacing
from guerdon.types import ConfigError, DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Texts = NDArray[np.object_]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table file as dictionaries. Raises DataError when it cannot be read, naming the line."""
    try:
        return _read_parquet(path) if path.suffix == ".parquet" else list(_read_jsonl(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give a table of scores (.jsonl, .jsonl.gz or .parquet)") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error}); give a table of scores (.jsonl, .jsonl.gz or .parquet)"
        ) from error


def write_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write aligned columns, NaN as null; an old file is replaced once the new one is whole."""
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            arrays = {name: pa.array(values.tolist(), from_pandas=True) for name, values in columns.items()}
            pq.write_table(pa.table(arrays), temporary)
            return
        with _open_text(path, temporary, "w") as file:
            for row in zip(*(values.tolist() for values in columns.values()), strict=True):
                record = {name: None if value != value else value for name, value in zip(columns, row, strict=True)}
                file.write(json.dumps(record) + "\n")


def texts(values: Sequence[Any]) -> Texts:
    """A column of text."""
    column = np.empty(len(values), dtype=object)
    column[:] = [str(value) for value in values]
    return column


def floats(values: Sequence[Any]) -> Floats:
    """A column of numbers, None as NaN."""
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)


def plain(value: Any, *, keep_none: bool = False) -> Any:
    """A record as JSON holds it: arrays as lists, a number that is not finite as None.

    What is None in a mapping is left out, or with `keep_none` stays, for records whose keys are always all there.
    """
    if isinstance(value, Mapping):
        kept = value.items() if keep_none else ((key, item) for key, item in value.items() if item is not None)
        return {key: plain(item, keep_none=keep_none) for key, item in kept}
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), keep_none=keep_none)
    if isinstance(value, tuple | list):
        return [plain(item, keep_none=keep_none) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _open_text(path: Path, at: Path, mode: str) -> Any:
    """`at` opened as text, packed or not as the name of `path` says."""
    if path.suffix == ".gz":
        return gzip.open(at, mode + "t", encoding="utf-8")
    if path.suffix != ".jsonl":
        raise ConfigError(f"{path}: a score table is .jsonl, .jsonl.gz or .parquet; choose one of these endings")
    return at.open(mode, encoding="utf-8")


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with _open_text(path, path, "r") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path} line {number}: not JSON ({error}); mend or remove the line") from error
            if not isinstance(row, dict):
                raise DataError(
                    f"{path} line {number}: expected an object with a score per row, got {type(row).__name__}"
                )
            yield row


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
