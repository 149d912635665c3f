"""TRL's own GRPOTrainer and RLOOTrainer, end to end on a tiny random model, with rewards that fail for some rows."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math

import pytest
from tiny_models import chat

from guerdon.adapters.source import conversation_of
from guerdon.adapters.trl import reward_func, reward_funcs
from guerdon.client import Client
from guerdon.optimize.rewards import WeightedSum
from guerdon.optimize.verifiable import Length
from guerdon.types import ConfigError, Score

trl = pytest.importorskip("trl", reason="TRL is not installed; pip install trl==1.16.0")


class Letters:
    """How many distinct letters an answer has. Every `every`-th call's row, counted over all, cannot be scored."""

    def __init__(self, every: int = 0, members: bool = False) -> None:
        self.every, self.members, self.seen, self.asked = every, members, 0, []

    def score(self, conversations):
        self.asked.append(conversations)
        return [self._one(conversation) for conversation in conversations]

    def _one(self, conversation):
        self.seen += 1
        if self.every and self.seen % self.every == 0:
            return Score(0, "error", reason="the scorer broke")
        value = float(len(set(conversation[-1]["content"])))
        return Score(value, members=(value - 1, value + 1) if self.members else ())


def run(functions, **call):
    async def both():
        return await asyncio.gather(*(function(**call) for function in functions))

    return asyncio.run(both())


def test_it_is_a_coroutine_function_that_masks_and_logs():
    columns, metrics = {}, {}
    total = WeightedSum({"model": (Letters(every=2, members=True), 1.0), "length": (Length("words", 2, 3), 0.5)})
    function = reward_func(total, name="reward")
    assert inspect.iscoroutinefunction(function)
    assert function.__name__ == "reward"
    found = run(
        [function],
        prompts=[chat("a"), chat("b")],
        completions=[[{"role": "assistant", "content": "abc"}], [{"role": "assistant", "content": "de"}]],
        completion_ids=[[1], [2]],
        trainer_state=None,
        answer=["x", "y"],
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert found == [[2.5, None]]
    assert columns == {
        "reward/status": ["ok", "masked: model: the scorer broke"],
        "reward/model": [3.0, None],
        "reward/length": [-1.0, -1.0],
    }
    assert metrics == {"reward/masked": 0.5, "reward/disagreement": 1.0}


def test_several_functions_mask_a_row_together_and_score_a_batch_once():
    good, broken = Letters(), Letters(every=3)
    functions = reward_funcs({"good": good, "broken": broken})
    prompts, completions = ["p"] * 3, ["a", "ab", "abc"]
    assert run(functions, prompts=prompts, completions=completions) == [[1.0, 2.0, None], [1.0, 2.0, None]]
    assert len(good.asked) == len(broken.asked) == 1
    run(functions, prompts=prompts, completions=completions)  # the same lists again are a new batch
    assert len(good.asked) == len(broken.asked) == 2
    assert [function.__name__ for function in functions] == ["good", "broken"]
    with pytest.raises(ConfigError, match="no rewards"):
        reward_funcs({})


def test_an_error_of_one_scorer_reaches_every_function_and_the_next_batch_starts_anew():
    class Raises:
        def score(self, conversations):
            raise RuntimeError("out of memory")

    functions = reward_funcs({"a": Letters(), "b": Raises()})
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            run(functions, prompts=["p"], completions=["a"])


def test_conversations_from_texts_messages_and_blocks():
    answer = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert conversation_of("q", "a") == tuple(chat("q", "a"))
    assert conversation_of(chat("q"), [answer | {"tool_calls": []}]) == tuple(chat("q", "ab"))
    assert conversation_of(chat("q"), [{"role": "assistant", "content": None}])[-1]["content"] == ""
    assert "cannot be scored" in conversation_of(chat("q"), [{"role": "assistant", "content": [{"type": "image"}]}])
    assert "neither text nor" in conversation_of(3, "a")


def test_a_row_that_is_no_conversation_is_masked_and_not_shown_to_the_scorer():
    scorer = Letters()
    image = [{"role": "assistant", "content": [{"type": "image"}]}]
    assert run([reward_func(scorer)], prompts=["p", "p"], completions=[image, "ab"]) == [[None, 2.0]]
    assert scorer.asked == [[tuple(chat("p", "ab"))]]


def train(kind, policy, folder, functions, prompts, weights=None):
    """Two optimiser steps of 4 prompts with 4 completions each; the log history, the completions table and the weights."""
    from datasets import Dataset

    config, trainer = {"grpo": (trl.GRPOConfig, trl.GRPOTrainer), "rloo": (trl.RLOOConfig, trl.RLOOTrainer)}[kind]
    arguments = config(
        output_dir=str(folder), max_steps=2, per_device_train_batch_size=8, num_generations=4, max_completion_length=6,
        logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, learning_rate=1e-3, seed=3,
        reward_weights=weights, beta=0.0,
    )  # fmt: skip
    made = trainer(
        model=str(policy),
        reward_funcs=functions,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": p, "answer": str(i)} for i, p in enumerate(prompts)]),
    )
    before = {name: weight.detach().clone() for name, weight in made.model.named_parameters()}
    made.train()
    moved = max(float((weight.detach() - before[name]).abs().max()) for name, weight in made.model.named_parameters())
    return made, [log for log in made.state.log_history if "reward" in log], moved


PLAIN = ["hello world", "how are you", "the quick", "brown fox"]
CHATS = [chat(text) for text in PLAIN]


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
@pytest.mark.parametrize("prompts", [PLAIN, CHATS], ids=["plain", "conversational"])
def test_trl_trains_and_leaves_the_failed_row_out(kind, prompts, chat_policy, tmp_path):
    scorer = Letters(every=5)
    made, logs, moved = train(kind, chat_policy, tmp_path, reward_func(scorer, name="letters"), prompts)
    assert len(logs) == 2
    assert moved > 0
    rewards, advantages = list(made._logs["rewards"]["letters"]), list(made._logs["advantages"])
    failed = [i for i, reward in enumerate(rewards) if math.isnan(reward)]
    said = list(made._logs["extra"]["letters/status"])
    assert failed == [i for i, status in enumerate(said) if status == "error: the scorer broke"]
    assert scorer.seen == 16  # TRL keeps the last batch of 8: of the calls 9 to 16, the 10th and the 15th failed
    assert failed == [1, 6]
    assert all(advantages[i] == 0 for i in failed)
    for start in (0, 4):  # the others of the group get what they would have got had the failed row never been drawn
        kept = {i: rewards[i] for i in range(start, start + 4) if i not in failed}
        mean = sum(kept.values()) / 3
        sd = math.sqrt(sum((r - mean) ** 2 for r in kept.values()) / 2)
        for i, reward in kept.items():
            others = (sum(kept.values()) - reward) / 2
            expected = (reward - mean) / (sd + 1e-4) if kind == "grpo" else reward - others
            assert advantages[i] == pytest.approx(expected, abs=1e-4)
    assert [log["letters/masked"] for log in logs] == [1 / 8, 2 / 8]
    shown = scorer.asked[0][0]
    assert [message["role"] for message in shown] == ["user", "assistant"]
    assert shown[0]["content"] in PLAIN


def test_trl_sums_several_functions_only_over_rows_that_all_could_score(chat_policy, tmp_path):
    functions = reward_funcs({"letters": Letters(every=3), "length": Length("words", 1, 2)})
    made, _, moved = train("grpo", chat_policy, tmp_path, functions, CHATS, weights=[1.0, 0.5])
    letters, length = (list(made._logs["rewards"][name]) for name in ("letters", "length"))
    assert [math.isnan(a) for a in letters] == [math.isnan(b) for b in length]
    assert 0 < sum(map(math.isnan, letters)) < len(letters)
    assert all(a == 0 for a, r in zip(made._logs["advantages"], letters, strict=True) if math.isnan(r))
    assert moved > 0


def test_trl_given_plain_functions_would_count_the_failed_part_as_nothing(chat_policy, tmp_path):
    """The trap that `reward_funcs` is there for: without it a failed row keeps the rest of its sum and is trained on."""
    functions = [reward_func(Letters(every=3), name="letters"), reward_func(Length("words", 9, 9), name="length")]
    made, _, _ = train("grpo", chat_policy, tmp_path, functions, CHATS)
    failed = [i for i, r in enumerate(made._logs["rewards"]["letters"]) if math.isnan(r)]
    assert any(made._logs["advantages"][i] != 0 for i in failed)


def test_trl_with_a_server_that_is_down_changes_no_weight(chat_policy, tmp_path, caplog):
    client = Client("http://127.0.0.1:9", patience=0, timeout=2)
    with caplog.at_level(logging.WARNING):
        _, logs, moved = train("grpo", chat_policy, tmp_path, reward_func(client), CHATS)
    assert moved == 0
    assert all(log["guerdon/masked"] == 1.0 for log in logs)
    assert "cannot be reached" in caplog.text
