"""Files and folders that are whole or absent: written beside the target, then renamed. A reader never meets half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from guerdon.types import ConfigError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder (made if needed) that becomes `path` when the block ends without an error.

    Raises ConfigError when the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); check folder, rights and space") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece. Raises ConfigError when the disk refuses."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one piece. Raises ConfigError when the disk refuses."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def rewind(path: Path, step: int) -> None:
    """Drop the lines of a JSONL file, if it is there, whose `step` is later, and any that were cut short: they come again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError):
            continue
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(kept))


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place when the block ends without an error.

    The old folder steps aside first and is removed last; what a killed process left unfinished is removed by the next.
    """
    staging, old = target.with_name(f".{target.name}.writing"), target.with_name(f".{target.name}.old")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    yield staging
    _open_to_others(staging)
    sync(staging)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _open_to_others(folder: Path) -> None:
    """The rights that the user's umask gives to new files; some libraries write theirs for the owner alone."""
    os.umask(mask := os.umask(0))
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


def sync(folder: Path) -> None:
    """Force every file below `folder` to the disk, so that not even a power cut leaves a finished name on unfinished data."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def require_writable(path: Path) -> None:
    """Raise ConfigError when a file could not be written at `path`: better before the work than after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); check folder, rights and space") from error
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file")
