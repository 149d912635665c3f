"""Supervised fine-tuning: the loss is the reference implementation's, it learns, it resumes, and it says what it leaves out."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny_models import chat
from tiny_policy import tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from guerdon.data.demonstrations import Demonstration, load_demonstrations
from guerdon.optimize.policy import Policy
from guerdon.optimize.sft import accumulate, encode, fine_tune, make_plan, perplexity
from guerdon.optimize.sft_config import SftConfig, learning_rate
from guerdon.types import ConfigError, DataError

ANSWERS = [
    Demonstration(tuple(chat("hello world")), "how are you today?"),
    Demonstration(tuple(chat("hello world")), "the quick brown fox"),
    Demonstration(tuple(chat("the lazy dog")), "jumps over the lazy dog, jumps over"),
    Demonstration(tuple(chat("today", "fox", "and now?")), "world"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory, make_tokenizer) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("sft") / "base", make_tokenizer)


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def reference_loss(policy: Policy, answers: list[Demonstration]) -> torch.Tensor:
    """transformers' own loss over labels, in one padded batch: -100 everywhere but on the completions."""
    pairs = [policy.encode_answer(answer.prompt, answer.answer) for answer in answers]
    width = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids = torch.full((len(pairs), width), policy.tokenizer.pad_token_id)
    labels, mask = torch.full((len(pairs), width), -100), torch.zeros(len(pairs), width, dtype=torch.long)
    for i, (prompt, completion) in enumerate(pairs):
        end = len(prompt) + len(completion)
        ids[i, :end], mask[i, :end] = torch.tensor(prompt + completion), 1
        labels[i, len(prompt) : end] = torch.tensor(completion)
    return policy.net(input_ids=ids, attention_mask=mask, labels=labels).loss


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
@pytest.mark.parametrize("tokens_per_row", [16, 4096])
def test_loss_and_gradient_are_those_of_transformers_labels(tmp_path, make_tokenizer, name, tokens_per_row):
    policy = Policy.load(tiny_policy(tmp_path / name, make_tokenizer, name), device="cpu")
    config = SftConfig(tokens_per_row=tokens_per_row)
    groups = encode(policy, ANSWERS, 512).groups
    assert [len(group.samples) for group in groups] == [2, 1, 1]
    expected = reference_loss(policy, ANSWERS)
    expected.backward()
    reference = {n: p.grad.clone() for n, p in policy.net.named_parameters()}
    policy.zero_grad()
    loss, tokens = accumulate(Accelerator(cpu=True), policy, policy, groups, config)
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert tokens == sum(len(policy.encode_answer(a.prompt, a.answer)[1]) for a in ANSWERS)
    for n, p in policy.net.named_parameters():
        torch.testing.assert_close(p.grad, reference[n], atol=1e-5, rtol=1e-4)
    assert perplexity(policy, groups, config) == pytest.approx(math.exp(expected.item()), rel=1e-5)


def test_plan_takes_every_answer_once_an_epoch_in_steps_of_the_batch_size(base):
    policy = Policy.load(base, device="cpu")
    many = [Demonstration(tuple(chat(f"hello {i % 5}")), f"world {i}") for i in range(23)]
    groups = encode(policy, many, 512).groups
    plan = make_plan(SftConfig(batch_size=4, epochs=2.0), groups)
    sizes = [sum(len(group.samples) for group in step) for step in plan]
    assert sizes == [4, 4, 4, 4, 4, 3] * 2
    for epoch in (plan[:6], plan[6:]):
        assert sorted(s for step in epoch for group in step for s in group.samples) == list(range(23))
    assert plan[:6] != plan[6:]
    assert len(make_plan(SftConfig(batch_size=4, epochs=2.0, max_steps=7), groups)) == 7


def test_learning_rate_rises_then_falls_to_a_tenth():
    config = SftConfig(learning_rate=1.0, warmup=0.2)
    assert [round(learning_rate(config, step, 10), 6) for step in (1, 2, 3)] == [0.5, 1.0, 1.0]
    assert learning_rate(replace(config, warmup=0.0), 11, 10) == pytest.approx(0.1)


def test_it_learns_a_tiny_set_and_leaves_a_plain_folder(base, tmp_path):
    rows = [{"prompt": f"hello {word}", "completion": "the quick brown fox"} for word in ("world", "dog", "fox", "you")]
    config = SftConfig(
        policy=str(base), data=(write(tmp_path / "d.jsonl", rows),), output=str(tmp_path / "run"), learning_rate=1e-2,
        batch_size=4, epochs=60, eval_fraction=0.0,
    )  # fmt: skip
    result = fine_tune(config, say=lambda _: None)
    assert result.steps == 60
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] > 4
    assert losses[-1] < 0.05
    net = AutoModelForCausalLM.from_pretrained(result.policy)
    tokenizer = AutoTokenizer.from_pretrained(result.policy)
    ids = tokenizer.apply_chat_template(chat("hello dog"), add_generation_prompt=True, return_tensors="pt")["input_ids"]
    out = net.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(out, skip_special_tokens=True).strip() == "the quick brown fox"
    assert out[-1] == tokenizer.eos_token_id  # it has learned to stop
    assert fine_tune(replace(config, resume=True), say=lambda _: None).steps == 0  # complete: nothing to do
    with pytest.raises(ConfigError, match="already holds a run"):
        fine_tune(config, say=lambda _: None)


def test_lora_trains_the_adapter_alone_and_saves_merged_weights(base, tmp_path):
    rows = [{"prompt": f"hello {i}", "completion": "fox"} for i in range(4)]
    config = SftConfig(
        policy=str(base), data=(write(tmp_path / "d.jsonl", rows),), output=str(tmp_path / "run"), learning_rate=1e-2,
        batch_size=4, epochs=10, eval_fraction=0.25, lora_rank=4,
    )  # fmt: skip
    result = fine_tune(config, say=lambda _: None)
    assert result.perplexity < result.perplexity_before
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (base, result.policy))
    assert before.keys() == after.keys()
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    saved = Policy.load(result.policy, device="cpu")
    held = json.loads((tmp_path / "run" / "run.json").read_text())["held_out"]
    assert held == 1
    assert saved.shares_prefix


@pytest.mark.parametrize("tied", [False, True])
def test_a_run_that_is_cut_short_and_resumed_is_the_run_that_was_not(tmp_path, make_tokenizer, tied):
    base = tiny_policy(tmp_path / "base", make_tokenizer, tie_word_embeddings=tied)
    rows = [{"prompt": f"hello {i}", "completion": f"world {i} fox"} for i in range(12)]
    config = SftConfig(
        policy=str(base), data=(write(tmp_path / "d.jsonl", rows),), output=str(tmp_path / "whole"), learning_rate=3e-3,
        batch_size=3, epochs=2, eval_fraction=0.2, save_every=2, eval_every=2,
    )  # fmt: skip
    fine_tune(config, say=lambda _: None)

    class Stop(Exception):
        pass

    class Killer:
        def start(self, steps: int, done: int) -> None: ...
        def stop(self) -> None: ...
        def step(self, row: dict[str, object]) -> None:
            if row["step"] == 5:
                raise Stop

    cut = replace(config, output=str(tmp_path / "cut"))
    with pytest.raises(Stop):
        fine_tune(cut, say=lambda _: None, watch=Killer())
    fine_tune(replace(cut, resume=True), say=lambda _: None)
    names = ("step", "loss", "grad_norm", "lr", "held_out_perplexity")
    curves = [
        [
            [json.loads(line)[name] for name in names]
            for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in ("whole", "cut")
    ]
    assert curves[0] == curves[1]
    weights = [AutoModelForCausalLM.from_pretrained(tmp_path / run / "policy").state_dict() for run in ("whole", "cut")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resume_refuses_other_data(base, tmp_path):
    rows = [{"prompt": f"hello {i}", "completion": "fox"} for i in range(6)]
    data = write(tmp_path / "d.jsonl", rows)
    config = SftConfig(
        policy=str(base), data=(data,), output=str(tmp_path / "run"), batch_size=2, save_every=1, eval_fraction=0.0
    )

    class Killer:
        def start(self, steps: int, done: int) -> None: ...
        def stop(self) -> None: ...
        def step(self, row: dict[str, object]) -> None:
            if row["step"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(config, say=lambda _: None, watch=Killer())
    write(tmp_path / "d.jsonl", [{"prompt": f"hello {i}", "completion": "dog"} for i in range(6)])
    with pytest.raises(ConfigError, match="not those the run was started on"):
        fine_tune(replace(config, resume=True), say=lambda _: None)


def test_long_answers_are_left_out_and_counted_never_cut(base):
    policy = Policy.load(base, device="cpu")
    found = encode(policy, [*ANSWERS, Demonstration(tuple(chat("hello")), "fox " * 400)], 128)
    assert found.answers == len(ANSWERS)
    assert found.left_out == {"longer than 128 tokens": 1}


def test_answers_of_every_kind_of_row(tmp_path):
    rows = [
        {"prompt": "a", "chosen": "good", "rejected": "bad"},
        {"prompt": "b", "completion": "one", "scores": [1.0], "margin": "nan"},
        {"prompt": "c", "completions": ["x", "y", "z"], "ranks": [1, 0, 0]},
        {"prompt": "d", "completions": ["p", "q"]},
        {"messages": chat("e", "f", "g", "h")},
        {"messages": chat("only a question")},
        {"prompt": "i", "completion": None},
        {"prompt": "j", "completion": " "},
    ]
    found = load_demonstrations([write(tmp_path / "d.jsonl", rows)])
    assert [(a.prompt[-1]["content"], a.answer) for a in found.answers] == [
        ("a", "good"), ("b", "one"), ("c", "y"), ("c", "z"), ("d", "p"), ("d", "q"), ("g", "h")
    ]  # fmt: skip
    assert found.dropped == {"does not end with the assistant": 1, "no answer": 1, "empty answer": 1}
    assert found.rows == 8
    with pytest.raises(DataError, match=r"d.jsonl:1: nothing to score"):
        load_demonstrations([write(tmp_path / "d.jsonl", [{"question": "a"}])])
    with pytest.raises(DataError, match="holds no answer to learn from"):
        load_demonstrations([write(tmp_path / "d.jsonl", [{"prompt": "a", "completion": None}])])


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(tmp_path, make_tokenizer):
    base = tiny_policy(tmp_path / "base", make_tokenizer)
    data = write(
        tmp_path / "d.jsonl", [{"prompt": f"hello {i % 9}", "completion": f"world {i} fox"} for i in range(20)]
    )
    words = ["optimize", "sft", "--policy", str(base), "--data", data, "--batch-size", "5", "--tokens-per-row", "64"]
    words += ["--learning-rate", "3e-3", "--eval-fraction", "0.2"]
    curves = []
    for processes in (1, 2):
        run = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(processes),
            "-m",
            "guerdon.cli",
        ]
        environment = os.environ | {
            "ACCELERATE_USE_CPU": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        output = tmp_path / str(processes)
        done = subprocess.run(
            [*run, *words, "--output", str(output)], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        curves.append([[row["loss"], row["grad_norm"]] for row in rows])
    assert np.allclose(curves[0], curves[1], rtol=1e-4)
