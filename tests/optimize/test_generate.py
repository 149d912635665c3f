"""Sampling: greedy is transformers' own, drawn tokens have the probabilities of the model, and what is recorded is true."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from tiny_policy import tiny_policy

from guerdon.optimize.generate import Sampling, generate
from guerdon.optimize.layout import Group
from guerdon.optimize.policy import Policy
from guerdon.types import ConfigError

FAMILIES = ("qwen3", "llama", "gemma2", "gpt2", "mistral")


@pytest.fixture(scope="module")
def policies(tmp_path_factory, make_tokenizer) -> dict[str, Policy]:
    folder = tmp_path_factory.mktemp("policies")
    return {name: Policy.load(tiny_policy(folder / name, make_tokenizer, name), device="cpu") for name in FAMILIES}


def prompts() -> list[tuple[int, ...]]:
    g = torch.Generator().manual_seed(0)
    return [tuple(torch.randint(4, 300, (n,), generator=g).tolist()) for n in (9, 1, 14, 4, 4)]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rows", [128, 2])
def test_greedy_is_transformers_generate_token_by_token(policies, name, rows):
    """Also beyond a sliding window of 6 tokens, in one padded batch and in small ones."""
    policy = policies[name]
    found = generate(policy, prompts(), 1, Sampling(12, temperature=0, rows=rows), rng())
    for prompt, (sample,) in zip(prompts(), found, strict=True):
        whole = policy.net.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=12, eos_token_id=list(policy.end_ids),
            pad_token_id=policy.tokenizer.pad_token_id,
        )  # fmt: skip
        assert sample.ids == tuple(whole[0, len(prompt) :].tolist())
        assert sample.prompt == prompt


def fond_of_ending(policy: Policy, by: float) -> torch.utils.hooks.RemovableHandle:
    """Make the end token more probable, so that answers end at all lengths."""

    def bias(module: torch.nn.Module, args: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[..., policy.tokenizer.eos_token_id] += by
        return out

    return policy.net.get_output_embeddings().register_forward_hook(bias)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_log_probabilities_are_the_policys(policies, name, temperature):
    """Also of rows that outlived the others, after the cache was cut down."""
    policy = policies[name]
    handle = fond_of_ending(policy, 3.0)
    try:
        drawn = generate(policy, prompts(), 6, Sampling(16, temperature), rng(1))
        samples = [sample for group in drawn for sample in group]
        groups = [
            Group(group[0].prompt, tuple(s.ids for s in group), tuple(range(6 * i, 6 * i + 6)))
            for i, group in enumerate(drawn)
        ]
        found = policy.logprobs(groups, 512, temperature)
    finally:
        handle.remove()
    assert len({len(s.ids) for s in samples}) > 4
    for i, sample in enumerate(samples):
        assert (found[i] - torch.tensor(sample.logprobs)).abs().max() < 1e-4


def test_an_answer_ends_with_its_end_token_and_there_alone(policies):
    policy = policies["qwen3"]
    handle = fond_of_ending(policy, 3.0)
    try:
        samples = [s for group in generate(policy, prompts(), 20, Sampling(8), rng(2)) for s in group]
    finally:
        handle.remove()
    end = policy.tokenizer.eos_token_id
    assert {s.finished for s in samples} == {True, False}
    for sample in samples:
        assert sample.finished == (sample.ids[-1] == end)
        assert end not in sample.ids[:-1]
        assert len(sample.ids) == len(sample.logprobs)
        assert sample.finished or len(sample.ids) == 8
        assert policy.tokenizer.eos_token not in sample.text


def test_an_end_in_the_last_place_counts_as_an_end(policies):
    policy = policies["qwen3"]
    handle = fond_of_ending(policy, 1e4)
    try:
        (sample,) = generate(policy, prompts()[:1], 1, Sampling(1), rng())[0]
    finally:
        handle.remove()
    assert sample.finished
    assert (sample.ids, sample.text) == ((policy.tokenizer.eos_token_id,), "")


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.7)])
def test_first_tokens_come_as_often_as_the_softmax_says(policies, temperature, top_p):
    policy, prompt, n = policies["qwen3"], prompts()[0], 6000
    drawn = generate(policy, [prompt], n, Sampling(1, temperature, top_p, rows=n), rng(3))[0]
    with torch.no_grad():
        logits = policy.net(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    share = (logits / temperature).softmax(-1)
    order = share.argsort(descending=True)
    kept = order[: int((share[order].cumsum(0) < top_p).sum()) + 1] if top_p < 1 else order
    expected = torch.zeros_like(share)
    expected[kept] = share[kept] / share[kept].sum()
    seen = torch.bincount(torch.tensor([s.ids[0] for s in drawn]), minlength=len(share)).double()
    assert not seen[expected == 0].any()
    frequent = expected * n >= 10
    rest = [float(seen[~frequent].sum()), float(expected[~frequent].sum() * n)]
    counts, hoped = [*seen[frequent].tolist(), rest[0]], [*(expected[frequent] * n).tolist(), rest[1]]
    if hoped[-1] < 1:
        counts, hoped = counts[:-1], hoped[:-1]
    total = sum(hoped)
    assert chisquare(counts, [h * sum(counts) / total for h in hoped]).pvalue > 1e-3
    assert len(counts) > 20
    first = drawn[0]
    assert first.logprobs[0] == pytest.approx(float(share[first.ids[0]].log()), abs=1e-4)  # before top_p cuts


def test_same_generator_same_answers_in_the_order_of_the_prompts(policies):
    policy = policies["qwen3"]
    one, two = (generate(policy, prompts(), 3, Sampling(6, rows=4), rng(5)) for _ in range(2))
    assert one == two
    assert one != generate(policy, prompts(), 3, Sampling(6, rows=4), rng(6))
    assert [group[0].prompt for group in one] == prompts()
    assert all(len({s.ids for s in group}) > 1 for group in one)


def test_progress_is_told_of_every_answer(policies):
    told: list[int] = []
    generate(policies["qwen3"], prompts(), 3, Sampling(2, rows=4), rng(), told.append)
    assert sum(told) == 15


def test_options_out_of_range_are_refused():
    for bad in ({"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"rows": 0}):
        with pytest.raises(ConfigError):
            Sampling(**bad)
