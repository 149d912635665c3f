"""The pages on fine-tuning, best-of-n, rejection sampling and DPO: their examples run, their flags and keys exist."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from guerdon import cli
from guerdon.commands.best_of_n import best_of_n
from guerdon.optimize.best_of_n_summary import Rung, Summary
from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.dpo_config import DpoConfig
from guerdon.optimize.rejection_config import RejectionConfig
from guerdon.optimize.sft_config import SftConfig
from guerdon.options import flag

DOCS = Path(__file__).parents[2] / "docs"
OPTIONS = {
    "sft": {field.name for field in fields(SftConfig)},
    "best-of-n": set(best_of_n.__annotations__) - {"return"},
    "rejection": {field.name for field in fields(RejectionConfig)},
    "dpo": {field.name for field in fields(DpoConfig)},
    "optimize": {field.name for field in fields(OptimizeConfig)} - {"algorithm"},
}
SHARED = {
    "--config",
    "--gold",
    "--model",
    "--data",
    "--policy",
    "--output",
    "--reward",
    "--held-out",
    "--no-control",
    "--batch-size",
    "--help",
}


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OPTIONS)
def test_flags_of_the_page_exist_and_those_that_matter_are_on_it(name):
    text = page(name)
    known = {flag(option) for option in OPTIONS[name]}
    assert set(re.findall(r"--[a-z][a-z-]*[a-z]", text)) <= known | SHARED
    quiet = {"--policy", "--data", "--output", "--prompts", "--device", "--format", "--weight-decay", "--max-grad-norm"}
    quiet |= {"--tokens-per-row", "--precision", "--trackers", "--seed", "--control", "--resume"}
    assert known - quiet <= set(re.findall(r"--[a-z][a-z-]*[a-z]|--n\b", text))


def test_every_key_of_the_summary_is_defined():
    text = page("best-of-n")
    assert all(f"`{field.name}`" in text for cls in (Summary, Rung) for field in fields(cls) if field.name != "output")


def test_examples_run_and_every_logged_key_is_defined(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in OPTIONS:
        for kind, block in re.findall(r"```(python)?\n(.*?)```", page(name), re.DOTALL):
            if kind:
                exec(block, {})
            else:
                for line in block.replace("\\\n", " ").strip().split("\n"):
                    if "runs/hh/model" in line:  # the reader's own model
                        continue
                    cli.main(shlex.split(line)[1:])
    for name, run in (("sft", "sft"), ("rejection", "rejection"), ("dpo", "dpo"), ("optimize", "grpo")):
        lines = (tmp_path / "runs" / run / "metrics.jsonl").read_text().splitlines()
        keys = {key.removeprefix("eval_") if name == "dpo" else key for line in lines for key in json.loads(line)}
        assert all(f"`{key}`" in page(name) for key in keys - {"step", "round"}), keys
    rows = [json.loads(line) for line in (tmp_path / "runs" / "best.jsonl").read_text().splitlines()]
    assert all(f"`{key}`" in page("best-of-n") for key in {key for row in rows for key in row})
    assert all(row["status"] == "ok" for row in rows)
