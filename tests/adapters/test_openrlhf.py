"""OpenRLHF's own single-turn executor loads the recipe's reward file and calls it; its samples carry the rewards.

Real code of openrlhf 0.11.2: SingleTurnAgentExecutor, SamplesGenerator._process_response_into_experience and
RemoteExperienceMaker.compute_advantages_and_returns. The inference engine is a stand-in that returns fixed answers; ray, vllm,
deepspeed, flash-attn, torchdata and pylatexenc, which these modules import and this path does not run, are mocks.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from types import SimpleNamespace

import pytest
import torch
from consumers import consumers
from tiny_models import CHAT_TEMPLATE, chat

from guerdon.adapters.chat_text import ChatText
from guerdon.adapters.openrlhf import reward_function
from guerdon.types import ConfigError, Score, ScoringError

MOCKS = ("ray", "vllm", "deepspeed", "flash_attn", "torchdata", "pylatexenc")


@pytest.fixture(scope="module", autouse=True)
def openrlhf():
    with consumers("openrlhf", *MOCKS):
        yield importlib.import_module("openrlhf.utils.agent")


@pytest.fixture(scope="module")
def tokenizer(chat_policy):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(chat_policy)


@pytest.fixture
def reward_file(tmp_path, chat_policy):
    """Writes the file that `--reward.remote_url` names."""
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"prompt": "hello", "answer": "how are you"}) + "\n")

    def write(**options):
        more = "".join(f", {name}={value!r}" for name, value in options.items())
        path = tmp_path / "reward.py"
        path.write_text(
            "from guerdon.adapters.openrlhf import reward_function\n"
            f"reward_func = reward_function(['answer={answers}:1.0', 'length=words:1:3:0.5'], tokenizer={str(chat_policy)!r}{more})\n"
        )
        return str(path)

    return write


class Engine:
    """What OpenRLHF expects of vLLM, with the answers decided beforehand."""

    def __init__(self, tokenizer, answers):
        self.tokenizer, self.answers = tokenizer, iter(answers)

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        ids = [*self.tokenizer(next(self.answers), add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        output = SimpleNamespace(token_ids=ids, text="", finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


def roll_out(file, tokenizer, rows):
    """OpenRLHF's responses to some prompts, rewards included, and the samples it makes of them."""
    agent = importlib.import_module("openrlhf.utils.agent")
    generator = importlib.import_module("openrlhf.trainer.ppo_utils.samples_generator").SamplesGenerator
    executor, engine = agent.SingleTurnAgentExecutor(file), Engine(tokenizer, [answer for _, answer in rows])
    sampling = SimpleNamespace(max_tokens=32, logprobs=None)

    async def run():
        prompts = [
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) for messages, _ in rows
        ]
        return [await executor.execute(p, "", sampling, 128, tokenizer, engine) for p in prompts]

    responses = asyncio.run(run())
    maker = generator.__new__(generator)
    return responses, [maker._process_response_into_experience(response, max_len=128) for response in responses]


def advantages(samples):
    """OpenRLHF's RLOO advantages of one group, without KL."""
    module = importlib.import_module("openrlhf.trainer.ppo_utils.experience_maker")
    maker = module.RemoteExperienceMaker.__new__(module.RemoteExperienceMaker)
    args = SimpleNamespace(
        algo=SimpleNamespace(
            advantage=SimpleNamespace(estimator="rloo", gamma=1.0, lambd=1.0, no_std_norm=False, is_correction_level=None),
            kl=SimpleNamespace(use_loss=False),
        ),
        rollout=SimpleNamespace(n_samples_per_prompt=len(samples)),
        reward=SimpleNamespace(clip_range=None, overlong_buffer_len=None, stop_properly_penalty_coef=None),
    )  # fmt: skip
    maker.strategy, maker.args, maker.advantage_estimator = SimpleNamespace(args=args), args, "rloo"
    maker.kl_ctl = SimpleNamespace(value=0.0)
    for index, sample in enumerate(samples):
        sample.index, sample.kl = [index], torch.zeros_like(sample.action_mask, dtype=torch.float32)
    rewards = torch.cat([sample.rewards.float() for sample in samples])
    others = (rewards.sum() - rewards) / (len(samples) - 1)
    return maker, (rewards - others).tolist()


RIGHT, WRONG = (chat("hello"), "how are you"), (chat("hello"), "the quick brown fox jumps")
UNKNOWN = (chat("who knows?"), "nobody")


def test_rewards_reach_openrlhfs_samples(reward_file, tokenizer):
    responses, samples = roll_out(reward_file(), tokenizer, [RIGHT, WRONG])
    assert [float(response["reward"]) for response in responses] == [1.0, -1.0]
    assert [sample.rewards.shape for sample in samples] == [(1,), (1,)]
    assert torch.cat([sample.rewards for sample in samples]).tolist() == [1.0, -1.0]
    assert torch.cat([sample.scores for sample in samples]).tolist() == [1.0, -1.0]
    assert [float(sample.info["guerdon_length"]) for sample in samples] == [0.0, -2.0]
    assert [float(sample.info["guerdon_scored"]) for sample in samples] == [1.0, 1.0]
    maker, by_hand = advantages(samples)
    found = maker.compute_advantages_and_returns(samples)
    assert by_hand == [2.0, -2.0]
    for sample, expected in zip(found, by_hand, strict=True):
        assert sample.returns[sample.action_mask.bool()].tolist() == pytest.approx(
            [expected] * int(sample.action_mask.sum())
        )


def test_a_sample_without_a_reward_has_none_in_openrlhf_and_is_never_trained_on(reward_file, tokenizer, caplog):
    responses, samples = roll_out(reward_file(), tokenizer, [RIGHT, UNKNOWN])
    assert responses[1]["reward"] is None
    assert samples[1].rewards is None
    assert "1 of 1 samples could not be scored (answer: no right answer is known for this prompt)" in caplog.text
    maker, _ = advantages([samples[0], samples[0]])
    samples[1].index, samples[1].kl = [1], samples[0].kl
    with pytest.raises(AttributeError):
        maker.compute_advantages_and_returns(samples)  # this is where OpenRLHF ends


def test_a_sample_without_a_reward_counts_as_the_number_that_is_named(reward_file, tokenizer):
    _, samples = roll_out(reward_file(failed=-3.0), tokenizer, [RIGHT, UNKNOWN])
    assert torch.cat([sample.rewards for sample in samples]).tolist() == [1.0, -3.0]
    assert [float(sample.info["guerdon_scored"]) for sample in samples] == [1.0, 0.0]


def test_a_batch_and_the_score_for_filtering(tokenizer):
    class Reverse:
        def score(self, conversations):
            return [Score(float(len(conversation[-1]["content"]))) for conversation in conversations]

    function = reward_function(Reverse(), tokenizer, filter_score=lambda reward: reward / 10)
    prompt = tokenizer.apply_chat_template(chat("a"), tokenize=False, add_generation_prompt=True)
    found = function([prompt + "abc</s>", prompt + "ab<pad>"], [prompt] * 2, ["", ""])
    assert found["rewards"].tolist() == [3.0, 2.0]
    assert found["scores"].tolist() == pytest.approx([0.3, 0.2])
    with pytest.raises(ScoringError, match="the query does not start with its prompt"):
        function(["something else"], [prompt], [""])
    with pytest.raises(ConfigError, match="failed=nan"):
        reward_function(Reverse(), tokenizer, failed=float("nan"))


@pytest.mark.parametrize(
    "messages",
    [
        chat("hello"),
        chat(" two\nlines "),
        chat("a", "b", "c"),
        chat("a", "b", "c", "d", "e"),
        [{"role": "system", "content": "Be brief."}, *chat("a", "b", "c")],
        [{"role": "system", "content": ""}, *chat("a")],
    ],
)
def test_a_prompt_is_read_back_from_its_template(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert list(ChatText(tokenizer).prompt(text)) == messages


CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHAT_TEMPLATE


@pytest.mark.parametrize("template", [CHATML, NO_SYSTEM], ids=["default-system", "no-system"])
def test_other_templates(make_tokenizer, template):
    tokenizer = make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = template
    text = ChatText(tokenizer)
    for messages in (chat("hello"), chat("a", "b", "c")):
        written = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert list(text.prompt(written)) == messages
    assert "is not what the policy's chat template writes" in text.prompt("hello")


def test_without_a_template_a_prompt_is_one_user_message(make_tokenizer):
    text = ChatText(make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>"))
    assert text.prompt("<s>hello") == tuple(chat("hello"))
    assert text.answer("<s>hello world</s></s>", "hello") == " world"
    assert text.answer("goodbye", "hello") is None
