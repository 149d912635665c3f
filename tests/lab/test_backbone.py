import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from guerdon.lab.backbone import BOS, EOS, build_backbone, build_tokenizer, corpus, pretrain
from guerdon.types import ConfigError

TINY = {"layers": 2, "width": 32, "heads": 2, "vocab_size": 600, "context": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab") / "tiny"
    build_backbone(path, seed=0, **TINY)
    return path


@pytest.mark.parametrize("text", ["Anna ordered lamps.", "日本 😀 naïve\n\ttabs", "<b>", "  two  spaces "])
def test_the_tokenizer_can_spell_any_text(text):
    tokenizer = build_tokenizer(corpus(200, 0), 500)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_are_distinct_and_there_is_no_template():
    tokenizer = build_tokenizer(corpus(200, 0), 500)
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, None}) == 4
    assert tokenizer.chat_template is None
    assert len(tokenizer) <= 500
    with pytest.raises(ConfigError, match="259 or more"):
        build_tokenizer(["a"], 258)


def test_conversations_of_the_lab_are_short():
    tokenizer = build_tokenizer(corpus(2000, 0))
    lengths = [len(row) for row in tokenizer(corpus(300, 1))["input_ids"]]
    assert sum(lengths) / len(lengths) < 90
    assert max(lengths) < 180


def test_the_folder_loads_as_any_hugging_face_model(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "qwen3"
    assert config["pad_token_id"] == tokenizer.pad_token_id
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    scorer = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    ids = tokenizer(f"{BOS}Hello{EOS}", return_tensors="pt")["input_ids"]
    assert scorer(ids).logits.shape == (1, 1)
    assert not list(folder.parent.glob(".tiny-*"))


def test_weights_follow_the_seed_and_leave_the_global_generator_alone(folder, tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    build_backbone(tmp_path / "same", seed=0, **TINY)
    build_backbone(tmp_path / "other", seed=1, **TINY)
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (folder, tmp_path / "same", tmp_path / "other")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["model.embed_tokens.weight"], weights[2]["model.embed_tokens.weight"])


def test_pretraining_is_seeded_and_lowers_the_loss_on_new_text(tmp_path):
    losses = []
    for name in ("one", "two"):
        build_backbone(tmp_path / name, seed=0, **TINY)
        losses.append(pretrain(tmp_path / name, corpus(160, 3), 30, 0, batch_size=16, learning_rate=5e-3))
    assert losses[0] == losses[1]
    assert losses[0][0] == pytest.approx(torch.log(torch.tensor(600.0)).item(), rel=0.2)  # a uniform guess
    assert losses[0][-1] < 0.8 * losses[0][0]


def test_a_width_that_heads_cannot_share_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="multiple of twice"):
        build_backbone(tmp_path / "m", seed=0, width=30, heads=4)
    assert not (tmp_path / "m").exists()
