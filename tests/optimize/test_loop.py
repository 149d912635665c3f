"""The loop as a whole: a step is the step written out by hand, what has no reward is left out, errors are sentences."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from policy_runs import Letters, assert_same_policy, config_of, letters, quiet, rows_of, untimed, weights
from tiny_models import chat
from tiny_policy import make_world, tiny_policy
from torch import Tensor
from transformers import AutoModelForCausalLM

from guerdon.data.rows import load_prompts
from guerdon.data.write import write_jsonl
from guerdon.diagnose.monitor import Monitor, Observation, Verdict
from guerdon.model.reward import RewardModel
from guerdon.optimize import loop
from guerdon.optimize.config import OptimizeConfig
from guerdon.optimize.generate import Sample, Sampling
from guerdon.optimize.loop import optimize
from guerdon.optimize.policy import Policy
from guerdon.optimize.prompts import picked_prompts
from guerdon.optimize.rewards import WeightedSum
from guerdon.optimize.rollout import Rollout
from guerdon.optimize.run_folder import RunFolder
from guerdon.optimize.scoring import shared_errors
from guerdon.optimize.step_record import StepRecord
from guerdon.optimize.value import from_reward
from guerdon.optimize.watch import Watch
from guerdon.types import Comparison, ConfigError, DataError, Score, ScoringError, TrainingError


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_tokenizer) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), make_tokenizer)


@pytest.fixture
def drawn(monkeypatch) -> list[list[list[Sample]]]:
    """Fills with what each step sampled."""
    steps: list[list[list[Sample]]] = []

    def recorded(*args: Any, **options: Any) -> Any:
        steps.append(generate(*args, **options))
        return steps[-1]

    generate = loop.generate
    monkeypatch.setattr(loop, "generate", recorded)
    return steps


def logprobs_of(net: Any, sample: Sample) -> Tensor:
    ids = torch.tensor([sample.prompt + sample.ids])
    logits = net(input_ids=ids).logits[0, len(sample.prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(sample.ids)), ids[0, len(sample.prompt) :]]


def fails(call: int, text: str) -> bool:
    return len(text) % 3 == 0


def never(call: int, text: str) -> bool:
    return False


def by_hand(base: Path, steps: list[list[list[Sample]]], config: OptimizeConfig, masks: Any) -> dict[str, Tensor]:
    """RLOO and GRPO in plain torch, sample by sample, with unfused Adam; samples that `masks` names are simply not there."""
    net, ref = (AutoModelForCausalLM.from_pretrained(base).eval() for _ in range(2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=0.0)
    for groups in steps:
        terms, tokens, count = [], 0, 0
        for group in groups:
            kept = [sample for sample in group if not masks(0, sample.text)]
            worth = []
            for sample in kept:
                with torch.no_grad():
                    ratio = (logprobs_of(net, sample) - logprobs_of(ref, sample)).sum()
                worth.append(letters(sample.text) - config.beta * float(ratio))
            for i, sample in enumerate(kept):
                others = [w for j, w in enumerate(worth) if j != i]
                if not others:
                    continue
                if config.algorithm == "rloo":
                    advantage = worth[i] - sum(others) / len(others)
                else:
                    mean = sum(worth) / len(worth)
                    deviation = math.sqrt(sum((w - mean) ** 2 for w in worth) / (len(worth) - 1))
                    advantage = (worth[i] - mean) / (deviation + 1e-4)
                terms.append((advantage, logprobs_of(net, sample)))
            tokens, count = tokens + sum(len(sample.ids) for sample in kept), count + len(kept)
        if config.algorithm == "rloo":  # every token alike
            loss = -sum(a * logprob.sum() for a, logprob in terms) / tokens
        else:  # mean over tokens, then over completions
            loss = -sum(a * logprob.mean() for a, logprob in terms) / count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.max_grad_norm)
        optimizer.step()
    return dict(net.named_parameters())


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], base: Path, lr: float) -> None:
    """Adam divides by the size of the gradient: a weight whose gradient is rounding error moves anywhere within the rate."""
    start = dict(AutoModelForCausalLM.from_pretrained(base).named_parameters())
    a, b, c = (
        torch.cat([w[name].detach().flatten() for name in expected if name in found]) for w in (found, expected, start)
    )
    assert float((b - c).abs().max()) > lr / 2
    assert float((a - b).abs().mean()) < 1e-4 * lr
    assert float(((a - b).abs() > 1e-2 * lr).float().mean()) < 1e-3


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
@pytest.mark.parametrize("masks", [never, fails], ids=["all scored", "some not"])
def test_two_steps_are_those_written_out_by_hand(world, tmp_path, drawn, algorithm, masks):
    config = config_of(world, algorithm=algorithm, output=str(tmp_path), steps=2, beta=0.2, kl_in="reward")
    optimize(config, Letters(masks), say=quiet)
    assert sum(masks(0, s.text) for step in drawn for group in step for s in group) == sum(
        r["masked"] for r in rows_of(tmp_path)
    )
    assert_close(weights(tmp_path), by_hand(world / "base", drawn, config, masks), world / "base", config.learning_rate)
    assert rows_of(tmp_path)[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert abs(rows_of(tmp_path)[1]["kl"]) > 1e-3


def test_a_step_of_ppo_is_the_step_written_out_by_hand(world, tmp_path, drawn):
    """Values start at 0 and the policy is its reference: rewards come at the last token, A_t = lam^(n - t) r before whitening."""
    config = config_of(world, algorithm="ppo", output=str(tmp_path), steps=1, lam=0.9, max_grad_norm=0.0)
    optimize(config, Letters(fails), say=quiet)
    samples = [s for group in drawn[0] for s in group if not fails(0, s.text)]
    raw = [[letters(s.text) * 0.9 ** (len(s.ids) - 1 - t) for t in range(len(s.ids))] for s in samples]
    flat = torch.tensor([a for row in raw for a in row], dtype=torch.float64)
    mean, deviation = float(flat.mean()), float(flat.std(correction=0))
    net = AutoModelForCausalLM.from_pretrained(world / "base").eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=0.0)
    loss = torch.zeros(())
    for sample, row in zip(samples, raw, strict=True):
        loss = loss - ((torch.tensor(row) - mean) / deviation * logprobs_of(net, sample)).sum() / len(flat)
    loss.backward()
    optimizer.step()
    assert_close(weights(tmp_path), dict(net.named_parameters()), world / "base", config.learning_rate)
    (row,) = rows_of(tmp_path)
    assert row["explained_variance"] == pytest.approx(0, abs=1e-6)
    returns = flat  # the value before each token is 0, so its error is the return, and half its square the loss
    assert row["value_loss"] == pytest.approx(config.value_weight * 0.5 * float((returns**2).mean()), rel=1e-4)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_it_learns(world, tmp_path, algorithm):
    config = config_of(
        world, algorithm=algorithm, output=str(tmp_path), steps=14, prompts_per_step=8, samples_per_prompt=4
    )
    optimize(replace(config, beta=0.0, save_every=100, learning_rate=2e-2), Letters(), say=quiet)
    proxy = [row["proxy"] for row in rows_of(tmp_path)]
    assert sum(proxy[-3:]) / 3 > sum(proxy[:3]) / 3 + 0.1


def test_kl_holds_the_policy_back(world, tmp_path):
    found = {}
    for beta in (0.0, 5.0):
        config = config_of(
            world, algorithm="rloo", output=str(tmp_path / str(beta)), steps=10, beta=beta, save_every=100
        )
        optimize(config, Letters(), say=quiet)
        found[beta] = sum(row["kl"] for row in rows_of(config.output)[-3:]) / 3
    assert found[5.0] < found[0.0] / 2


def test_ppo_from_the_reward_model(world, tmp_path, make_backbone):
    """The value model starts as the reward model read at every token: at the end of a conversation it gives the reward."""
    reward = RewardModel.load(make_backbone(tmp_path / "rm"), device="cpu")
    policy = Policy.load(world / "base", device="cpu")
    value = from_reward(reward, policy)
    talk = chat("hello world", "how are you")
    (score,) = reward.score([talk])
    (encoded,) = reward.encoder([talk])
    with torch.no_grad():
        states = value.body(input_ids=torch.tensor([encoded.ids])).last_hidden_state
        values = value.head(states)
    assert float(values[0, -1, 0]) == pytest.approx(float(score), abs=1e-4)
    config = config_of(
        world, algorithm="ppo", value_from="reward", output=str(tmp_path / "run"), steps=2, updates=2, minibatches=2
    )
    optimize(config, reward, say=quiet)
    assert all(
        math.isfinite(row[name]) for row in rows_of(config.output) for name in ("value_loss", "policy_loss", "kl")
    )
    with pytest.raises(ConfigError, match="--value-from reward needs one local reward model"):
        optimize(replace(config, output=str(tmp_path / "other")), Letters(), say=quiet)


def test_the_value_model_starts_in_the_units_of_what_is_optimised(world, tmp_path, make_backbone, monkeypatch):
    """The model counts -2 in a sum that is centred: its head is multiplied and moved likewise before the first rollout."""
    model = RewardModel.load(make_backbone(tmp_path / "rm"), device="cpu")
    reward = WeightedSum({"model": (model, -2.0), "letters": (Letters(), 0.5)})
    config = config_of(world, algorithm="ppo", value_from="reward", output=str(tmp_path / "run"), steps=1, center=16)
    heads: list[Tensor] = []

    def seen(value: Any, *args: Any) -> Any:
        heads.append(torch.cat([value.head.weight[0], value.head.bias]).detach().clone())
        return values(value, *args)

    moved: list[Any] = []

    def remembered(*args: Any, **options: Any) -> Any:
        moved.append(centred(*args, **options))
        return moved[-1]

    values, centred = loop._values, loop.centred
    monkeypatch.setattr(loop, "_values", seen)
    monkeypatch.setattr(loop, "centred", remembered)
    optimize(config, reward, say=quiet)
    plain, shift, scale = (
        from_reward(model, Policy.load(world / "base", device="cpu")).head,
        moved[0].shift,
        moved[0].scale,
    )
    assert scale != 1.0
    expected = torch.cat([plain.weight[0] * -2.0 / scale, torch.tensor([-shift / scale])])
    assert torch.allclose(heads[0], expected, atol=1e-6)


def test_drift_is_measured_against_the_reward_models_training_answers(world, tmp_path, make_backbone):
    reward = RewardModel.load(make_backbone(tmp_path / "rm"), device="cpu")
    answers = [({"role": "assistant", "content": f"the quick brown fox {i}"},) for i in range(40)]
    rows = [Comparison(tuple(chat("hello world")), (answers[i], answers[i + 1]), (1, 2), id=str(i)) for i in range(39)]
    write_jsonl(tmp_path / "data.jsonl", rows)
    config = config_of(world, algorithm="rloo", output=str(tmp_path / "run"), steps=1)
    optimize(replace(config, drift_data=(str(tmp_path / "data.jsonl"),)), reward, say=quiet)
    assert rows_of(config.output)[0]["drift"] > 3  # bytes drawn at random are far from that
    with pytest.raises(ConfigError, match="--drift-data needs one local reward model in --reward, found 0"):
        optimize(replace(config, drift_data=("x",), output=str(tmp_path / "other")), Letters(), say=quiet)


@pytest.mark.parametrize("kl_in", ["reward", "loss"])
def test_value_warmup_leaves_the_policy_alone(world, tmp_path, kl_in):
    """Nor does KL in the loss: on the first pass its gradient is the noise of the estimator, on the second it is more."""
    warm: dict[str, Any] = {"steps": 2, "value_warmup": 2, "kl_in": kl_in, "kl_estimator": "k1", "beta": 1.0}
    config = config_of(world, algorithm="ppo", output=str(tmp_path), **warm)
    optimize(config, Letters(), say=quiet)
    start = AutoModelForCausalLM.from_pretrained(world / "base").state_dict()
    assert all(torch.equal(value, start[name]) for name, value in weights(tmp_path).items())
    assert rows_of(tmp_path)[0]["value_loss"] != rows_of(tmp_path)[1]["value_loss"]


def test_lora_trains_the_adapter_and_leaves_a_plain_model(world, tmp_path):
    config = config_of(world, algorithm="rloo", output=str(tmp_path), steps=3, lora_rank=4)
    optimize(config, Letters(), say=quiet)
    start = AutoModelForCausalLM.from_pretrained(world / "base").state_dict()
    found = weights(tmp_path)
    assert torch.equal(found["model.embed_tokens.weight"], start["model.embed_tokens.weight"])
    assert not torch.equal(
        found["model.layers.0.self_attn.q_proj.weight"], start["model.layers.0.self_attn.q_proj.weight"]
    )
    rows = rows_of(tmp_path)
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert abs(rows[2]["kl"]) > 1e-4


def test_every_row_of_the_run_folder_says_what_was_measured(world, tmp_path):
    config = config_of(world, algorithm="grpo", output=str(tmp_path), steps=3, sample_every=2, beta=0.1, kl_in="loss")
    result = optimize(config, Letters(fails), Letters(scale=2.0), say=quiet)
    rows, samples = rows_of(tmp_path), rows_of(tmp_path, "samples.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {row["step"] for row in samples} == {2, 3}
    for row in rows[1:]:
        mine = [sample for sample in samples if sample["step"] == row["step"]]
        known = [sample["reward"] for sample in mine if sample["reward"] is not None]
        assert len(mine) == 12
        assert row["masked"] == sum(sample["reward"] is None for sample in mine)
        assert all((sample["reward"] is None) == (sample["status"] == "error") for sample in mine)
        assert row["proxy"] == pytest.approx(sum(known) / len(known))
        assert row["kl"] == pytest.approx(sum(sample["kl"] for sample in mine) / 12)
        assert row["kl_per_token"] == pytest.approx(sum(s["kl"] for s in mine) / sum(s["tokens"] for s in mine))
        assert row["length"] == pytest.approx(sum(sample["tokens"] for sample in mine) / 12)
        held = [sample["held_out"] for sample in mine if sample["held_out"] is not None]
        assert row["held_out_n"] == len(held) == 6
        assert row["held_out"] == pytest.approx(sum(held) / 6)
        assert all(
            s["held_out"] == pytest.approx(2 * letters(s["completion"])) for s in mine if s["held_out"] is not None
        )
        assert row["rollout_s"] + row["score_s"] + row["update_s"] == pytest.approx(row["seconds"], abs=0.01)
    assert result.policy == tmp_path / "policy"
    assert {p.name for p in tmp_path.iterdir()} >= {
        "config.yaml",
        "metrics.jsonl",
        "samples.jsonl",
        "policy",
        "run.json",
        "monitor.json",
    }
    assert not (tmp_path / "checkpoints").exists()


def test_beta_follows_its_target(world, tmp_path):
    config = config_of(world, algorithm="rloo", output=str(tmp_path), steps=3, beta=0.1, kl_target=1000.0)
    optimize(config, Letters(), say=quiet)
    assert [row["beta"] for row in rows_of(tmp_path)] == pytest.approx([0.1, 0.1 * 0.98, 0.1 * 0.98**2])


def test_centring_and_penalty_come_before_the_baseline(world, tmp_path, drawn):
    config = config_of(
        world, algorithm="rloo", output=str(tmp_path), steps=1, center=16, missing_eos_penalty=3.0, reward_clip=1.0
    )
    optimize(config, Letters(), say=quiet)
    seen = [letters(group[0].text) for group in drawn[0]]
    assert len(seen) == 16
    mean = sum(seen) / 16
    deviation = math.sqrt(sum((x - mean) ** 2 for x in seen) / 16)
    shaped = [
        max(-1.0, min(1.0, (letters(s.text) - mean) / deviation)) - 3.0 * (not s.finished) for g in drawn[1] for s in g
    ]
    (row,) = rows_of(tmp_path)
    assert row["objective"] == pytest.approx(sum(shaped) / len(shaped), abs=1e-3)
    assert row["proxy"] == pytest.approx(sum(letters(s.text) for g in drawn[1] for s in g) / 12)  # the raw reward


# what has no reward


def test_a_masked_reward_is_not_a_zero(world, tmp_path):
    class Zero(Letters):
        def _one(self, text: str) -> Any:
            return Letters()._one("" if fails(0, text) else text)

    config = config_of(world, algorithm="grpo", steps=2)
    optimize(replace(config, output=str(tmp_path / "masked")), Letters(fails), say=quiet)
    optimize(replace(config, output=str(tmp_path / "zero")), Zero(), say=quiet)
    with pytest.raises(AssertionError):
        assert_same_policy(tmp_path / "masked", tmp_path / "zero")


def test_reward_failures_stop_ends_the_run_before_the_update(world, tmp_path):
    config = config_of(world, algorithm="grpo", output=str(tmp_path), reward_failures="stop")
    broken = Letters(lambda call, text: call == 3 and fails(call, text))
    with pytest.raises(TrainingError, match=r"step 3: \d+ of 12 completions have no reward \(broken on purpose\)"):
        optimize(config, broken, say=quiet)
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2]
    optimize(replace(config, resume=True), Letters(), say=quiet)
    whole = replace(config, output=str(tmp_path / "whole"))
    optimize(whole, Letters(), say=quiet)
    assert untimed(tmp_path) == untimed(whole.output)


def test_three_blind_steps_end_the_run_and_it_can_go_on(world, tmp_path):
    config = config_of(world, algorithm="ppo", output=str(tmp_path / "run"), steps=6, save_every=2)
    with pytest.raises(
        TrainingError, match=r"step 5: no completion could be scored in 3 steps \(broken on purpose\).*--resume"
    ):
        optimize(config, Letters(lambda call, text: call >= 3), say=quiet)
    rows = rows_of(config.output)
    assert [row["masked"] for row in rows] == [0, 0, 12, 12, 12]
    assert [row["proxy"] is None for row in rows] == [False, False, True, True, True]
    assert rows[4]["loss"] is None
    optimize(replace(config, resume=True), Letters(), say=quiet)
    assert [row["step"] for row in rows_of(config.output)] == [1, 2, 3, 4, 5, 6]
    assert len(weights(config.output)) > 0


def test_a_blind_step_changes_no_weight(world, tmp_path):
    config = config_of(world, algorithm="rloo", steps=2)
    optimize(replace(config, output=str(tmp_path / "blind")), Letters(lambda call, text: call == 2), say=quiet)
    optimize(replace(config, output=str(tmp_path / "one"), steps=1), Letters(), say=quiet)
    assert_same_policy(tmp_path / "blind", tmp_path / "one")


def test_a_minibatch_without_a_reward_changes_no_weight(world, tmp_path):
    """One prompt in four is scored: three minibatches of four are empty, and momentum alone must not move the policy."""

    class First(Letters):
        def score(self, conversations: Any) -> Any:
            scores, broken = super().score(conversations), Letters(lambda call, text: True).score(conversations)
            return scores[:3] + broken[3:]

    config = config_of(world, algorithm="rloo", steps=2)
    optimize(replace(config, output=str(tmp_path / "four"), minibatches=4), First(), say=quiet)
    optimize(replace(config, output=str(tmp_path / "one"), minibatches=1), First(), say=quiet)
    assert_same_policy(tmp_path / "four", tmp_path / "one")


def test_a_reward_that_raises_ends_the_run_and_it_can_go_on(world, tmp_path):
    class Raises(Letters):
        def score(self, conversations: Any) -> Any:
            if self.calls == 2:
                raise ScoringError("the server is gone")
            return super().score(conversations)

    config = config_of(world, algorithm="rloo", output=str(tmp_path / "run"))
    stopped: list[int] = []

    class Follow(Watch):
        def stop(self) -> None:
            stopped.append(1)

    with pytest.raises(ScoringError, match="the server is gone"):
        optimize(config, Raises(), say=quiet, watch=Follow())
    assert stopped == [1]
    optimize(replace(config, resume=True), Letters(), say=quiet)
    optimize(replace(config, output=str(tmp_path / "whole")), Letters(), say=quiet)
    assert_same_policy(tmp_path / "run", tmp_path / "whole")


def test_a_reward_that_returns_too_few_scores_is_an_error(world, tmp_path):
    class Short(Letters):
        def score(self, conversations: Any) -> Any:
            return super().score(conversations)[1:]

    with pytest.raises(TrainingError, match="the reward returned 11 scores for 12 completions"):
        optimize(config_of(world, algorithm="rloo", output=str(tmp_path)), Short(), say=quiet)


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_loss_that_is_not_finite_ends_the_run_with_the_weights_untouched(world, tmp_path, monkeypatch, algorithm):
    policies: list[Policy] = []
    before: list[dict[str, Tensor]] = []
    targets = loop.make_targets

    def poisoned(*args: Any, **options: Any) -> Any:
        made = targets(*args, **options)
        before.append({name: p.detach().clone() for name, p in policies[0].named_parameters()})
        return replace(made, advantages=made.advantages * torch.inf)

    load = Policy.load

    def remembered(*args: Any, **options: Any) -> Policy:
        policies.append(load(*args, **options))
        return policies[-1]

    monkeypatch.setattr(loop, "make_targets", poisoned)
    monkeypatch.setattr(loop.Policy, "load", remembered)
    with pytest.raises(TrainingError, match=r"step 1: the loss or its gradient is not finite.*--resume") as caught:
        optimize(config_of(world, algorithm=algorithm, output=str(tmp_path)), Letters(), say=quiet)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p, before[0][name]) for name, p in policies[0].named_parameters())
    assert not (tmp_path / "run.json").exists()


# the monitor


class Stops(Monitor):
    """Says stop at step 4 and that step 2 was best."""

    def observe(self, observation: Observation) -> Verdict:
        found = super().observe(observation)
        if observation.step < 4:
            return replace(found, status="ok", best_step=min(observation.step, 2))
        return replace(found, status="stop", reason="scripted", best_step=2, stopped_at=4)


@pytest.mark.parametrize(("what", "steps", "saved"), [("warn", 6, 6), ("stop", 4, 4), ("rollback", 4, 2)])
def test_what_happens_when_the_monitor_says_stop(world, tmp_path, monkeypatch, what, steps, saved):
    config = config_of(world, algorithm="grpo", steps=6, held_out=("unused",), on_overopt=what)
    optimize(
        replace(config, output=str(tmp_path / "short"), steps=saved, on_overopt="warn"), Letters(), Letters(), say=quiet
    )
    monkeypatch.setattr(loop, "Monitor", Stops)
    said: list[str] = []
    result = optimize(replace(config, output=str(tmp_path / "run")), Letters(), Letters(), say=said.append)
    assert (result.steps, result.saved_step) == (steps, saved)
    assert len(rows_of(tmp_path / "run")) == steps
    assert_same_policy(tmp_path / "run", tmp_path / "short")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["steps"], record["saved_step"], record["verdict"]["status"]) == (steps, saved, "stop")
    assert any(line.startswith("monitor: stop since step 4: scripted") for line in said)
    assert any("rolled back to the policy after step 2" in line for line in said) == (what == "rollback")


def test_rolling_back_takes_the_nearest_snapshot(world, tmp_path, monkeypatch):
    """Snapshots every third step: of 0 and 3, step 2 is nearer to 3; with LoRA, the adapter goes back."""
    monkeypatch.setattr(loop, "Monitor", Stops)
    config = config_of(
        world, algorithm="grpo", steps=6, held_out=("x",), on_overopt="rollback", save_every=3, lora_rank=4
    )
    result = optimize(replace(config, output=str(tmp_path / "run")), Letters(), Letters(), say=quiet)
    assert result.saved_step == 3
    monkeypatch.undo()
    optimize(replace(config, output=str(tmp_path / "short"), steps=3), Letters(), Letters(), say=quiet)
    assert_same_policy(tmp_path / "run", tmp_path / "short")


def test_two_snapshots_before_the_best_are_kept(tmp_path):
    policy: Any = SimpleNamespace(net=torch.nn.Linear(1, 1))
    folder = RunFolder(tmp_path, cast(Any, SimpleNamespace(is_main_process=True)))
    (tmp_path / "snapshots").mkdir()
    for step in (0, 2, 4, 6, 8):
        folder.snapshot(policy, step, None)
    folder.snapshot(policy, 10, 7)  # of 6 and 8 the earlier is nearest
    assert [folder.nearest(step) for step in (0, 2, 4, 6, 10)] == [2, 2, 4, 6, 10]


def test_the_monitor_is_told_the_entropy(world, tmp_path, monkeypatch):
    seen: list[Observation] = []

    class Listens(Monitor):
        def observe(self, observation: Observation) -> Verdict:
            seen.append(observation)
            return super().observe(observation)

    monkeypatch.setattr(loop, "Monitor", Listens)
    config = config_of(world, algorithm="rloo", output=str(tmp_path), steps=3)
    optimize(config, Letters(lambda call, text: call == 2), say=quiet)
    found = [row["entropy"] for row in rows_of(tmp_path)]
    assert [one.signals["entropy"] for one in seen] == found
    assert [value is None for value in found] == [False, True, False]  # a blind step has no update


def test_a_held_out_reward_that_falls_while_the_proxy_rises_stops_the_run(world, tmp_path):
    """No script but the rewards: held-out is the proxy turned over. The monitor itself has to see it."""

    class Against(Letters):
        def _one(self, text: str) -> Any:
            return Letters(scale=-1.0)._one(text)

    config = config_of(
        world, algorithm="rloo", output=str(tmp_path), steps=60, prompts_per_step=8, samples_per_prompt=4, beta=0.0,
        held_out=("x",), held_out_budget=32, on_overopt="rollback", save_every=5,
    )  # fmt: skip
    result = optimize(config, Letters(), Against(), say=quiet)
    assert result.steps < 60
    assert result.verdict is not None
    assert result.verdict.status == "stop"
    assert result.saved_step < result.steps
    rows = rows_of(tmp_path)
    assert rows[-1]["proxy"] > rows[0]["proxy"]
    assert [row["status"] for row in rows].count("stop") == 1


class Dead(Letters):
    """A held-out reward that raises, from a call on."""

    def __init__(self, first: int = 1) -> None:
        super().__init__()
        self.first = first

    def score(self, conversations: Any) -> Any:
        found = super().score(conversations)
        if self.calls >= self.first:
            raise ScoringError("the judge is gone")
        return found


def test_a_held_out_reward_that_raises_leaves_the_run_alone(world, tmp_path):
    """What is only watched may fail. It is said once, and what the monitor does not see is no verdict of ok."""
    config = config_of(world, algorithm="grpo", steps=5)
    said: list[str] = []
    optimize(replace(config, output=str(tmp_path / "watched")), Letters(), Dead(), say=said.append)
    optimize(replace(config, output=str(tmp_path / "alone")), Letters(), say=quiet)
    assert_same_policy(tmp_path / "watched", tmp_path / "alone")
    assert [line for line in said if "the judge is gone" in line] == [
        "step 1 has no held-out scores, which is said this once: the judge is gone"
    ]
    watched, alone = rows_of(tmp_path / "watched"), rows_of(tmp_path / "alone")
    assert [(row["held_out_asked"], row["held_out_n"], row["held_out"]) for row in watched] == [(6, 0, None)] * 5
    assert {row["status"] for row in watched} == {"warn"}
    assert watched[-1]["reason"].startswith("No held-out score came in 5 steps")
    assert {(row["held_out_asked"], row["status"]) for row in alone} == {(0, "ok")}
    assert alone[-1]["reason"].startswith("There are no held-out scores")


def test_a_run_that_must_stop_in_time_does_not_go_on_blind(world, tmp_path):
    config = config_of(world, algorithm="grpo", output=str(tmp_path), steps=6, held_out=("x",), on_overopt="stop")
    with pytest.raises(
        TrainingError, match=r"step 5: no held-out score came in 3 steps, so --on-overopt stop .*--resume"
    ):
        optimize(config, Letters(), Dead(first=3), say=quiet)
    assert [row["held_out_n"] for row in rows_of(tmp_path)] == [6, 6, 0, 0, 0]
    assert [row["status"] for row in rows_of(tmp_path)] == ["ok", "ok", "warn", "warn", "warn"]
    optimize(replace(config, resume=True), Letters(), Letters(), say=quiet)
    assert [row["held_out_n"] for row in rows_of(tmp_path)] == [6, 6, 0, 0, 6, 6]


@pytest.mark.parametrize("budget", [6, 7])
def test_held_out_sees_whole_prompts(world, tmp_path, budget):
    """Four prompts of three answers: two whole prompts for six, and one answer of a third for seven."""
    config = config_of(world, algorithm="rloo", output=str(tmp_path), steps=3, held_out_budget=budget)
    optimize(config, Letters(), Letters(), say=quiet)
    chosen = set()
    for step in (1, 2, 3):
        rows = [
            row for row in rows_of(tmp_path, "samples.jsonl") if row["step"] == step and row["held_out"] is not None
        ]
        counts = Counter(row["group"] for row in rows)
        assert sorted(counts.values()) == ([3, 3] if budget == 6 else [1, 3, 3])
        chosen |= {tuple(sorted(counts))}
    assert len(chosen) > 1  # at random


def test_the_mean_of_late_reads_the_answers_that_held_out_has_seen(world):
    policy = Policy.load(world / "base", device="cpu")
    drawn = loop.generate(
        policy, policy.encode(load_prompts([str(world / "prompts.jsonl")]))[:2], 2, Sampling(4), torch.Generator()
    )
    rollout, seen = Rollout.build([(), ()], drawn), []

    class Taken:
        @contextmanager
        def taken(self) -> Any:
            yield self

        def logprobs(self, groups: Any, *_: Any) -> Any:
            seen.extend(sample for group in groups for sample in group.samples)
            return policy.logprobs(groups, 64)

    late = loop._late(Taken(), rollout, {1: 0.5, 3: math.nan}, 64, 1.0)
    assert seen == [1, 3]
    record = StepRecord.of(
        rollout, [Score(0.0)] * 4, torch.zeros(4), rollout.behaviour, late, {1: 0.5, 3: math.nan}, math.nan
    )
    assert [math.isnan(value) for value in record.course] == [True, False, True, False]
    assert record.course[1] == pytest.approx(0, abs=1e-4)
    assert (record.observation(1).asked, len(record.observation(1).held_out)) == (2, 1)


def test_an_error_of_one_process_ends_the_others(monkeypatch):
    """Two processes, of which the other one fails; and one that fails itself, after it has told the other."""
    told: list[list[str]] = []

    def gathered(said: list[str]) -> list[str]:
        told.append(said)
        return [*said, "the server is gone"]

    monkeypatch.setattr("guerdon.optimize.scoring.gather_object", gathered)
    two: Any = SimpleNamespace(num_processes=2)
    with pytest.raises(TrainingError, match="another process ended the run: the server is gone"), shared_errors(two):
        pass
    with pytest.raises(ScoringError, match="no reward"), shared_errors(two):
        raise ScoringError("no reward")
    assert told == [[""], ["no reward"]]


# what a user can get wrong


def test_a_held_out_reward_that_is_the_reward_is_said(world, tmp_path):
    said: list[str] = []
    config = config_of(world, algorithm="rloo", output=str(tmp_path), steps=1, held_out=("unused",))
    optimize(config, Letters(), Letters(), say=said.append)
    assert any(line.startswith("warning: --held-out is the same as --reward") for line in said)


def test_a_folder_that_holds_a_run_is_not_overwritten(world, tmp_path):
    config = config_of(world, algorithm="rloo", output=str(tmp_path), steps=1)
    optimize(config, Letters(), say=quiet)
    with pytest.raises(ConfigError, match="already holds a run; go on with --resume"):
        optimize(config, Letters(), say=quiet)
    said: list[str] = []
    assert optimize(replace(config, resume=True), Letters(), say=said.append).steps == 1
    assert "complete" in said[0]


def test_a_folder_that_cannot_be_written_is_found_before_any_work(world, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        optimize(config_of(world, algorithm="rloo", output=str(tmp_path / "file" / "run")), Letters(), say=quiet)


def test_too_few_prompts_are_refused(world, tmp_path):
    with pytest.raises(ConfigError, match="10 usable prompts are fewer than --prompts-per-step 11"):
        optimize(config_of(world, algorithm="rloo", output=str(tmp_path), prompts_per_step=11), Letters(), say=quiet)


def test_long_prompts_are_left_out_and_counted(world, tmp_path):
    said: list[str] = []
    config = config_of(world, algorithm="rloo", output=str(tmp_path), steps=1, prompts_per_step=1)
    policy = Policy.load(world / "base", device="cpu")
    lengths = sorted(map(len, policy.encode(load_prompts(config.prompts))))
    longest = lengths[6]
    optimize(replace(config, max_length=longest), Letters(), say=said.append)
    left_out = sum(n > longest for n in lengths)
    assert left_out > 0
    assert f"{10 - left_out} prompts, {left_out} longer than {longest} tokens left out" in said


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_prompts_that_leave_no_room_for_an_answer_are_left_out(world, tmp_path, make_tokenizer, family):
    """Past its context GPT-2 has no position and Qwen3 was never trained."""
    prompts = load_prompts([str(world / "prompts.jsonl")])
    lengths = sorted(map(len, Policy.load(world / "base", device="cpu").encode(prompts)))
    room = lengths[4]
    base = tiny_policy(tmp_path / "base", make_tokenizer, family, max_position_embeddings=room + 12)
    config = config_of(world, algorithm="rloo", policy=str(base), steps=1, prompts_per_step=1, max_new_tokens=12)
    said: list[str] = []
    optimize(replace(config, output=str(tmp_path / "run")), Letters(), say=said.append)
    why = f"{room} tokens (the policy's context of {room + 12} less --max-new-tokens)"
    fit = sum(length <= room for length in lengths)
    assert f"{fit} prompts, {10 - fit} longer than {why} left out" in said
    with pytest.raises(ConfigError, match="0 usable prompts"):
        optimize(replace(config, output=str(tmp_path / "none"), max_new_tokens=room + 12), Letters(), say=quiet)
    with pytest.raises(
        DataError, match=f"a prompt of {room + 1} tokens and 12 of an answer are more than the policy's"
    ):
        loop.generate(Policy.load(base, device="cpu"), [(5,) * (room + 1)], 1, config.sampling, torch.Generator())


def test_every_prompt_is_asked_once_before_any_is_asked_again(world):
    config = config_of(world, prompts_per_step=4)
    picked = [i for step in range(1, 6) for i in picked_prompts(config, step, 10)]
    assert sorted(picked[:10]) == sorted(picked[10:]) == list(range(10))
    assert picked[:10] != picked[10:]


def test_padded_and_tree_rows_give_the_same_run(world, tmp_path, monkeypatch):
    config = config_of(world, algorithm="ppo", steps=2)
    optimize(replace(config, output=str(tmp_path / "tree")), Letters(), say=quiet)
    monkeypatch.setattr(Policy, "_agrees_with_plain", lambda self: False)
    optimize(replace(config, output=str(tmp_path / "padded")), Letters(), say=quiet)
    for a, b in zip(rows_of(tmp_path / "tree"), rows_of(tmp_path / "padded"), strict=True):
        for name in ("proxy", "kl", "loss", "grad_norm", "entropy"):
            assert a[name] == pytest.approx(b[name], abs=1e-3)
