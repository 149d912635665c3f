"""The policy's mean of late: which weights it holds, that the policy is itself again afterwards, and what the run records."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policy_runs import Letters, config_of, quiet, rows_of
from tiny_policy import make_world
from torch import Tensor

from guerdon.optimize import loop
from guerdon.optimize.course import Course
from guerdon.optimize.loop import optimize
from guerdon.optimize.policy import Policy


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_tokenizer) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), make_tokenizer)


def trained(policy: Policy) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.net.named_parameters() if p.requires_grad}


def shift(policy: Policy, by: float) -> None:
    with torch.no_grad():
        for parameter in policy.net.parameters():
            if parameter.requires_grad:
                parameter.add_(by)


@pytest.mark.parametrize("rank", [None, 2], ids=["whole", "lora"])
def test_the_mean_moves_an_eighth_of_the_way(world, rank):
    policy = Policy.load(world / "base", lora_rank=rank)
    start, course = trained(policy), Course(policy)
    for _ in range(2):  # the policy is 1 and then 2 ahead of the start: mean 1/8, then 1/8 + (2 - 1/8) / 8 = 23/64
        shift(policy, 1.0)
        course.follow()
    now = trained(policy)
    with course.taken() as late:
        found = trained(late)
    for name, weight in start.items():
        torch.testing.assert_close(found[name], weight + 23 / 64, rtol=1e-5, atol=1e-5)
        assert torch.equal(trained(policy)[name], now[name])


def test_the_policy_is_itself_again_after_an_error(world):
    policy = Policy.load(world / "base")
    course = Course(policy)
    shift(policy, 1.0)
    now = trained(policy)
    with pytest.raises(ValueError, match="within"), course.taken():
        raise ValueError("within")
    assert all(torch.equal(value, now[name]) for name, value in trained(policy).items())


def test_a_restored_course_goes_on(world):
    policy = Policy.load(world / "base")
    course = Course(policy)
    shift(policy, 1.0)
    course.follow()
    other = Course(policy)
    other.load_state_dict(course.state_dict())
    with other.taken() as late:
        found = trained(late)
    with course.taken() as late:
        assert all(torch.equal(value, found[name]) for name, value in trained(late).items())


def test_a_run_records_the_log_ratio_to_its_mean_of_late(world, tmp_path, monkeypatch):
    """Step 2 by hand: the mean is an eighth of the way from the start to the policy after step 1, whose weights a second run
    of one step saves."""
    drawn = []

    def recorded(*args, **options):
        drawn.append(generate(*args, **options))
        return drawn[-1]

    generate = loop.generate
    monkeypatch.setattr(loop, "generate", recorded)
    config = {"algorithm": "rloo", "held_out_budget": 12}
    optimize(
        config_of(world, output=str(tmp_path / "two"), steps=2, **config), Letters(), Letters(scale=2.0), say=quiet
    )
    samples = [sample for group in drawn[1] for sample in group]
    optimize(
        config_of(world, output=str(tmp_path / "one"), steps=1, **config), Letters(), Letters(scale=2.0), say=quiet
    )
    now, late = Policy.load(tmp_path / "one" / "policy"), Policy.load(world / "base")
    with torch.no_grad():
        for mean, weight in zip(late.net.parameters(), now.net.parameters(), strict=True):
            mean.lerp_(weight, 1 / 8)

        def logprob(policy, sample):
            ids = torch.tensor([sample.prompt + sample.ids])
            logits = policy.net(input_ids=ids).logits[0, len(sample.prompt) - 1 : -1].log_softmax(-1)
            return float(logits[torch.arange(len(sample.ids)), ids[0, len(sample.prompt) :]].sum())

        expected = [logprob(now, sample) - logprob(late, sample) for sample in samples]
    first, second = rows_of(tmp_path / "two", "held_out.jsonl")
    assert first["course"] == pytest.approx([0.0] * 12, abs=1e-5)
    assert second["course"] == pytest.approx(expected, abs=1e-4)
    assert max(map(abs, expected)) > 1e-2


def test_without_held_out_scores_there_is_no_course(world, tmp_path):
    optimize(config_of(world, algorithm="rloo", output=str(tmp_path), steps=1), Letters(), say=quiet)
    assert rows_of(tmp_path, "held_out.jsonl")[0]["course"] == []
