"""Rejection sampling: what is kept, the matched control, and that the report tells a real reward from noise."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_policy import tiny_policy
from transformers import AutoModelForCausalLM

from guerdon.optimize.arms import difference, judge
from guerdon.optimize.generate import Sampling
from guerdon.optimize.policy import Policy
from guerdon.optimize.rejection import choose_at_random, choose_by_reward, reject
from guerdon.optimize.rejection_config import RejectionConfig
from guerdon.types import ConfigError, Conversation, Score, TrainingError

SCORES = [[1.0, 3.0, None], [2.0, 0.5, 2.5], [None, None, None], [-1.0, -2.0, None]]


class Vowels:
    """Share of the letters that are vowels; or, with `noise`, a number that depends on the text and means nothing."""

    def __init__(self, noise: bool = False) -> None:
        self.noise, self.calls = noise, 0

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        self.calls += 1
        texts = [conversation[-1]["content"] for conversation in conversations]
        if self.noise:
            return [Score(random.Random(text).random()) for text in texts]
        return [Score(sum(c in "aeiou" for c in text) / max(1, len(text))) for text in texts]


def write_prompts(path: Path, n: int = 40) -> str:
    path.write_text("".join(json.dumps({"prompt": f"hello {i}"}) + "\n" for i in range(n)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory, make_tokenizer) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("rejection") / "base", make_tokenizer)


def config_of(base: Path, tmp_path: Path, **changes: object) -> RejectionConfig:
    config = RejectionConfig(
        policy=str(base), prompts=(write_prompts(tmp_path / "p.jsonl"),), reward=("vowels",), output=str(tmp_path / "run"),
        samples=8, max_new_tokens=8, max_length=128, epochs=4, batch_size=8, learning_rate=1e-2, eval_fraction=0.5, eval_samples=8,
        keep_cut=True,
    )  # fmt: skip
    return replace(config, **changes)


def test_best_of_each_prompt_is_kept_and_what_has_no_reward_never():
    rng = random.Random(0)
    assert choose_by_reward(SCORES, None, None, rng) == [(0, 1), (1, 2), (3, 0)]
    assert choose_by_reward(SCORES, None, 2.6, rng) == [(0, 1)]
    assert choose_by_reward([[None]], None, None, rng) == []


def test_share_keeps_the_top_of_all_samples():
    rng = random.Random(0)
    assert choose_by_reward(SCORES, 3 / 7, None, rng) == [
        (0, 1),
        (1, 0),
        (1, 2),
    ]  # 3.0, 2.5 and 2.0 of seven with a reward
    assert choose_by_reward(SCORES, 1.0, 0.6, rng) == [(0, 0), (0, 1), (1, 0), (1, 2)]
    assert choose_by_reward(SCORES, 0.01, None, rng) == [(0, 1)]


def test_equal_rewards_are_kept_at_random():
    picked = {choose_by_reward([[1.0, 1.0, 1.0]], None, None, random.Random(seed))[0] for seed in range(40)}
    assert picked == {(0, 0), (0, 1), (0, 2)}


def test_control_is_matched_in_number_and_prompts_and_blind_to_the_reward():
    counts = np.zeros((4, 3))
    for seed in range(600):
        chosen = choose_at_random(SCORES, 3, None, None, random.Random(seed))
        assert [i for i, _ in chosen] == [0, 1, 3]  # the prompts of the best-of-each choice
        for pair in chosen:
            counts[pair] += 1
    assert counts[0, 2] == counts[2].sum() == 0
    assert counts[1] == pytest.approx([200, 200, 200], abs=50)
    assert len(choose_at_random(SCORES, 5, 0.6, None, random.Random(0))) == 5
    assert len(choose_at_random(SCORES, 2, None, None, random.Random(0))) == 2


def test_reward_does_work_that_random_choice_does_not(base, tmp_path):
    config = config_of(base, tmp_path)
    result = reject(config, Vowels(), Vowels(noise=True), say=lambda _: None)
    assert result.effect["reward"].low > 0
    assert result.gain["reward"].low > 0
    assert result.effect["held_out"].low < 0 < result.effect["held_out"].high  # nothing was learned about noise
    start, trained, control = result.rows
    assert trained["kept"] == control["kept"] == 20
    assert trained["kept_reward"] > control["kept_reward"]
    assert control["kept_reward"] == pytest.approx(control["sample_reward"], abs=0.06)
    assert start["kl"] == 0
    assert trained["kl"] > 0
    assert result.effect["reward"].prompts == 20
    run = Path(config.output)
    kept = [json.loads(line) for line in (run / "round-01" / "reward.jsonl").read_text().splitlines()]
    samples = [json.loads(line) for line in (run / "round-01" / "reward-samples.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in kept] == [max(group["scores"]) for group in samples]
    assert not (run / "round-01" / "control-samples.jsonl").exists()  # the same samples
    AutoModelForCausalLM.from_pretrained(run / "policy")
    AutoModelForCausalLM.from_pretrained(run / "control")


def test_noise_as_a_reward_has_no_effect(base, tmp_path):
    result = reject(config_of(base, tmp_path), Vowels(noise=True), Vowels(), say=lambda _: None)
    assert result.effect["reward"].low < 0 < result.effect["reward"].high
    assert result.effect["held_out"].low < 0 < result.effect["held_out"].high


def test_a_run_that_is_cut_short_goes_on_and_ends_the_same(base, tmp_path):
    config = config_of(base, tmp_path, rounds=2, epochs=1)
    whole = reject(config, Vowels(), say=lambda _: None)

    class Dies(Vowels):
        def score(self, conversations: Sequence[Conversation]) -> list[Score]:
            if self.calls == 4:  # start, round 1 samples, round 1 reward arm, round 1 control: dies in round 2
                raise KeyboardInterrupt
            return super().score(conversations)

    cut = replace(config, output=str(tmp_path / "cut"))
    with pytest.raises(KeyboardInterrupt):
        reject(cut, Dies(), say=lambda _: None)
    samples = tmp_path / "cut" / "round-01" / "reward-samples.jsonl"
    before = samples.stat().st_mtime_ns
    with pytest.raises(ConfigError, match="already holds a run"):
        reject(cut, Vowels(), say=lambda _: None)
    with pytest.raises(ConfigError, match="--samples"):
        reject(replace(cut, resume=True, samples=4), Vowels(), say=lambda _: None)
    (tmp_path / "cut" / "round-01" / "control" / "run.json").unlink()  # as if killed while it was fine-tuned
    moved = Path(shutil.move(tmp_path / "cut", tmp_path / "moved"))
    resumed = reject(replace(cut, resume=True, output=str(moved)), Vowels(), say=lambda _: None)
    assert resumed.rows == whole.rows
    assert (moved / "round-01" / "reward-samples.jsonl").stat().st_mtime_ns == before


def test_cut_answers_are_not_learnt_unless_asked_for(base, tmp_path):
    config = config_of(base, tmp_path, keep_cut=False, max_new_tokens=1)  # hardly any answer ends at the first token
    with pytest.raises(TrainingError, match="raise --max-new-tokens"):
        reject(config, Vowels(), say=lambda _: None)


def test_judging_the_start_against_itself_gives_no_kl_and_no_difference(base):
    policy, other = Policy.load(base, device="cpu"), Policy.load(base, device="cpu")
    prompts = [({"role": "user", "content": f"hello {i}"},) for i in range(5)]
    first, second = (judge(policy, other, prompts, 4, Sampling(6), Vowels(), None, 0) for _ in range(2))
    assert first.kl == pytest.approx(0, abs=1e-4)  # computed, not assumed: `other` is another copy
    found = difference(first, second, "reward")
    assert (found.mean, found.low, found.high, found.prompts) == (0, 0, 0, 5)
    assert difference(first, second, "held_out").mean is None
