"""Published code of other trainers, importable while a test module runs, with ray left out.

verl and OpenRLHF import ray, which is hundreds of megabytes and which the code that calls a reward only uses to move that
code to other machines. Its place is taken by a module whose every name is a mock. Nothing of verl or OpenRLHF themselves is
replaced, except where a test says so.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import pytest

FOLDER = Path(sys.prefix) / "consumers"


class _Mock(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> MagicMock:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=f"{self.__name__}.{name}")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, roots: tuple[str, ...]) -> None:
        self.roots = roots

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in self.roots else None

    def create_module(self, spec):
        return _Mock(spec.name)

    def exec_module(self, module):
        pass


@contextmanager
def consumers(package: str, *mocked: str) -> Iterator[None]:
    """`package` can be imported within the block; the top-level modules in `mocked` are mocks, but for those
    that are there already. Skips where it is not installed."""
    if not (FOLDER / package).is_dir():
        pytest.skip(f"{package} is not installed in {FOLDER}; run: make setup")
    finder, before = _Finder(mocked), set(sys.modules)
    sys.path.append(str(FOLDER))
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER))
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in (package, *mocked) and name not in before]:
            del sys.modules[name]
