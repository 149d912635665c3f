"""What the tests of the loop share: prompts, rewards by rule that can fail on cue, and the files of a run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from guerdon.optimize.config import OptimizeConfig
from guerdon.types import Conversation, Score

TIMES = {"seconds", "rollout_s", "score_s", "update_s", "samples_per_s", "tokens_per_s"}


class Letters:
    """Share of ASCII letters in the answer. `fails` says for which (call, answer) there is no score; calls count from 1."""

    def __init__(self, fails: Callable[[int, str], bool] = lambda call, text: False, scale: float = 1.0) -> None:
        self.fails, self.scale, self.calls = fails, scale, 0

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        self.calls += 1
        return [self._one(conversation[-1]["content"]) for conversation in conversations]

    def _one(self, text: str) -> Score:
        if self.fails(self.calls, text):
            return Score(math.nan, "error", reason="broken on purpose")
        return Score(self.scale * letters(text))


def letters(text: str) -> float:
    return sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text))


def write_prompts(path: Path, n: int = 10) -> Path:
    words = "hello world how are you today the quick brown fox".split()
    rows = [{"prompt": f"{words[i % 10]} {words[i // 2 % 10]} {i}" * (1 + i % 3)} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_of(folder: Path, **options: Any) -> OptimizeConfig:
    """A small run on the policy in `folder/base` and the prompts in `folder/prompts.jsonl`."""
    small: dict[str, Any] = {
        "steps": 4, "prompts_per_step": 4, "samples_per_prompt": 3, "max_new_tokens": 6, "learning_rate": 5e-3,
        "save_every": 1, "reward": ("unused",), "policy": str(folder / "base"), "prompts": (str(folder / "prompts.jsonl"),),
        "held_out_budget": 6,
    }  # fmt: skip
    return OptimizeConfig(**{**small, **options})


def rows_of(run: str | Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(run) / name).read_text(encoding="utf-8").splitlines()]


def untimed(run: str | Path) -> list[dict[str, Any]]:
    """The metrics but for what a clock measured."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows_of(run)]


def weights(run: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "policy" / "model.safetensors")


def assert_same_run(a: str | Path, b: str | Path) -> None:
    """Bit for bit: policies, metrics but for times, samples, what the monitor was given."""
    assert untimed(a) == untimed(b)
    assert rows_of(a, "samples.jsonl") == rows_of(b, "samples.jsonl")
    assert rows_of(a, "held_out.jsonl") == rows_of(b, "held_out.jsonl")
    assert_same_policy(a, b)


def assert_same_policy(a: str | Path, b: str | Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def quiet(line: str) -> None:
    pass


if __name__ == "__main__":  # config.yaml [step to be killed at]: a run in a process of its own
    import os
    import signal

    from guerdon.optimize.config import from_yaml
    from guerdon.optimize.loop import optimize
    from guerdon.optimize.watch import Watch

    class Fatal(Watch):
        def step(self, row: dict[str, Any]) -> None:
            if len(sys.argv) > 2 and row["step"] == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)

    optimize(from_yaml(sys.argv[1]), Letters(), Letters(scale=2.0), say=print, watch=Fatal())
