"""The page on the client: its code runs against a server, its numbers are those of the code, every call and field is named."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from serving import listening, service_of

from guerdon.client import Client
from guerdon.client.retry import BUSY, LAST_BACKOFF, PATIENCE, TOLD_AFTER
from guerdon.types import Score

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "client.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["client.md", "serve.md"])
def test_the_code_runs(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    with listening(service_of()) as (port, _):
        for code in blocks:
            code = code.replace("http://localhost:8300", f"http://127.0.0.1:{port}")
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout


def test_the_numbers_are_those_of_the_code():
    client = Client("http://h")
    assert f"`timeout` ({client.timeout:.0f} s)" in PAGE
    assert f"`batch` ({client.batch})" in PAGE
    assert f"`connections` ({client.connections})" in PAGE
    assert f"({PATIENCE['mask']:.0f}; with `wait` {PATIENCE['wait']:,.0f})" in PAGE
    assert f"to {LAST_BACKOFF:.0f} s" in PAGE
    assert f"more than {TOLD_AFTER:.0f} s" in PAGE
    assert ", ".join(map(str, BUSY)) in PAGE


def test_every_call_option_and_field_is_named():
    calls = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]
    names = [*calls, *(field.name for field in fields(Client) if field.name != "url"), *Score.__slots__]
    assert [name for name in names if not re.search(rf"`{name}\b|\b{name}=", PAGE)] == []
