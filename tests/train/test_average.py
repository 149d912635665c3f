"""The mean of the weights: by hand, beside the weights that are trained, and through a killed run."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from test_fit import SCRIPT, assert_same_bits, metrics, quiet, setting  # noqa: F401
from torch import nn

from guerdon.data.read import load
from guerdon.data.split import prompt_key, split
from guerdon.evaluate.metrics import evaluate
from guerdon.evaluate.table import ScoreTable
from guerdon.model.reward import RewardModel
from guerdon.options import to_yaml
from guerdon.train.average import Average
from guerdon.train.loop import fit
from guerdon.train.start import make_accelerator
from guerdon.types import ConfigError


def walk(power: float, values: list[float], dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, Average]:
    """A layer whose one trained weight takes the values one after another, and the mean of them."""
    layer = nn.Linear(1, 1).to(dtype)
    layer.bias.requires_grad_(False)
    average = Average(layer, power)
    for step, value in enumerate(values, 1):
        nn.init.constant_(layer.weight, value)
        average.update(step)
    return layer, average


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (1, (1 * 6.0 + 2 * 3.0 + 3 * 10.0) / 6),  # step i counts i
        (2, (2 * 6.0 + 6 * 3.0 + 12 * 10.0) / 20),  # step i counts i (i + 1)
        (3, (6 * 6.0 + 24 * 3.0 + 60 * 10.0) / 90),  # step i counts i (i + 1) (i + 2)
    ],
)
def test_three_steps_by_hand(power, expected):
    layer, average = walk(power, [6.0, 3.0, 10.0])
    with average.applied():
        assert layer.weight.item() == pytest.approx(expected, rel=1e-6)
    assert layer.weight.item() == 10.0


@pytest.mark.parametrize("power", [0.5, 3, 8])
def test_it_looks_back_on_one_share_of_the_run_whatever_its_length(power):
    for steps in (300, 3000):
        layer, average = walk(power, [float(step) for step in range(1, steps + 1)])
        with average.applied():
            assert 1 - layer.weight.item() / steps == pytest.approx(1 / (power + 2), abs=0.005)


def test_power_0_keeps_nothing_and_changes_nothing():
    layer, average = walk(0, [6.0, 3.0])
    assert average.mean == []
    with average.applied():
        assert layer.weight.item() == 3.0


def test_the_mean_of_bfloat16_weights_is_float32():
    layer, average = walk(1, [1.0] * 200 + [1.0078125] * 40, torch.bfloat16)  # one bfloat16 step up
    (mean,) = average.mean
    assert mean.dtype == torch.float32
    assert 1.0 < mean.item() < 1.0078125
    trained = layer.weight.clone()
    with average.applied():
        assert layer.weight.dtype == torch.bfloat16
    assert torch.equal(layer.weight, trained)


def test_an_error_inside_leaves_the_trained_weights():
    layer, average = walk(1, [6.0, 3.0])
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    assert layer.weight.item() == 3.0


@pytest.mark.parametrize("lora", [False, True])
def test_the_run_saves_the_mean_of_its_steps_and_trains_as_without(setting, tmp_path, lora):  # noqa: F811
    """Runs cut after 1, 2 and 3 steps give the weights of each step; the mean of power 1 counts them 1 : 2 : 3."""
    config = replace(
        setting, lora=lora, lora_rank=4, eval_fraction=0.0, schedule="constant", warmup=0.0, learning_rate=1e-2
    )
    for steps in (1, 2, 3):
        fit(replace(config, output=str(tmp_path / str(steps)), max_steps=steps, average=0.0), say=quiet)
    result = fit(replace(config, output=str(tmp_path / "mean"), max_steps=3, average=1.0), say=quiet)
    name = "adapter/adapter_model.safetensors" if lora else "model/model.safetensors"
    each = [load_file(tmp_path / str(steps) / name) for steps in (1, 2, 3)]
    mean = load_file(tmp_path / "mean" / name)
    assert result.steps == 3
    for key, value in mean.items():
        assert torch.allclose(value, sum(i * e[key] for i, e in enumerate(each, 1)) / 6, atol=1e-6), key
    assert any((value - each[-1][key]).abs().max() > 1e-3 for key, value in mean.items())
    losses = [[row["loss"] for row in metrics(tmp_path / run)] for run in ("mean", "3")]
    assert losses[0] == losses[1]


def test_what_is_evaluated_is_what_is_saved(setting, tmp_path):  # noqa: F811
    result = fit(replace(setting, output=str(tmp_path), average=2.0), say=quiet)
    _, held = split(load(setting.data).comparisons, setting.eval_fraction, setting.seed)
    model = RewardModel.load(result.model)
    scores = [model.score(row.conversations()) for row in held]
    found = evaluate(ScoreTable.build(held, scores, prompt_keys=[prompt_key(row) for row in held]), resamples=10)
    assert found.nll == pytest.approx(result.evaluation["nll"], abs=1e-5)


def test_a_killed_run_resumes_with_its_mean_bit_for_bit(setting, tmp_path):  # noqa: F811
    config = replace(setting, average=2.0, eval_every=4, save_every=3)
    fit(replace(config, output=str(tmp_path / "whole")), say=quiet)
    killed = replace(config, output=str(tmp_path / "killed"))
    (tmp_path / "config.yaml").write_text(to_yaml(killed))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "config.yaml"), "8"], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    fit(replace(killed, resume=True), say=quiet)
    assert_same_bits(tmp_path / "whole", tmp_path / "killed")


def test_fsdp_is_refused(setting, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ConfigError, match="--average: is not available under FSDP"):
        make_accelerator(replace(setting, output=str(tmp_path), average=2.0))
