"""`guerdon optimize ppo|rloo|grpo` and its options: files and flags, resuming, one-sentence errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from policy_runs import rows_of
from tiny_policy import make_world

from guerdon.cli import main
from guerdon.commands.optimize import parse_as
from guerdon.optimize.config import OptimizeConfig, from_yaml, learning_rate, resolve
from guerdon.options import to_yaml
from guerdon.types import ConfigError


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_tokenizer) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), make_tokenizer)


def command(world: Path, run: Path, algorithm: str, extra: str = "") -> list[str]:
    return (
        f"optimize {algorithm} --policy {world}/base --prompts {world}/prompts.jsonl --output {run} --steps 2 "
        f"--reward length=tokens:1:4:0.1 format=.*e.*:1 --held-out lab-gold --prompts-per-step 2 --samples-per-prompt 2 "
        f"--max-new-tokens 6 --save-every 1 {extra}"
    ).split()


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_the_command_leaves_a_policy_and_says_what_came_of_it(world, tmp_path, capsys, algorithm):
    main(command(world, tmp_path / "run", algorithm))
    out = capsys.readouterr().out
    assert f"{algorithm}: 2 steps of 2 prompts x 2 samples" in out
    last = out.strip().splitlines()[-1]
    assert last.startswith("reward ")
    assert "held-out" in last
    assert "nats per sequence" in last
    assert f"the policy is {tmp_path}/run/policy" in last
    assert (tmp_path / "run" / "policy" / "model.safetensors").exists()
    assert set(rows_of(tmp_path / "run", "samples.jsonl")[0]["parts"]) == {"length", "format"}
    assert from_yaml(tmp_path / "run" / "config.yaml").algorithm == algorithm
    main(["optimize", algorithm, "--output", f"{tmp_path}/run", "--resume"])
    assert "nothing to do" in capsys.readouterr().out


def test_resume_needs_only_the_output_and_the_same_command(world, tmp_path, capsys):
    main(command(world, tmp_path / "run", "rloo"))
    whole = [row["proxy"] for row in rows_of(tmp_path / "run")]
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(SystemExit):
        main(["optimize", "ppo", "--output", f"{tmp_path}/run", "--resume"])
    assert "was started by guerdon optimize rloo" in capsys.readouterr().err
    main(["optimize", "rloo", "--output", f"{tmp_path}/run", "--resume"])
    assert [row["proxy"] for row in rows_of(tmp_path / "run")] == whole


def test_flags_win_over_the_file_and_the_command_over_its_algorithm(tmp_path):
    (tmp_path / "c.yaml").write_text("algorithm: ppo\nsteps: 7\nbeta: 0.3\nreward: lab-gold\n")
    config = parse_as("grpo", ["--config", f"{tmp_path}/c.yaml", "--steps", "9"])
    assert (config.algorithm, config.steps, config.beta, config.reward) == ("grpo", 9, 0.3, ("lab-gold",))


@pytest.mark.parametrize(
    "given",
    [
        "--reward a b --steps 3",
        "--reward a --reward b --steps 3",
        "--reward=a --steps 3 --reward=b",
        "--reward a --steps 3 --reward b",
    ],
)
def test_parts_of_a_reward_add_up_however_they_are_given(given):
    """Left to itself the parser lets the last flag win, and a part of the reward is gone unsaid."""
    config = parse_as("ppo", given.split())
    assert (config.reward, config.steps) == (("a", "b"), 3)


def test_lists_of_other_commands_add_up_as_well():
    from guerdon.commands.compare import compare
    from guerdon.options import gathered

    words = ["x.jsonl", "--data", "a", "--seed", "1", "--data", "b"]

    def options(data: tuple[str, ...], seed: int) -> None:
        pass

    assert gathered(words, options) == ["x.jsonl", "--seed", "1", "--data", "a", "b"]
    assert gathered(["a", "b", "--seed", "2"], compare) == ["a", "b", "--seed", "2"]


def test_yaml_round_trip(tmp_path):
    config = OptimizeConfig(
        algorithm="grpo", policy="p", reward=("a", "length=words:1:9:0.1"), loss="dr-grpo", kl_estimator="k2", kl_target=6.0,
        reward_rule="mean-std:1", center=64, clip_high=0.28,
    )  # fmt: skip
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert from_yaml(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step: 3", "there is no option 'step'; did you mean steps"),
        ("algorithm: dpo", "algorithm must be one of ppo, rloo, grpo"),
        ("kl_estimator: k4", "kl_estimator must be one of k1, k2, k3"),
        ("loss: sapo", "loss must be one of ppo, grpo, dr-grpo, dapo, gspo"),
        ("steps: 0", "--steps must be greater than 0"),
        ("temperature: 0", "--temperature must be greater than 0"),
        ("beta: -1", "--beta must be 0 or greater"),
        ("reward_clip: -1", "--reward-clip must be greater than 0"),
        ("lam: 1.5", r"--lam must be in \[0, 1\]"),
        ("warmup: 3", r"--warmup must be in \[0, 1\]"),
        ("algorithm: grpo\nsamples_per_prompt: 1", "--samples-per-prompt must be at least 2 for grpo"),
        ("minibatches: 17", "--minibatches must not be more than --prompts-per-step"),
        ("on_overopt: rollback", "--on-overopt rollback needs --held-out"),
        ("on_overopt: stop\nheld_out: x\nheld_out_budget: 0", "--on-overopt stop needs a --held-out-budget above 0"),
        ("beta: 0\nkl_target: 6", "--beta must be above 0 with it"),
        ("reward_rule: median", "ensemble rule 'median' is not known"),
        ("prompts: 5", "prompts must be a text or a list of texts"),
    ],
)
def test_mistakes_in_the_options_are_named(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        from_yaml(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--policy nowhere/at/all", "there is no such model folder"),
        ("--reward words=3", "there is no part called 'words'"),
        ("--reward nowhere/at/all", "reward 'nowhere/at/all': nowhere/at/all: there is no such model folder"),
        ("--held-out nowhere/at/all", "held-out 'nowhere/at/all': nowhere/at/all: there is no such model folder"),
        ("--prompts nowhere.jsonl", "nowhere.jsonl"),
        ("--policy=", "--policy is missing"),
        ("--value-from reward", "--value-from reward needs one local reward model"),
        ("--trackers abacus", "--trackers abacus"),
    ],
)
def test_a_refused_start_is_one_sentence_and_leaves_no_folder(world, tmp_path, capsys, change, message):
    with pytest.raises(SystemExit) as caught:
        main(
            [*command(world, tmp_path / "run", "ppo"), *(change.split() if change != "--policy=" else ["--policy", ""])]
        )
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("guerdon: ")
    assert message in said
    assert not (tmp_path / "run").exists()


def test_a_held_out_server_is_not_waited_for_long(world):
    from guerdon.commands.optimize import _rewards

    url = "http://127.0.0.1:9"
    config = OptimizeConfig(policy=f"{world}/base", reward=(url,), held_out=(url,), reward_failures="wait")
    reward, held_out = _rewards(config)
    assert held_out is not None
    optimised, watched = reward.scorers["model"], held_out.scorers["model"]
    assert (optimised.on_failure, optimised.patience) == ("wait", None)  # the default: half an hour
    assert (watched.on_failure, watched.patience) == ("mask", 10.0)


def test_what_came_of_a_held_out_reward_that_never_answered_is_said(tmp_path):
    from guerdon.commands.optimize import summary

    row = {"proxy": 1.0, "held_out": None, "masked": 0, "kl": 0.5}
    for asked, expected in ((0, "1.000 -> 1.000, KL"), (6, "1.000 -> 1.000, no held-out score came, KL")):
        (tmp_path / "metrics.jsonl").write_text(json.dumps(row | {"held_out_asked": asked}) + "\n")
        assert expected in summary(tmp_path)


def test_the_algorithm_is_no_flag(capsys):
    with pytest.raises(SystemExit):
        main(["optimize", "ppo", "--help"])
    out = capsys.readouterr().out
    assert "--algorithm" not in out
    assert "--kl-target" in out


def test_defaults_that_depend_on_the_algorithm_and_the_loss_are_the_published_ones():
    found = {name: resolve(OptimizeConfig(algorithm=name), 1, "cpu") for name in ("ppo", "rloo", "grpo")}
    assert {name: (c.kl_in, c.loss, c.clip_bounds) for name, c in found.items()} == {
        "ppo": ("reward", "ppo", (0.2, 0.2)), "rloo": ("reward", "ppo", (0.2, 0.2)), "grpo": ("loss", "grpo", (0.2, 0.2)),
    }  # fmt: skip
    gspo = OptimizeConfig(algorithm="grpo", loss="gspo")
    assert resolve(gspo, 1, "cpu").clip_bounds == gspo.clip_bounds == (3e-4, 3e-4)
    assert resolve(replace(gspo, clip=0.0, clip_high=4e-4), 1, "cpu").clip_bounds == (0.0, 4e-4)
    assert resolve(replace(gspo, kl_in="reward"), 1, "cpu").kl_in == "reward"


def test_learning_rate_rises_and_falls():
    config = resolve(OptimizeConfig(steps=10, learning_rate=1.0, warmup=0.2, schedule="linear"), 1, "cpu")
    assert [learning_rate(config, step) for step in (1, 2, 3, 10)] == pytest.approx([0.5, 1.0, 1.0, 0.125])
    assert resolve(OptimizeConfig(), 10_000_000, "cpu").learning_rate == 1e-4
    assert resolve(OptimizeConfig(lora_rank=8), 10**10, "cuda").learning_rate == 1e-4
    assert resolve(OptimizeConfig(), 10**10, "cuda").learning_rate == 3e-6
    assert json.dumps(resolve(OptimizeConfig(algorithm="grpo"), 1, "cpu").loss) == '"grpo"'
