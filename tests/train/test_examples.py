"""Comparisons as training examples: weights, grouping by prompt, what is kept out, the order of an epoch."""

from __future__ import annotations

import pytest
from tiny_models import chat

from guerdon.model.encode import Encoder, prepare_tokenizer
from guerdon.train.config import TrainConfig
from guerdon.train.examples import batches, encode_comparisons
from guerdon.train.plan import learning_rate, make_plan, resolve
from guerdon.types import Comparison


def comparison(prompt: str, *answers: str, ranks=None, strength=None, name="", weight=1.0) -> Comparison:
    ranks = tuple(ranks or range(1, len(answers) + 1))
    completions = tuple(({"role": "assistant", "content": answer},) for answer in answers)
    return Comparison(tuple(chat(prompt)), completions, ranks, strength=strength, id=name or prompt, weight=weight)


@pytest.fixture
def encoder(make_tokenizer):
    return Encoder(prepare_tokenizer(make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>")), 64)


def encode(comparisons, encoder, margin=0.0, ties="half", limit=8):
    return encode_comparisons(comparisons, encoder, margin=margin, ties=ties, group_limit=limit)


def test_a_ranking_of_k_is_one_comparison_scored_once_per_completion(encoder):
    (example,), report = encode([comparison("p", "a", "b", "c", "d")], encoder)
    assert len(example.tree) == 4
    assert [(p.chosen, p.rejected, p.weight) for p in example.pairs] == [
        (i, j, pytest.approx(1 / 6)) for i in range(4) for j in range(i + 1, 4)
    ]
    assert example.weight == pytest.approx(1.0)
    assert report.conversations == 4


def test_comparisons_of_one_prompt_share_a_tree_and_equal_completions(encoder):
    rows = [
        comparison("p", "a", "b", name="1"),
        comparison("q", "a", "b", name="2"),
        comparison("p", "c", "a", name="3"),
    ]
    first, second = encode(rows, encoder)[0]
    assert (first.rows, second.rows) == (("1", "3"), ("2",))
    assert len(first.tree) == 3
    assert [(p.chosen, p.rejected) for p in first.pairs] == [(0, 1), (2, 0)]


def test_a_prompt_with_many_comparisons_is_cut_at_the_limit(encoder):
    examples, _ = encode([comparison("p", "a", f"b{i}", name=str(i)) for i in range(5)], encoder, limit=2)
    assert [len(example.rows) for example in examples] == [2, 2, 1]


def test_rows_without_a_prompt_are_not_lumped_together(encoder):
    rows = [Comparison((), tuple((m,) for m in chat(a, b)), (1, 2), id=a) for a, b in (("x", "y"), ("z", "w"))]
    assert len(encode(rows, encoder)[0]) == 2


def test_ties_are_half_wins_or_dropped(encoder):
    row = comparison("p", "a", "b", "c", ranks=(1, 1, 2))
    (half,), _ = encode([row], encoder)
    (drop,), _ = encode([row], encoder, ties="drop")
    assert [pair.target for pair in half.pairs] == [0.5, 1.0, 1.0]
    assert [pair.target for pair in drop.pairs] == [1.0, 1.0]


def test_margin_is_strength_in_proportion_to_the_gap_in_rank(encoder):
    (example,), _ = encode([comparison("p", "a", "b", "c", strength=2.0)], encoder, margin=0.5)
    assert {(p.chosen, p.rejected): p.margin for p in example.pairs} == {(0, 1): 0.5, (0, 2): 1.0, (1, 2): 0.5}


def test_pairs_that_the_cut_makes_equal_are_counted_and_kept_out(make_tokenizer):
    tokenizer = prepare_tokenizer(make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>"))
    rows = [comparison("p", "first " + "same " * 40, "other " + "same " * 40), comparison("q", "a", "b")]
    examples, report = encode(rows, Encoder(tokenizer, 40))
    assert [example.rows for example in examples] == [("q",)]
    assert (report.identical_after_cut, report.truncated) == (1, 2)
    assert report.tokens_cut == report.tokens - 2 * 40 - sum(map(len, examples[0].tree))


def test_a_row_the_template_refuses_is_counted_alone(make_tokenizer):
    tokenizer = make_tokenizer(eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['content'] == 'no' %}{{ raise_exception('I refuse') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}</s>"
    )
    rows = [comparison(f"p{i}", "a", "b") for i in range(20)] + [comparison("p", "no", "b", name="bad.jsonl:7")]
    examples, report = encode(rows, Encoder(prepare_tokenizer(tokenizer), 64))
    assert len(examples) == 20
    assert report.refused == 1
    assert report.first_refusal.startswith("bad.jsonl:7: ")


def test_epochs_are_complete_shuffled_and_reproducible(encoder):
    examples, _ = encode([comparison(f"p{i}", "a", "b") for i in range(23)], encoder)
    first, again, later = (batches(examples, 4, seed=1, epoch=e) for e in (0, 0, 1))
    assert first == again != later
    assert sorted(i for step in first for i in step) == list(range(23))
    assert [len(step) for step in first] == [4, 4, 4, 4, 4, 3]


def test_plan_covers_fractions_of_epochs_and_max_steps(encoder):
    examples, _ = encode([comparison(f"p{i}", "a", "b") for i in range(20)], encoder)
    assert make_plan(TrainConfig(batch_size=4, epochs=2.5), examples).steps == 12
    assert make_plan(TrainConfig(batch_size=4, max_steps=3), examples).steps == 3
    plan = make_plan(TrainConfig(batch_size=4, epochs=2), examples)
    assert list(plan.remaining(8)) == [(9, plan.order[8]), (10, plan.order[9])]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.5, 1, 1, 1, 1]), ("linear", [0.5, 1, 1, 2 / 3, 1 / 3]), ("cosine", [0.5, 1, 1, 0.775, 0.325])],
)
def test_learning_rate_by_hand(schedule, expected):
    config = TrainConfig(learning_rate=1.0, schedule=schedule, warmup=0.4)
    assert [learning_rate(config, step, 5) for step in range(1, 6)] == pytest.approx(expected)


def test_defaults_depend_on_size_and_lora():
    assert resolve(TrainConfig(), 22_000_000, "cpu").learning_rate == 1e-4
    assert resolve(TrainConfig(), 8_000_000_000, "cuda").learning_rate == 9e-6
    assert resolve(TrainConfig(lora=True), 8_000_000_000, "cuda").learning_rate == 1e-4
    assert resolve(TrainConfig(learning_rate=1.0), 1, "cpu").learning_rate == 1.0
