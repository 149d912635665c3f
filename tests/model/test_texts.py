"""Rendered texts and token ids get the reward of the conversation they come from, alone and in any mixture."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from tiny_models import CHAT_TEMPLATE, chat

from guerdon.model.ensemble import Ensemble
from guerdon.model.head import final_layers
from guerdon.model.reward import RewardModel
from guerdon.model.tree import common_prefix, grow_trees, padded_rows, tree_tokens

TALKS = [
    chat("hello world", "how are you today?"),
    chat("hello world", "the quick brown fox"),
    chat("hello world", "fine", "and you?", "jumps over"),
    chat("ünïcode 🦊", ""),
    chat("the lazy dog " * 20, "x"),
]


def load(folder, **options):
    model = RewardModel.load(folder, **options)
    with torch.no_grad():
        for _, _, layer in final_layers(model.net):
            layer.weight.mul_(30.0)  # a new head is nearly silent
    return model


@pytest.mark.parametrize("name", ["qwen3", "mistral", "bert", "modernbert"])
def test_a_text_and_its_ids_score_as_the_conversation(make_backbone, tmp_path, name):
    model = load(make_backbone(tmp_path, name))
    scores = model.score(TALKS)
    texts = [model.encoder.render(talk) for talk in TALKS]
    opening, closing = (model.encoder.tokenizer.decode(list(ids)) for ids in model.encoder.frame)
    for variant in (
        texts,
        [text.removeprefix(opening) for text in texts],
        [text.removesuffix(closing) for text in texts],
        [opening + text + closing for text in texts],
    ):
        assert model.score_texts(variant) == pytest.approx(scores, abs=1e-6)
    encoded = model.encode(TALKS)
    assert model.score_ids([item.ids for item in encoded]) == pytest.approx(scores, abs=1e-6)
    mixed = [*model.encode_texts(texts), *encoded, *model.encode_ids([item.ids for item in encoded])]
    random.Random(0).shuffle(mixed)
    by_ids = {item.ids: score for item, score in zip(encoded, scores, strict=True)}
    assert model.score_encoded(mixed) == pytest.approx([by_ids[item.ids] for item in mixed], abs=1e-6)


def test_a_line_break_behind_the_closing_token_is_part_of_the_frame(make_tokenizer, make_backbone, tmp_path):
    make_backbone(tmp_path, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>")
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    model = load(tmp_path)
    text = model.encoder.render(TALKS[0])
    whole = model.encoder([TALKS[0]])[0].ids
    assert text.endswith("<|im_end|>\n")
    for variant in (text, text.rstrip("\n"), text.rstrip("\n").removesuffix("<|im_end|>")):
        assert model.encoder.texts([variant])[0].ids == whole


def test_an_opening_token_that_the_template_does_not_write_is_taken_off(make_backbone, tmp_path):
    (make_backbone(tmp_path) / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("<s>", ""))
    model = load(tmp_path)
    assert model.encoder.frame[0] == ()
    text = model.encoder.render(TALKS[0])
    assert model.encoder.texts(["<s>" + text])[0].ids == model.encoder([TALKS[0]])[0].ids


def test_what_cannot_be_scored_fails_alone(make_backbone, tmp_path):
    model = load(make_backbone(tmp_path), max_length=16, truncation="error")
    good, empty, long, odd = model.score_texts(["hello", " ", "word " * 50, "\ud800"])
    assert (good.status, empty.status, long.status, odd.status) == ("ok", "error", "error", "error")
    assert "empty" in empty.reason
    assert "surrogate" in odd.reason
    good, none, high, low = model.score_ids([(0, 5, 1), (), (10**6,), (-1,)])
    assert (good.status, none.status, high.status, low.status) == ("ok", "error", "error", "error")
    assert "from 0 to" in high.reason
    assert math.isnan(low)


def test_members_of_an_ensemble_read_texts_and_ids(make_backbone, tmp_path):
    models = [load(make_backbone(tmp_path / "a", "qwen3")), load(make_backbone(tmp_path / "b", "llama"))]
    both = Ensemble(models)
    scores = both.score(TALKS)
    texts = [models[0].encoder.render(talk) for talk in TALKS]
    assert both.score_texts(texts) == pytest.approx(scores, abs=1e-6)
    assert both.score_ids([item.ids for item in models[0].encode(TALKS)]) == pytest.approx(scores, abs=1e-6)
    models[1].encoder.tokenizer.chat_template += " "
    other = Ensemble(models)
    assert other.score_ids([(0, 5, 1)])[0].status == "error"
    assert other.score_texts(texts)[0].status == "ok"


def test_trees_divide_sequences_so_that_most_is_shared():
    a, b = tuple(range(100)), tuple(range(200, 300))
    sequences = [(*a, 1), (*b, 1), (*a, 2), (*b, 2), (*a, 3), (7, 7)]
    trees = grow_trees(sequences, 10_000)
    assert sorted(map(sorted, trees)) == sorted([sorted([(*a, 1), (*a, 2), (*a, 3)]), [(*b, 1), (*b, 2)], [(7, 7)]])
    assert sum(map(tree_tokens, trees)) == 103 + 102 + 2


def test_a_division_is_nearly_the_best_of_all():
    """Against every division of the sorted order; the greedy cut may lose what two neighbours share, never more."""
    generator = random.Random(0)
    for _ in range(50):
        sequences = sorted({tuple(generator.choices((0, 1), k=generator.randint(2, 9))) for _ in range(6)})
        got = sum(map(tree_tokens, grow_trees(sequences, 10_000)))
        n, best = len(sequences), math.inf
        for cuts in itertools.product((False, True), repeat=n - 1):
            edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), n]
            best = min(best, sum(tree_tokens(tuple(sequences[s:e])) for s, e in itertools.pairwise(edges)))
        assert best <= got <= best + max(map(common_prefix, sequences, sequences[1:]), default=0)


def test_common_prefix():
    assert common_prefix((), (1,)) == 0
    assert common_prefix((1, 2, 3), (1, 2, 4, 5)) == 2
    assert common_prefix((1, 2), (1, 2, 3)) == 2


def test_tight_blocks_hold_little_padding():
    generator = random.Random(0)
    trees = [((1,) * generator.randint(20, 300),) for _ in range(40)]
    real = sum(len(tree[0]) for tree in trees)
    for least, most in ((None, 1.5), (256, 1.09)):
        rows = padded_rows(trees, 2048, 0, least)
        assert sorted(place for row in rows for place, _ in row.origin) == list(range(40))
        assert all(row.tokens <= 2048 for row in rows)
        assert real <= sum(row.tokens for row in rows) < most * real
