"""verl's own reward loop and reward managers, with the reward of `guerdon.adapters.verl` behind them.

Real code of verl 0.9.1: DataProto, RewardLoopWorker, RewardLoopManager.compute_rm_score, load_reward_manager,
get_custom_reward_fn, both NaiveRewardManagers. Only ray is a mock: workers are called in this process instead of through it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from consumers import consumers
from tiny_models import chat

from guerdon.adapters import verl as adapter
from guerdon.types import ConfigError, ScoringError


@pytest.fixture(scope="module", autouse=True)
def verl():
    with consumers("verl", "ray"):
        yield importlib.import_module("verl")


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"prompt": "hello", "answer": "how are you"}) + "\n")
    return f"answer={path}:1.0"


@pytest.fixture
def tokenizer(chat_policy):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(chat_policy)


def batch(verl, tokenizer, rows, **columns):
    """A DataProto of prompts (left-padded) and answers (right-padded, EOS at the end), as verl's agent loop makes it."""
    prompts, answers = zip(*rows, strict=True)
    prompt_ids = [tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"] for p in prompts]
    answer_ids = [[*tokenizer(a, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for a in answers]
    left, right = max(map(len, prompt_ids)), max(map(len, answer_ids)) + 2
    pad = tokenizer.pad_token_id
    tensors = {
        "prompts": torch.tensor([[pad] * (left - len(p)) + p for p in prompt_ids]),
        "responses": torch.tensor([a + [pad] * (right - len(a)) for a in answer_ids]),
        "attention_mask": torch.tensor(
            [[0] * (left - len(p)) + [1] * (len(p) + len(a)) + [0] * (right - len(a)) for p, a in zip(prompt_ids, answer_ids, strict=True)]
        ),
    }  # fmt: skip
    size = len(rows)

    def column(values):
        array = np.empty(size, dtype=object)
        array[:] = values
        return array

    others = {
        "data_source": column(["lab"] * size),
        "reward_model": column([{"ground_truth": ""}] * size),
        "raw_prompt": column(list(prompts)),
        "extra_info": column([{"prompt": p} for p in prompts]),
    } | {name: column(values) for name, values in columns.items()}
    return verl.DataProto.from_dict(tensors=tensors, non_tensors=others)


def settings(chat_policy, **reward):
    from omegaconf import OmegaConf

    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": str(chat_policy), "tokenizer_path": None}},
            "reward": {
                "num_workers": 1,
                "custom_reward_function": {"path": None, "name": None},
                "reward_manager": {"source": "register", "name": "naive", "module": {"path": None}},
                "reward_model": {"enable": False},
            }
            | reward,
        }
    )


def manager_settings(chat_policy, **options):
    """The config that the recipe's command line gives."""
    return settings(
        chat_policy,
        reward_manager={
            "source": "importlib",
            "name": "RewardManager",
            "module": {"path": "pkg://guerdon.adapters.verl"},
        },
        reward_kwargs={"guerdon": options},
    )


def function_settings(chat_policy, name="compute_score", **options):
    return settings(
        chat_policy,
        custom_reward_function={"path": "pkg://guerdon.adapters.verl", "name": name, "reward_kwargs": options},
    )


def run_worker(config, data):
    """verl's RewardLoopWorker on a batch, one task per sample, as its agent loop asks for them."""
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    async def run():
        return await RewardLoopWorker(config).compute_score_batch(data)

    return asyncio.run(run())


ROWS = [(chat("hello"), "how are you"), (chat("hello"), "the quick brown fox jumps")]
UNKNOWN = (chat("who knows?"), "nobody")


@pytest.mark.parametrize("make", [manager_settings, function_settings])
def test_rewards_reach_verl_with_their_parts(make, verl, tokenizer, chat_policy, answers):
    outputs = run_worker(make(chat_policy, reward=[answers, "length=words:1:3:0.5"]), batch(verl, tokenizer, ROWS))
    assert [output["reward_score"] for output in outputs] == [1.0, -1.0]  # right; wrong and two words too long
    extras = [output["reward_extra_info"] for output in outputs]
    assert [(e["guerdon_reward"], e["guerdon_scored"], e["guerdon_answer"], e["guerdon_length"]) for e in extras] == [
        (1.0, 1.0, 1.0, 0.0),
        (-1.0, 1.0, 0.0, -2.0),
    ]


def test_verl_puts_them_at_the_last_token_and_keeps_the_same_columns_for_a_failed_sample(
    verl, tokenizer, chat_policy, answers
):
    """compute_rm_score of verl's RewardLoopManager; its worker is called directly, where verl goes through ray."""
    module = importlib.import_module("verl.experimental.reward_loop.reward_loop")
    config = manager_settings(chat_policy, reward=[answers, "length=words:1:3:0.5"], failed=-7)
    loop = asyncio.new_event_loop()
    worker = module.RewardLoopWorker.__new__(module.RewardLoopWorker)

    async def start():
        worker.__init__(config)

    loop.run_until_complete(start())
    manager = module.RewardLoopManager.__new__(module.RewardLoopManager)
    manager.config, manager.reward_model_manager = config, None
    manager.reward_manager_cls = module.resolve_reward_manager_cls(config)
    remote = SimpleNamespace(remote=lambda chunk: loop.run_until_complete(worker.compute_score_batch(chunk)))
    manager.reward_loop_workers = [SimpleNamespace(compute_score_batch=remote)]
    module.ray.get = list
    data = batch(verl, tokenizer, [*ROWS, UNKNOWN])
    found = manager.compute_rm_score(data)
    loop.close()
    scores = found.batch["rm_scores"]
    lengths = data.batch["attention_mask"][:, data.batch["prompts"].shape[1] :].sum(1)
    assert scores.sum(1).tolist() == [1.0, -1.0, -7.0]
    assert scores[torch.arange(3), lengths - 1].tolist() == [1.0, -1.0, -7.0]
    assert found.non_tensor_batch["guerdon_scored"].tolist() == [1.0, 1.0, 0.0]
    assert math.isnan(found.non_tensor_batch["guerdon_answer"][2])
    assert found.non_tensor_batch["guerdon_length"][2] == 0.0


@pytest.mark.parametrize("make", [manager_settings, function_settings])
def test_a_sample_without_a_reward_stops_the_run_unless_a_number_is_named(make, verl, tokenizer, chat_policy, answers):
    data = batch(verl, tokenizer, [ROWS[0], UNKNOWN])
    with pytest.raises(ScoringError, match=r"no right answer is known .* verl cannot leave it out"):
        run_worker(make(chat_policy, reward=answers), data)
    outputs = run_worker(make(chat_policy, reward=answers, failed=-2.5), data)
    assert [output["reward_score"] for output in outputs] == [1.0, -2.5]
    assert outputs[0]["reward_extra_info"].keys() == outputs[1]["reward_extra_info"].keys()


def test_the_synchronous_function_in_verls_older_manager(verl, tokenizer, chat_policy, answers):
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.workers.reward_manager.naive import NaiveRewardManager

    function = get_custom_reward_fn(function_settings(chat_policy, "compute_score_sync", reward=answers))
    data = batch(verl, tokenizer, ROWS)
    found = NaiveRewardManager(tokenizer, 0, function)(data, return_dict=True)
    assert found["reward_tensor"].sum(1).tolist() == [1.0, 0.0]
    assert found["reward_extra_info"]["guerdon_scored"] == [1.0, 1.0]


def test_a_sample_whose_prompt_is_not_given_says_what_to_do(verl, tokenizer, chat_policy, answers):
    data = batch(verl, tokenizer, ROWS[:1], extra_info=[{}])
    with pytest.raises(ScoringError, match="extra_info holds no prompt; add it to the data as prompt or question"):
        run_worker(function_settings(chat_policy, reward=answers), data)
    data.non_tensor_batch.pop("raw_prompt")
    with pytest.raises(ScoringError, match=r"set data\.return_raw_chat=True"):
        run_worker(manager_settings(chat_policy, reward=answers), data)


def test_settings_that_cannot_be_used_are_named(chat_policy):
    with pytest.raises(ConfigError, match=r"add \+reward.reward_kwargs.guerdon.reward="):
        adapter.RewardManager(settings(chat_policy), None)
    with pytest.raises(ConfigError, match="failed=nan: write raise, or the finite number"):
        adapter.RewardManager(manager_settings(chat_policy, reward="lab-gold", failed="nan"), None)


def test_one_scorer_per_process_and_samples_are_scored_together(chat_policy, verl, tokenizer, answers):
    run_worker(manager_settings(chat_policy, reward=answers), batch(verl, tokenizer, ROWS))
    run_worker(function_settings(chat_policy, reward=[answers]), batch(verl, tokenizer, ROWS))
    queues = {
        id(adapter._queue(adapter._key(reward), **options)) for reward, options in [(answers, {}), ([answers], {})]
    }
    assert len(queues) == 1


def test_the_adapter_can_be_read_without_verl():
    code = "import sys, guerdon.adapters.verl, guerdon.adapters.openrlhf, guerdon.adapters.trl; assert not {'verl', 'ray', 'openrlhf', 'trl'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
