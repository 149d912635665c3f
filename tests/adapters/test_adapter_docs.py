"""The recipes in docs/adapters.md and docs/rewards.md: their code runs, their options exist in the published packages."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from consumers import FOLDER, consumers
from test_openrlhf import MOCKS, roll_out
from test_verl import batch, run_worker
from tiny_models import chat

DOCS = Path(__file__).parents[2] / "docs"
SMALL = "report_to=[], use_cpu=True, max_steps=1, max_completion_length=4, num_generations=2, per_device_train_batch_size=2, save_strategy='no', disable_tqdm=True"


def blocks(page, language, section=""):
    text = (DOCS / page).read_text(encoding="utf-8")
    if section:
        text = next(part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(section))
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def reward_model(make_backbone, tmp_path_factory):
    from guerdon.model.reward import RewardModel

    folder = tmp_path_factory.mktemp("reward")
    model = RewardModel.load(make_backbone(folder / "base"), device="cpu")
    model.save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def tokenizer(chat_policy):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(chat_policy)


def on_tiny_models(text, reward_model, chat_policy):
    return text.replace("runs/hh/model", str(reward_model)).replace("Qwen/Qwen3-0.6B", str(chat_policy))


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_the_trl_recipe_trains(kind, reward_model, chat_policy, tmp_path):
    code = on_tiny_models("\n".join(blocks("adapters.md", "python", "TRL")), reward_model, chat_policy)
    code = code.replace("runs/grpo", str(tmp_path / "run")).replace("report_to=[]", SMALL).replace("GRPO", kind)
    space = {}
    exec(compile(code, "adapters.md", "exec"), space)
    assert space["trainer"].state.global_step == 1
    assert [function.__name__ for function in space["functions"]] == ["model", "length"]


@pytest.mark.parametrize("number", [0, 1], ids=["manager", "function"])
def test_the_verl_recipes_name_options_that_exist_and_give_rewards(number, reward_model, chat_policy, tokenizer):
    with consumers("verl", "ray"):
        verl = importlib.import_module("verl")
        from omegaconf import OmegaConf

        config = OmegaConf.load(FOLDER / "verl" / "trainer" / "config" / "_generated_ppo_trainer.yaml")
        command = shlex.split(blocks("adapters.md", "bash", "verl")[number].replace("\\\n", " "))
        assert command[:2] == ["python3", "-m"]
        assert (FOLDER / (command[2].replace(".", "/") + ".py")).is_file()
        for word in command[3:]:
            key, _, value = word.partition("=")
            is_new, key = key.startswith("+"), key.removeprefix("+")
            parent, _, name = key.rpartition(".")
            known = OmegaConf.select(config, parent)
            assert is_new != (known is not None and name in known), f"{key}: a + is for options that verl does not have"
            value = on_tiny_models(value, reward_model, chat_policy)
            OmegaConf.update(config, key, yaml.safe_load(value), force_add=is_new)
        config.actor_rollout_ref.model.path = str(chat_policy)
        data = batch(verl, tokenizer, [(chat("hello"), "how are you"), (chat("hello"), "the quick brown fox")])
        outputs = run_worker(config, data)
        assert [output["reward_extra_info"]["guerdon_scored"] for output in outputs] == [1.0, 1.0]
        assert outputs[0]["reward_score"] != outputs[1]["reward_score"]


def test_the_openrlhf_recipe_names_options_that_exist_and_gives_rewards(reward_model, chat_policy, tokenizer, tmp_path):
    with consumers("openrlhf", *MOCKS):
        (code,) = blocks("adapters.md", "python", "OpenRLHF")
        file = tmp_path / "reward.py"
        file.write_text(on_tiny_models(code, reward_model, chat_policy), encoding="utf-8")
        _, samples = roll_out(str(file), tokenizer, [(chat("hello"), "how are you"), (chat("hello"), "the quick fox")])
        assert [float(sample.info["guerdon_scored"]) for sample in samples] == [1.0, 1.0]
        assert float(samples[0].rewards) != float(samples[1].rewards)
    (command,) = blocks("adapters.md", "bash", "OpenRLHF")
    words = shlex.split(command.replace("\\\n", " "))
    source = (FOLDER / (words[2].replace(".", "/") + ".py")).read_text(encoding="utf-8")
    text = (DOCS / "adapters.md").read_text(encoding="utf-8").partition("## OpenRLHF")[2]
    flags = {word for word in words if word.startswith("--")} | set(re.findall(r"`(--[a-z_.]+)`", text))
    assert "--algo.dynamic_filtering_enable" in flags
    assert all(f'"{flag}"' in source for flag in flags)


def test_the_code_about_rewards_runs():
    for code in blocks("rewards.md", "python"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "lab-gold" in done.stdout


def test_the_versions_in_the_page_are_those_that_are_tested():
    from importlib.metadata import version

    page = (DOCS / "adapters.md").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (Path(__file__).parent / "consumers.txt").read_text(), re.MULTILINE))
    assert f"## TRL (tested with {version('trl')})" in page
    assert f"## verl (tested with {pinned['verl']})" in page
    assert f"## OpenRLHF (tested with {pinned['openrlhf']})" in page


def test_every_part_that_can_be_spelled_is_in_the_page():
    from guerdon.optimize.reward_option import FORMS

    page = (DOCS / "rewards.md").read_text(encoding="utf-8")
    assert all(f"`{form}`" in page for form in FORMS.values())
