"""The config: YAML and back, mistakes named, out-of-range values refused."""

from __future__ import annotations

import pytest

from guerdon.options import to_yaml
from guerdon.train.config import TrainConfig, from_yaml
from guerdon.types import ConfigError


def test_yaml_round_trip(tmp_path):
    config = TrainConfig(data=("a", "b"), model="m", output="o", learning_rate=1e-5, lora=True, max_steps=7)
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert from_yaml(tmp_path / "c.yaml") == config


def test_a_single_path_dashes_and_yaml_numbers_are_understood(tmp_path):
    (tmp_path / "c.yaml").write_text("data: x.jsonl\nlearning-rate: 1e-5\nepochs: 2\nlora: true\nmax_steps: null\n")
    config = from_yaml(tmp_path / "c.yaml")
    assert (config.data, config.learning_rate, config.epochs, config.lora) == (("x.jsonl",), 1e-5, 2.0, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "no option 'learning_rat'; did you mean learning_rate"),
        ("lora: maybe", "lora must be true or false"),
        ("epochs: many", "epochs must be a float"),
        ("seed: 1.5", "seed must be a whole number"),
        ("schedule: wavy", "schedule must be one of"),
        ("- a\n- b", "`key: value` lines"),
        ("a: [", "is not YAML"),
        ("seed:", "seed has no value"),
        ("epochs: 0", "--epochs must be greater than 0"),
        ("batch_size: -3", "--batch-size must be greater than 0"),
        ("eval_fraction: 1", "--eval-fraction must be in"),
        ("label_smoothing: 0.5", "--label-smoothing must be in"),
        ("warmup: 2", "--warmup is a share"),
        ("max_grad_norm: -1", "--max-grad-norm must be 0 or greater"),
        ("average: -1", "--average must be 0 or greater"),
        ("freeze_layers: -1", "--freeze-layers must be 0 or greater"),
        ("lora: true\nfreeze_layers: 2", "--freeze-layers: with --lora all weights of the base are frozen already"),
        ("weight_decay: -1", "--weight-decay must be 0 or greater"),
        ("epochs: .inf", "--epochs must be greater than 0"),
        ("seed: .inf", "seed must be a int"),
        ("data: 5", "data must be a text or a list of texts"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        from_yaml(tmp_path / "c.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.yaml: cannot be read"):
        from_yaml(tmp_path / "gone.yaml")


def test_what_is_missing_is_asked_for():
    with pytest.raises(ConfigError, match="--model is missing"):
        TrainConfig(data=("x",)).require_paths()
