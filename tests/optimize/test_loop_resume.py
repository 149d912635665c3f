"""A run that is killed, anywhere, and resumed is the run that was not, bit for bit; two processes do what one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_runs import Letters, assert_same_run, config_of, quiet, rows_of, weights, write_prompts
from tiny_policy import make_world

from guerdon.diagnose.monitor import Monitor, Observation, Verdict
from guerdon.files import replacing
from guerdon.optimize import loop
from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.generate import generate
from guerdon.optimize.loop import optimize
from guerdon.optimize.run_folder import RunFolder
from guerdon.optimize.watch import Watch
from guerdon.options import to_yaml
from guerdon.types import ConfigError, TrainingError

RUNS = Path(__file__).with_name("policy_runs.py")
# Everything a checkpoint has to carry: a value model, a moving beta, minibatches in random order, centring, held-out checks.
CASES = {
    "ppo": {"kl_target": 2.0, "updates": 2, "minibatches": 2, "center": 8, "warmup": 0.5},
    "grpo": {"lora_rank": 4, "schedule": "linear", "kl_in": "loss"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_tokenizer) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), make_tokenizer)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory) -> Callable[[str], Path]:
    """The run that nothing happens to, by algorithm; made once."""
    made: dict[str, Path] = {}

    def run(algorithm: str) -> Path:
        if algorithm not in made:
            made[algorithm] = tmp_path_factory.mktemp("whole") / algorithm
            optimize(setting(world, algorithm, made[algorithm]), Letters(), Letters(scale=2.0), say=quiet)
        return made[algorithm]

    return run


def setting(world: Path, algorithm: str, output: Path) -> OptimizeConfig:
    return config_of(world, algorithm=algorithm, output=str(output), steps=6, save_every=2, **CASES[algorithm])


def go_on(config: OptimizeConfig) -> list[str]:
    said: list[str] = []
    optimize(replace(config, resume=True), Letters(), Letters(scale=2.0), say=said.append)
    return said


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_kill_9_and_resume(world, whole, tmp_path, algorithm):
    """A process of its own is killed after step 3, one row past its checkpoint; what is left of it is taken up again."""
    config = setting(world, algorithm, tmp_path / "run")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = [sys.executable, str(RUNS), str(tmp_path / "config.yaml"), "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert [row["step"] for row in rows_of(config.output)] == [1, 2, 3]
    assert not (tmp_path / "run" / "run.json").exists()
    assert any("resumed after step 2" in line for line in go_on(config))
    assert_same_run(config.output, whole(algorithm))


class Killed(BaseException):
    """Stands for a kill: nothing of the loop handles it."""


class Fatal(Watch):
    def __init__(self, step: int) -> None:
        self.deadly = step

    def step(self, row: dict[str, Any]) -> None:
        if row["step"] == self.deadly:
            raise Killed


def kill_at(config: OptimizeConfig, step: int) -> None:
    with pytest.raises(Killed):
        optimize(config, Letters(), Letters(scale=2.0), say=quiet, watch=Fatal(step))


@pytest.mark.parametrize("steps", [(1,), (3, 5), (4, 4, 6)], ids=str)
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_killed_at_any_step_also_twice(world, whole, tmp_path, algorithm, steps):
    config = setting(world, algorithm, tmp_path / "run")
    for attempt, step in enumerate(steps):
        kill_at(replace(config, resume=attempt > 0), step)
    go_on(config)
    assert_same_run(config.output, whole(algorithm))


def test_killed_between_a_checkpoint_and_the_next_step(world, whole, tmp_path, monkeypatch):
    config, save = setting(world, "ppo", tmp_path / "run"), RunFolder.save

    def deadly(self: RunFolder, step: int, record: dict[str, Any]) -> None:
        save(self, step, record)
        if step == 4:
            raise Killed

    monkeypatch.setattr(RunFolder, "save", deadly)
    with pytest.raises(Killed):
        optimize(config, Letters(), Letters(scale=2.0), say=quiet)
    monkeypatch.undo()
    assert any("resumed after step 4" in line for line in go_on(config))
    assert_same_run(config.output, whole("ppo"))


def test_killed_while_a_checkpoint_is_written(world, whole, tmp_path, monkeypatch):
    """A checkpoint without its record, written last, is none: the one before it counts."""
    from guerdon.optimize import run_folder

    config, written = setting(world, "grpo", tmp_path / "run"), run_folder.write_json

    def deadly(path: Path, value: Any) -> None:
        if value.get("step") == 4:
            raise Killed
        written(path, value)

    monkeypatch.setattr(run_folder, "write_json", deadly)
    with pytest.raises(Killed):
        optimize(config, Letters(), Letters(scale=2.0), say=quiet)
    monkeypatch.undo()
    assert any("resumed after step 2" in line for line in go_on(config))
    assert_same_run(config.output, whole("grpo"))


def test_a_line_that_was_cut_short_is_dropped(world, whole, tmp_path):
    config = setting(world, "grpo", tmp_path / "run")
    kill_at(config, 5)
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write('{"step": 6, "prox')
    go_on(config)
    assert_same_run(config.output, whole("grpo"))


def test_killed_before_the_policy_is_complete(world, whole, tmp_path, monkeypatch):
    config = setting(world, "grpo", tmp_path / "run")
    monkeypatch.setattr(loop, "write_json", lambda path, value: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        optimize(config, Letters(), Letters(scale=2.0), say=quiet)
    monkeypatch.undo()
    go_on(config)
    assert_same_run(config.output, whole("grpo"))


class Stops(Monitor):
    def observe(self, observation: Observation) -> Verdict:
        found = super().observe(observation)
        return replace(found, status="stop" if observation.step >= 4 else "ok", best_step=2)


def test_killed_after_the_monitor_said_stop_no_further_step_is_taken(world, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "Monitor", Stops)
    config = config_of(world, algorithm="grpo", steps=6, save_every=2, held_out=("x",), on_overopt="rollback")
    optimize(replace(config, output=str(tmp_path / "whole")), Letters(), Letters(scale=2.0), say=quiet)
    killed = replace(config, output=str(tmp_path / "run"))
    finish = loop._finish
    monkeypatch.setattr(loop, "_finish", lambda *args: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        optimize(killed, Letters(), Letters(scale=2.0), say=quiet)
    monkeypatch.setattr(loop, "_finish", finish)
    go_on(killed)
    assert [row["step"] for row in rows_of(killed.output)] == [1, 2, 3, 4]
    assert_same_run(killed.output, tmp_path / "whole")


def test_options_left_open_come_from_the_run_and_others_are_refused(world, tmp_path):
    config = setting(world, "grpo", tmp_path / "run")
    kill_at(replace(config, learning_rate=None), 3)
    with pytest.raises(ConfigError, match="was started with --seed 0, not 1"):
        go_on(replace(config, learning_rate=None, seed=1))
    go_on(replace(config, learning_rate=None))
    assert (tmp_path / "run" / "run.json").exists()


def test_other_prompts_are_refused(world, tmp_path):
    write_prompts(tmp_path / "prompts.jsonl")
    config = replace(setting(world, "grpo", tmp_path / "run"), prompts=(str(tmp_path / "prompts.jsonl"),))
    kill_at(config, 3)
    write_prompts(tmp_path / "prompts.jsonl", 12)
    with pytest.raises(ConfigError, match="the prompts are not those the run was started on"):
        go_on(config)


def test_a_checkpoint_that_cannot_be_read_is_named(world, tmp_path):
    config = setting(world, "grpo", tmp_path / "run")
    kill_at(config, 3)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    with replacing(checkpoint / "model.safetensors") as path:
        path.write_bytes(b"not a tensor")
    with pytest.raises(TrainingError, match=r"step-00000002: cannot be read .* delete it to go on"):
        go_on(config)


def test_resume_in_an_empty_folder_starts(world, whole, tmp_path):
    config = setting(world, "grpo", tmp_path / "run")
    assert not any("resumed" in line for line in go_on(config))
    assert_same_run(config.output, whole("grpo"))


def by_prompt(policy: Any, prompts: Any, n: int, sampling: Any, generator: torch.Generator) -> Any:
    """Answers that depend on their prompt alone and not on the process that draws them."""
    seeds = [torch.Generator().manual_seed(sum(ids) % 1000) for ids in prompts]
    return [generate(policy, [ids], n, sampling, seed)[0] for ids, seed in zip(prompts, seeds, strict=True)]


def some_fail(call: int, text: str) -> bool:
    return len(text) % 5 == 0


TWO = """
import sys
from guerdon.optimize.config import from_yaml
from test_loop_resume import *
loop.generate = by_prompt
optimize(from_yaml(sys.argv[1]), Letters(some_fail), Letters(scale=2.0), say=print)
"""


@pytest.mark.slow
def test_two_processes_take_the_step_that_one_does(world, tmp_path, monkeypatch):
    """Gloo on CPU: prompts dealt out, weights and whitening over all, gradients averaged, records joined."""
    config = config_of(world, algorithm="ppo", loss="grpo", steps=2, tokens_per_row=40, held_out_budget=1)
    (tmp_path / "two.yaml").write_text(to_yaml(replace(config, output=str(tmp_path / "two"))))
    (tmp_path / "run.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    python_path = os.pathsep.join([str(RUNS.parent), str(RUNS.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path}
    command += [str(tmp_path / "run.py"), str(tmp_path / "two.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on 2 x cpu" in done.stdout
    monkeypatch.setattr(loop, "generate", by_prompt)
    optimize(replace(config, output=str(tmp_path / "one")), Letters(some_fail), Letters(scale=2.0), say=quiet)
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert one[0]["masked"] == two[0]["masked"] > 0
    assert one[0]["grad_norm"] == pytest.approx(two[0]["grad_norm"], rel=1e-4)
    same = "proxy objective kl loss value_loss entropy grad_norm length within_std explained_variance".split()
    for a, b in zip(one, two, strict=True):
        for key in same:
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=2e-3), (a["step"], key)
    assert [row["held_out_n"] for row in (*one, *two)] == [1, 1, 2, 2]  # no process is left without
    seen = [rows_of(tmp_path / name, "samples.jsonl") for name in ("one", "two")]
    assert sorted(r["completion"] for r in seen[0][:12]) == sorted(r["completion"] for r in seen[1][:12])
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    difference = torch.cat([(first[name] - second[name]).abs().flatten() for name in first])
    assert float(difference.mean()) < 1e-3 * config.learning_rate
