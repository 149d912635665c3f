"""DPO through TRL, and the implicit reward: against a computation by hand, against TRL's own logs, and as a reward."""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import chat
from tiny_policy import tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from guerdon import cli
from guerdon.data.read import load
from guerdon.data.split import split
from guerdon.optimize.dpo import direct_preference, encode_pairs
from guerdon.optimize.dpo_config import DpoConfig
from guerdon.optimize.implicit import FILE, ImplicitReward
from guerdon.optimize.policy import Policy
from guerdon.terminal import load_reward
from guerdon.types import Comparison, ConfigError, ContractError, TrainingError

WORDS = "hello world how are you today the quick brown fox jumps over lazy dog".split()


@pytest.fixture(scope="module")
def base(tmp_path_factory, make_tokenizer) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("dpo") / "base", make_tokenizer)


@pytest.fixture(scope="module")
def other(tmp_path_factory, make_tokenizer) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("dpo") / "other", make_tokenizer, seed=2)


def rows(n: int) -> list[dict[str, object]]:
    """Answers with `fox` are chosen over answers with `dog`."""
    return [
        {"prompt": f"{WORDS[i % 14]} {WORDS[i // 14]}?", "chosen": f"{WORDS[(3 * i) % 14]} fox", "rejected": f"{WORDS[(5 * i) % 14]} dog"}
        for i in range(n)
    ]  # fmt: skip


def write(path: Path, n: int) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(n)), encoding="utf-8")
    return str(path)


def by_hand(policy: Path, reference: Path, conversation: list[dict[str, str]]) -> tuple[float, int]:
    """log pi - log pi_ref of the last turn, with nothing but transformers; and its number of tokens."""
    tokenizer = Policy.load(policy, device="cpu").tokenizer  # for its chat template
    head = tokenizer.apply_chat_template(conversation[:-1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(conversation, tokenize=False)
    prompt = tokenizer(head, add_special_tokens=False)["input_ids"]
    completion = tokenizer(whole[len(head) :], add_special_tokens=False)["input_ids"]
    totals = []
    for path in (policy, reference):
        net = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        with torch.no_grad():
            logprobs = net(torch.tensor([prompt + completion])).logits[0].double().log_softmax(-1)
        totals.append(sum(float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(completion)))
    return totals[0] - totals[1], len(completion)


CONVERSATIONS = [
    chat("hello world", "how are you"),
    chat("hello world", "the quick brown fox jumps"),
    chat("the dog", "lazy", "and the fox?", "today"),
    chat("hello world", ""),
]


@pytest.mark.parametrize("per_token", [False, True])
def test_implicit_reward_is_that_of_a_computation_by_hand(base, other, per_token):
    reward = ImplicitReward(Policy.load(base, device="cpu"), Policy.load(other, device="cpu"), 0.25, per_token)
    scores = reward.score([*CONVERSATIONS, chat("only a question"), chat("hello", "fox " * 600)])
    for score, conversation in zip(scores[:4], CONVERSATIONS, strict=True):
        difference, tokens = by_hand(base, other, conversation)
        assert float(score) == pytest.approx(0.25 * difference / (tokens if per_token else 1), abs=1e-4)
        assert score.status == "ok"
    assert [score.status for score in scores[4:]] == ["error", "error"]
    assert "assistant message" in scores[4].reason
    assert "more than the model's context" in scores[5].reason
    assert float(reward.score(CONVERSATIONS[2:3])[0]) == pytest.approx(
        float(scores[2]), abs=1e-5
    )  # whatever stands beside it


def test_policy_against_itself_has_no_reward(base):
    reward = ImplicitReward(Policy.load(base, device="cpu"), Policy.load(base, device="cpu"), 0.1)
    assert [float(score) for score in reward.score(CONVERSATIONS)] == [0, 0, 0, 0]
    with pytest.raises(ConfigError, match="beta"):
        ImplicitReward(reward.policy, reward.reference, 0.0)


def test_folder_is_loaded_like_a_reward_model_and_refuses_other_weights(base, other, tmp_path):
    policy = Policy.load(base, device="cpu")
    reference = tmp_path / "reference"
    Policy.load(other, device="cpu").save(reference)
    policy.save(tmp_path / "dpo" / "policy")
    reward = ImplicitReward(policy, Policy.load(reference, device="cpu"), 0.1)
    reward.write(tmp_path / "dpo" / "policy", reference, [(c[:-1], c[-1]["content"]) for c in CONVERSATIONS])
    spelled = load_reward([str(tmp_path / "dpo" / "policy"), f"model={tmp_path / 'dpo' / 'policy'}:2.0"], "cpu")
    once = [float(score) for score in reward.score(CONVERSATIONS)]
    assert [float(score) for score in spelled.score(CONVERSATIONS)] == pytest.approx([3 * v for v in once], abs=1e-4)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "dpo").rename(moved / "dpo")
    reference.rename(moved / "reference")  # both moved together: found beside each other
    assert float(ImplicitReward.load(moved / "dpo" / "policy", device="cpu").score(CONVERSATIONS)[0]) == pytest.approx(
        once[0]
    )
    weights = load_file(moved / "reference" / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.1
    save_file(weights, moved / "reference" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ContractError, match="have changed since"):
        ImplicitReward.load(moved / "dpo" / "policy", device="cpu")
    (moved / "reference").rename(moved / "gone")
    with pytest.raises(ConfigError, match="reference cannot be loaded"):
        ImplicitReward.load(moved / "dpo" / "policy", device="cpu")


def test_pairs_of_rankings_ties_and_long_answers(base):
    policy = Policy.load(base, device="cpu")
    prompt = tuple(chat("hello"))

    def answer(text: str) -> tuple[dict[str, str], ...]:
        return ({"role": "assistant", "content": text},)

    ranking = Comparison(prompt, (answer("fox"), answer("dog"), answer("world")), (0, 1, 1))
    long = Comparison(prompt, (answer("fox " * 300), answer("dog")), (0, 1))
    odd = Comparison(prompt, (answer("a") + tuple(chat("b")), answer("c")), (0, 1))
    found = encode_pairs(policy, [ranking, long, odd], 200)
    ids = {text: list(policy.encode_answer(prompt, text)[1]) for text in ("fox", "dog", "world")}
    assert [(row["chosen_ids"], row["rejected_ids"]) for row in found.rows] == [
        (ids["fox"], ids["dog"]),
        (ids["fox"], ids["world"]),
    ]
    assert sum(found.left_out.values()) == 3
    assert found.left_out["tied pairs"] == found.left_out["pairs longer than 200 tokens"] == 1


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dpo-run")
    config = DpoConfig(
        policy=str(base), data=(write(folder / "d.jsonl", 64),), output=str(folder / "run"), batch_size=8, pairs_per_pass=8,
        epochs=4, learning_rate=3e-3, eval_fraction=0.25, log_every=1,
    )  # fmt: skip
    result = direct_preference(config, say=lambda _: None, device="cpu")
    assert result.steps == 24
    return folder / "run"


def test_dpo_raises_implicit_accuracy_on_prompts_it_has_not_seen(trained):
    evaluation = json.loads((trained / "run.json").read_text())["evaluation"]
    assert evaluation["n"] == 16
    assert evaluation["accuracy"] >= 0.9
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-4)  # log 2: the policy is the reference
    assert lines[0]["margin"] == pytest.approx(0, abs=1e-6)
    assert [row["step"] for row in lines if "loss" in row] == list(range(1, 25))
    assert not (trained / "checkpoints").exists()


def test_rewards_that_trl_logs_are_ours(trained):
    held = [row for row in map(json.loads, (trained / "metrics.jsonl").read_text().splitlines()) if "eval_loss" in row][
        -1
    ]
    evaluated = held["step"] == 24
    assert evaluated
    reward = ImplicitReward.load(trained / "policy", device="cpu")
    _, comparisons = split(load(trained.parent / "d.jsonl").comparisons, 0.25, 0)
    assert len(comparisons) == 16  # two whole batches, so that TRL's mean of batch means is the mean
    chosen = [float(s) for s in reward.score([c.conversations()[0] for c in comparisons])]
    rejected = [float(s) for s in reward.score([c.conversations()[1] for c in comparisons])]
    assert held["eval_chosen_reward"] == pytest.approx(sum(chosen) / 16, abs=1e-4)
    assert held["eval_rejected_reward"] == pytest.approx(sum(rejected) / 16, abs=1e-4)
    margins = torch.tensor(chosen) - torch.tensor(rejected)
    assert held["eval_loss"] == pytest.approx(float(-torch.nn.functional.logsigmoid(margins).mean()), abs=1e-4)


def test_saved_policy_is_plain_and_scores_from_the_command_line(trained, tmp_path, capsys):
    AutoModelForCausalLM.from_pretrained(trained / "policy")
    AutoTokenizer.from_pretrained(trained / "policy")
    cli.main(
        [
            "score",
            "--model",
            str(trained / "policy"),
            "--data",
            write(tmp_path / "d.jsonl", 6),
            "--output",
            str(tmp_path / "s.jsonl"),
        ]
    )
    found = [json.loads(line)["scores"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert len(found) == 6
    assert all(chosen > rejected for chosen, rejected in found)


def test_lora_keeps_the_base_as_reference_and_merges_what_it_learned(base, tmp_path):
    config = DpoConfig(
        policy=str(base), data=(write(tmp_path / "d.jsonl", 32),), output=str(tmp_path / "run"), batch_size=8, epochs=4,
        learning_rate=1e-2, eval_fraction=0.25, lora_rank=4, log_every=1,
    )  # fmt: skip
    direct_preference(config, say=lambda _: None, device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in lines if "loss" in row]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)
    assert losses[-1] < 0.6
    held = [row for row in lines if "eval_loss" in row][-1]
    evaluation = json.loads((tmp_path / "run" / "run.json").read_text())["evaluation"]
    assert evaluation["nll"] == pytest.approx(held["eval_loss"], abs=1e-3)  # 8 pairs, one batch
    before, after = (
        AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (base, tmp_path / "run" / "policy")
    )
    assert before.keys() == after.keys()
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_resumed_run_ends_as_the_uninterrupted_one(base, tmp_path):
    config = DpoConfig(
        policy=str(base), data=(write(tmp_path / "d.jsonl", 32),), output=str(tmp_path / "whole"), batch_size=8, epochs=2,
        learning_rate=3e-3, eval_fraction=0.0, log_every=1, save_every=2,
    )  # fmt: skip
    direct_preference(config, say=lambda _: None, device="cpu")

    class Killer:
        def start(self, steps: int, done: int) -> None: ...
        def stop(self) -> None: ...
        def step(self, row: dict[str, object]) -> None:
            if row["step"] == 5:
                raise KeyboardInterrupt

    cut = replace(config, output=str(tmp_path / "cut"))
    with pytest.raises(KeyboardInterrupt):
        direct_preference(cut, say=lambda _: None, device="cpu", watch=Killer())
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # what kill -9 may leave: half a line, and half a checkpoint
    (tmp_path / "cut" / "checkpoints" / "checkpoint-6").mkdir()
    (tmp_path / "cut" / "checkpoints" / "checkpoint-6" / "trainer_state.json").write_text('{"global_')
    direct_preference(replace(cut, resume=True), say=lambda _: None, device="cpu")
    losses = [
        [
            (row["step"], row["loss"])
            for row in map(json.loads, (tmp_path / run / "metrics.jsonl").read_text().splitlines())
        ]
        for run in ("whole", "cut")
    ]
    assert losses[0] == losses[1]
    weights = [load_file(tmp_path / run / "policy" / "model.safetensors") for run in ("whole", "cut")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert (tmp_path / "cut" / "policy" / FILE).is_file()


def test_a_full_disk_at_the_end_is_one_sentence_and_no_lost_run(base, tmp_path, monkeypatch):
    config = DpoConfig(
        policy=str(base), data=(write(tmp_path / "d.jsonl", 8),), output=str(tmp_path / "run"), batch_size=8,
        eval_fraction=0.0, save_every=1,
    )  # fmt: skip

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Policy, "save", full)
        with pytest.raises(TrainingError, match=r"run: the policy cannot be saved .*make room and go on with --resume"):
            direct_preference(config, say=lambda _: None, device="cpu")
    assert direct_preference(replace(config, resume=True), say=lambda _: None, device="cpu").policy.is_dir()


def test_without_trl_the_error_says_what_to_install(base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    config = DpoConfig(policy=str(base), data=(write(tmp_path / "d.jsonl", 4),), output=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"pip install 'guerdon\[rl\]'"):
        direct_preference(config, say=lambda _: None, device="cpu")


def test_bad_options():
    with pytest.raises(ConfigError, match="must divide"):
        DpoConfig(batch_size=10, pairs_per_pass=4)
    with pytest.raises(ConfigError, match="--label-smoothing"):
        DpoConfig(loss="robust")
