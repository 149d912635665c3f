"""Rows of a dataset on the Hugging Face hub, streamed through the optional package `datasets`.

In: an id `owner/name`, with a configuration and a split if wanted: `owner/name/config:split`. Out: numbered raw rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from guerdon.types import DataError

_ID = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(/(?P<config>\w[\w.-]*))?(:(?P<split>[\w.\[\]%:-]+))?")
_DATA_SUFFIX = re.compile(r"\.(jsonl|ndjson|json|csv|parquet|txt|tsv|zip|arrow)(\.\w+)?$", re.IGNORECASE)


class HubId(NamedTuple):
    """A dataset of the hub taken apart: `owner/name`, its config if one is named, and its split."""

    name: str
    config: str | None
    split: str


def is_hub_id(path: str) -> bool:
    """True for `owner/name...` when nothing local has that path, nor its first folder: a typo is not a hub id."""
    local = Path(path).exists() or Path(path.partition("/")[0]).exists()
    return bool(_ID.fullmatch(path)) and not _DATA_SUFFIX.search(path) and not local


def parse_hub_id(path: str) -> HubId:
    """`owner/name[/config][:split]`; the split is `train` unless given."""
    found = _ID.fullmatch(path)
    if found is None:
        raise DataError(f"{path}: not a hub dataset id; write owner/name, owner/name/config or owner/name:split")
    return HubId(found["name"], found["config"], found["split"] or "train")


def stream_hub(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows counted from 1. Raises DataError when `datasets` is missing or the set cannot be reached."""
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{path}: no such file, and reading hub sets needs the package datasets; pip install 'guerdon[hub]'"
        ) from None
    name, config, split = parse_hub_id(path)
    number = 0
    try:
        for number, row in enumerate(datasets.load_dataset(name, config, split=split, streaming=True), 1):
            yield number, dict(row)
    except Exception as error:  # datasets, huggingface_hub, httpx and fsspec each raise families of their own
        if isinstance(error, DataError):
            raise
        cause = str(error).partition("\n")[0].rstrip(". ")[:200] or type(error).__name__
        raise DataError(
            f"{path}: no such file, and the hub set cannot be read ({cause}); check name, split and network, "
            "or download the set and give its folder"
        ) from None
    if not number:
        raise DataError(f"{path}: the hub set has no rows in split {split!r}; name another split after a colon")
