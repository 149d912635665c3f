"""Files that are whole or absent: write beside the target, then rename. A reader never meets half a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        temporary.unlink(missing_ok=True)
