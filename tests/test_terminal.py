"""What the commands share: options from flags, files and an earlier run, and rewards from their spelling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import chat

from guerdon import cli
from guerdon.optimize.sft_config import SftConfig, claim_output
from guerdon.options import to_yaml
from guerdon.terminal import load_reward, parse_options
from guerdon.types import ConfigError


def parsed(*words: str) -> SftConfig:
    return parse_options(SftConfig, words, "guerdon optimize sft", "")


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("epochs: 3\nbatch-size: 4\ndata: [a, b]\n")
    config = parsed("--epochs", "2", "--config", str(file), "--policy", "p")
    assert (config.epochs, config.batch_size, config.data, config.policy) == (2.0, 4, ("a", "b"), "p")
    assert parsed(f"--config={file}").epochs == 3.0
    with pytest.raises(ConfigError, match="cannot be read"):
        parsed("--config", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        parsed("--config")


def test_resume_takes_what_is_left_open_from_the_run_that_is_there(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(SftConfig(policy="p", data=("d",), output=str(tmp_path), epochs=7)))
    config = parsed("--output", str(tmp_path), "--resume")
    assert (config.policy, config.epochs, config.resume) == ("p", 7.0, True)
    assert parsed("--output", str(tmp_path)).policy == ""


def test_a_run_may_be_resumed_from_where_it_was_moved_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = SftConfig(policy="p", data=("d",), output="run", seed=4)
    Path("run").mkdir()
    Path("run/config.yaml").write_text(to_yaml(config))
    for output in ("./run", str(tmp_path / "run"), "moved"):
        if output == "moved":
            Path("run").rename(output)
        claimed = claim_output(parsed("--resume", "--output", output, "--seed", "4"))
        assert claimed == replace(config, output=output, resume=True)
    with pytest.raises(ConfigError, match="moved: was started with --seed 4, not 5"):
        claim_output(parsed("--resume", "--output", "moved", "--seed", "5"))


def test_resume_without_a_run_starts_one_and_says_so(tmp_path, capsys):
    with pytest.raises(ConfigError, match="typo: there is no run to resume; see to --output"):
        parsed("--resume", "--output", f"{tmp_path}/typo")
    assert parsed("--resume", "--output", f"{tmp_path}/typo", "--policy", "p").policy == "p"
    assert capsys.readouterr().out == f"{tmp_path}/typo: no run to resume, a new one is started\n"
    (tmp_path / "config.yaml").write_text(to_yaml(SftConfig(policy="p", data=("d",), output=str(tmp_path))))
    parsed("--resume", "--output", str(tmp_path))
    assert not capsys.readouterr().out


def test_an_option_out_of_range_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["optimize", "sft", "--epochs", "-1"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "guerdon: --epochs must be greater than 0, got -1.0\n"


def test_reward_from_its_spelling():
    reward = load_reward(["length=words:2:3:1.0", "length=tokens:0:1:0.5"], None, count_tokens=len)
    assert float(reward.score([chat("hi", "a b c d")])[0]) == -1.0 - 0.5 * 6
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        load_reward(["length=tokens:0:1:0.5"], None)
