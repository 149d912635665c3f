"""The curl commands of docs/dialects.md run, and their replies have the shape that the page shows."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from dialect_server import causal, serving  # noqa: F401

from guerdon.serve.app import DIALECTS

PAGE = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```bash\n(.*?)```\n```json\n(.*?)```", PAGE, re.DOTALL)


def shape(value):
    """What a reply is made of: keys, kinds, and texts that are not ids or hashes."""
    if isinstance(value, dict):
        free = ("id", "model_version")
        return {key: "" if key in free else shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return list(map(shape, value))
    return value if isinstance(value, str | bool | None) else float


@pytest.fixture(scope="module")
def address(causal):  # noqa: F811
    with serving({"rm": causal.model}) as url:
        yield url


def read_all(text):
    """JSON values that follow one another."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


@pytest.mark.parametrize(("commands", "replies"), EXAMPLES, ids=[re.search(r"8300/(\S+)", c)[1] for c, _ in EXAMPLES])
def test_examples(address, commands, replies):
    commands = commands.replace("http://localhost:8300", address).replace("curl -s", "curl -sf --noproxy '*'")
    done = subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found, shown = read_all(done.stdout), read_all(replies)
    for one, other in zip(found, shown, strict=True):  # which of two answers is the better depends on the model
        for rows in (one, other):
            if isinstance(rows, list):
                rows.sort(key=lambda row: row.get("index", 0))
            elif isinstance(rows, dict) and "results" in rows:
                rows["results"][0]["index"] = 0
        assert shape(one) == shape(other)


def test_every_dialect_has_an_example():
    shown = {re.search(r"8300/([a-z-]+)", commands)[1].replace("-", "_") for commands, _ in EXAMPLES}
    assert shown == set(DIALECTS)
