"""Log-probabilities and gradients on prompt trees equal those of each answer alone; LoRA, references, saving."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_models import chat
from tiny_policy import tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from guerdon.model.tree import TreeRow
from guerdon.optimize.generate import Sampling, generate
from guerdon.optimize.layout import Group, token_rows
from guerdon.optimize.policy import Policy, by_sample
from guerdon.types import ConfigError, DataError

FAMILIES = ("qwen3", "llama", "gemma2", "gpt2", "mistral")


@pytest.fixture(scope="module")
def policies(tmp_path_factory, make_tokenizer) -> dict[str, Policy]:
    folder = tmp_path_factory.mktemp("policies")
    return {name: Policy.load(tiny_policy(folder / name, make_tokenizer, name), device="cpu") for name in FAMILIES}


def groups() -> list[Group]:
    """Duplicates, completions that are prefixes of others, of one token, and of more tokens than a sliding window of 6."""
    g = torch.Generator().manual_seed(0)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, 300, (n,), generator=g).tolist())

    a, b = draw(11), draw(8)
    return [
        Group(draw(5), (a, a, a[:4], (*a[:4], 9, 9), b, a[:1]), (0, 1, 2, 3, 4, 5)),
        Group(draw(12), (draw(3),), (6,)),
        Group(draw(1), (draw(1), draw(1), draw(14)), (7, 8, 9)),
    ]


def alone(policy: Policy, prompt: tuple[int, ...], completion: tuple[int, ...]) -> torch.Tensor:
    """Log-probability of each completion token, by one plain forward pass."""
    ids = torch.tensor([prompt + completion])
    logprobs = policy.net(input_ids=ids).logits[0].log_softmax(-1)
    return logprobs[torch.arange(len(prompt) - 1, ids.shape[1] - 1), ids[0, len(prompt) :]]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("budget", [4096, 24, 8], ids=["one row", "cut", "every answer apart"])
def test_log_probabilities_of_trees_are_those_of_single_answers(policies, name, budget):
    policy = policies[name]
    assert policy.shares_prefix, "the probe at load refused the tree"
    rows = policy.rows(groups(), budget)
    assert all(isinstance(row.row, TreeRow) for row in rows)
    assert (len(rows) == 1) == (budget == 4096)
    found = policy.logprobs(groups(), budget)
    assert found.keys() == set(range(10))
    with torch.no_grad():
        for group in groups():
            for completion, sample in zip(group.completions, group.samples, strict=True):
                expected = alone(policy, group.prompt, completion)
                assert (found[sample] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_padded_rows_say_the_same(policies, name):
    policy = policies[name]
    found = {}
    with torch.no_grad():
        for row in token_rows(groups(), 40, shares_prefix=False, pad_id=policy.tokenizer.pad_token_id):
            found.update(by_sample(row, policy(row).logprob))
    tree = policy.logprobs(groups(), 4096)
    assert all((found[k] - tree[k]).abs().max() < 1e-5 for k in range(10))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_is_transformers_own_loss(policies, name):
    policy, (group, *_) = policies[name], groups()
    for completion, sample in zip(group.completions, group.samples, strict=True):
        ids = torch.tensor([group.prompt + completion])
        labels = ids.clone()
        labels[0, : len(group.prompt)] = -100
        with torch.no_grad():
            loss = float(policy.net(input_ids=ids, labels=labels).loss)
        assert float(-policy.logprobs([group], 4096)[sample].mean()) == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("budget", [4096, 24])
def test_gradients_of_trees_are_those_of_single_answers(policies, name, budget):
    policy = policies[name]
    weights = {sample: (-1) ** sample * (1 + sample) for sample in range(10)}
    policy.zero_grad()
    for row in policy.rows(groups(), budget):
        values = by_sample(row, policy(row).logprob)
        sum(weights[sample] * value.sum() for sample, value in values.items()).backward()
    found = torch.cat([p.grad.flatten() for p in policy.parameters()]).clone()
    policy.zero_grad()
    for group in groups():
        for completion, sample in zip(group.completions, group.samples, strict=True):
            (weights[sample] * alone(policy, group.prompt, completion).sum()).backward()
    expected = torch.cat([p.grad.flatten() for p in policy.parameters()])
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_temperature_divides_the_logits_and_entropy_is_that_of_the_whole_distribution(policies):
    policy, (_, group, _) = policies["qwen3"], groups()
    (row,) = policy.rows([group], 4096)
    ids = torch.tensor([group.prompt + group.completions[0]])
    with torch.no_grad():
        scores = policy(row, 0.7)
        logprobs = (policy.net(input_ids=ids).logits[0, len(group.prompt) - 1 : -1] / 0.7).log_softmax(-1)
    expected = torch.distributions.Categorical(logits=logprobs)
    torch.testing.assert_close(scores.entropy, expected.entropy(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.logprob, expected.log_prob(row.target), atol=1e-5, rtol=1e-5)


def test_a_completion_ends_with_the_token_that_ends_it(policies):
    policy = policies["qwen3"]
    prompt, completion = policy.encode_answer(chat("hello world"), "how are you?")
    assert completion[-1] == policy.tokenizer.eos_token_id
    assert prompt == policy.encode([chat("hello world")])[0]
    assert policy.decode(completion) == "how are you?"


def test_a_template_that_rewrites_the_prompt_is_refused(tmp_path, make_tokenizer):
    policy = Policy.load(tiny_policy(tmp_path / "base", make_tokenizer), device="cpu")
    policy.tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match="renders a prompt differently once it is answered"):
        policy.encode_answer(chat("hello"), "world")
    policy.tokenizer.chat_template = "{{ raise_exception('no system turn') }}"
    with pytest.raises(DataError, match=r"refuses a conversation with roles \[user\]"):
        policy.encode([chat("hello")])


def trained(policy: Policy) -> None:
    """A few steps away from the start, on whatever trains."""
    parameters = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    for _ in range(3):
        for row in policy.rows(groups(), 4096):
            (-policy(row).logprob.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_dropout_is_off_and_stays_off_after_sampling(policies):
    """GPT-2 comes with dropout; its noise would be taken for a change of the policy."""
    policy = policies["gpt2"]
    assert policy.net.config.attn_pdrop > 0
    before = policy.logprobs(groups(), 64)
    generate(policy, [groups()[0].prompt], 2, Sampling(2), torch.Generator().manual_seed(0))
    assert not any(module.training for module in policy.modules())
    after = policy.logprobs(groups(), 64)
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("rank", [None, 4])
def test_the_reference_stays_what_the_policy_was(tmp_path, make_tokenizer, rank):
    folder = tiny_policy(tmp_path / "base", make_tokenizer)
    base = Policy.load(folder, device="cpu").logprobs(groups(), 64)
    policy = Policy.load(folder, device="cpu", lora_rank=rank)
    reference = policy.reference()
    names = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert all("lora_" in name for name in names) == (rank is not None)
    trained(policy)
    moved, kept = policy.logprobs(groups(), 64), reference.logprobs(groups(), 64)
    assert all((kept[k] - base[k]).abs().max() < 1e-6 for k in base)
    assert max(float((moved[k] - base[k]).abs().max()) for k in base) > 0.01
    assert not any(p.requires_grad for p in reference.parameters())


@pytest.mark.parametrize("rank", [None, 4])
def test_a_saved_policy_is_a_plain_model_with_the_same_log_probabilities(tmp_path, make_tokenizer, rank):
    policy = Policy.load(tiny_policy(tmp_path / "base", make_tokenizer), device="cpu", lora_rank=rank, seed=3)
    trained(policy)
    expected = policy.logprobs(groups(), 64)
    policy.save(tmp_path / "saved")
    net = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert "lora" not in json.dumps(list(net.state_dict()))
    again = Policy(net.eval(), AutoTokenizer.from_pretrained(tmp_path / "saved")).logprobs(groups(), 64)
    assert all((again[k] - expected[k]).abs().max() < 1e-5 for k in expected)
    after = policy.logprobs(groups(), 64)
    assert all(torch.equal(after[k], expected[k]) for k in expected), "saving changed the policy"


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_pad_is_a_token_of_its_own(tmp_path, make_tokenizer, name):
    """Where pad would be the end token, an end inside a prompt or answer could be taken for padding (trl#6805)."""
    folder = tiny_policy(tmp_path / name, make_tokenizer, name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    policy = Policy.load(folder, device="cpu")
    assert policy.tokenizer.pad_token_id not in policy.end_ids
    assert policy.net.get_input_embeddings().weight.shape[0] >= len(policy.tokenizer)
    policy.save(tmp_path / "saved")
    assert Policy.load(tmp_path / "saved", device="cpu").tokenizer.pad_token_id == policy.tokenizer.pad_token_id


def test_what_is_no_language_model_is_refused_in_a_sentence(tmp_path, make_tokenizer):
    with pytest.raises(ConfigError, match="there is no such model folder"):
        Policy.load(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no language model that can be a policy"):
        Policy.load(tmp_path / "empty")
