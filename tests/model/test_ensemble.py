"""Ensembles: many heads over one trunk, and separate checkpoints; the folder stays a plain single-score model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from test_reward import TALKS, largest_difference, loud_head
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from guerdon.model import members
from guerdon.model.ensemble import Ensemble
from guerdon.model.head import final_layers
from guerdon.model.reward import RewardModel
from guerdon.types import ConfigError


def grown(path, count: int = 4) -> RewardModel:
    """A model with `count` clearly different members."""
    model = loud_head(RewardModel.load(path))
    members.grow(model.net, count, seed=3, is_new=True)
    return model


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "bert", "deberta-v2", "modernbert"])
def test_a_saved_ensemble_is_a_plain_model_of_the_mean(name, make_backbone, tmp_path):
    model = grown(make_backbone(tmp_path / "base", name))
    scores = model.score(TALKS)
    assert all(len(score.members) == 4 for score in scores)
    assert min(score.std for score in scores) > 1e-3
    model.save(tmp_path / "saved", center_on=TALKS)

    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    inputs = tokenizer.apply_chat_template(TALKS, padding=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        logits = plain(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
    assert largest_difference(scores, logits) < 1e-5

    again = RewardModel.load(tmp_path / "saved")
    assert again.members == 4
    reloaded = again.score(TALKS)
    assert largest_difference(scores, reloaded) < 1e-5
    by_member = np.array([score.members for score in reloaded])
    np.testing.assert_allclose(by_member.mean(0), by_member.mean(), atol=1e-5)  # centred on these conversations
    before = np.array([score.members for score in scores])
    np.testing.assert_allclose(by_member - by_member.mean(0), before - before.mean(0), atol=1e-5)


def test_the_first_member_is_the_head_that_was_there(make_backbone, tmp_path):
    base = make_backbone(tmp_path / "base")
    single = loud_head(RewardModel.load(base)).score(TALKS)
    assert largest_difference(single, [score.members[0] for score in grown(base).score(TALKS)]) < 1e-6


def test_collapse_leaves_the_mean(make_backbone, tmp_path):
    model = grown(make_backbone(tmp_path / "base", "bert"))
    expected = model.score(TALKS)
    members.collapse(model.net)
    assert model.members == 1
    assert largest_difference(expected, model.score(TALKS)) < 1e-5


@pytest.mark.parametrize("name", ["qwen3", "bert"])
def test_an_adapter_carries_its_members(name, make_backbone, tmp_path):
    model = grown(make_backbone(tmp_path / "base", name))
    head = "score" if name == "qwen3" else "classifier"
    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules="all-linear", modules_to_save=[head])
    tuned = RewardModel(get_peft_model(model.net, lora), model.encoder, None).eval()
    assert tuned.members == 4
    expected = tuned.score(TALKS)
    tuned.save_adapter(tmp_path / "adapter", center_on=TALKS)
    tuned.save(tmp_path / "merged", center_on=TALKS)
    for folder in ("adapter", "merged"):
        again = RewardModel.load(tmp_path / folder)
        assert again.members == 4
        assert largest_difference(expected, again.score(TALKS)) < 1e-5


@pytest.mark.parametrize("rule", ["min", "mean-std:1", "quantile:0.25"])
def test_the_rule_decides_what_leaves(rule, make_backbone, tmp_path):
    grown(make_backbone(tmp_path / "base")).save(tmp_path / "saved")
    model, mean = RewardModel.load(tmp_path / "saved", reward=rule), RewardModel.load(tmp_path / "saved")
    assert model.fingerprint != mean.fingerprint
    for score, plain in zip(model.score(TALKS), mean.score(TALKS), strict=True):
        assert score.members == plain.members
        assert float(score) < float(plain)
        if rule == "min":
            assert float(score) == min(score.members)


def test_a_single_model_has_no_worst_case(make_backbone, tmp_path):
    with pytest.raises(ConfigError, match="--ensemble"):
        RewardModel.load(make_backbone(tmp_path / "base"), reward="min")


def test_members_of_another_model_are_refused(make_backbone, tmp_path):
    base = make_backbone(tmp_path / "base")
    grown(base).save(tmp_path / "a")
    other = grown(base)
    with torch.no_grad():
        final_layers(other.net)[0][2].weight.mul_(2)
    other.save(tmp_path / "b")
    shutil.copy(tmp_path / "b" / members.FILE, tmp_path / "a" / members.FILE)
    with pytest.raises(ConfigError, match="does not belong"):
        RewardModel.load(tmp_path / "a")
    (tmp_path / "a" / members.FILE).write_bytes(b"not a tensor file")
    with pytest.raises(ConfigError, match="cannot be read"):
        RewardModel.load(tmp_path / "a")


class TestSeparateCheckpoints:
    @pytest.fixture
    def paths(self, make_backbone, tmp_path):
        for number in range(3):
            model = loud_head(RewardModel.load(make_backbone(tmp_path / "base")))
            with torch.no_grad():
                for layer in final_layers(model.net):
                    layer[2].weight.add_(
                        0.2 * torch.randn(layer[2].weight.shape, generator=torch.Generator().manual_seed(number))
                    )
            model.save(tmp_path / f"m{number}")
        return [tmp_path / f"m{number}" for number in range(3)]

    def test_the_order_of_the_members_does_not_matter(self, paths):
        first, second = Ensemble.load(paths, reward="min"), Ensemble.load(paths[::-1], reward="min")
        assert first.fingerprint == second.fingerprint
        assert largest_difference(first.score(TALKS), second.score(TALKS)) < 1e-7

    def test_members_are_centred_before_they_are_compared(self, paths):
        ensemble = Ensemble.load(paths)
        ensemble.center(TALKS)
        by_member = np.array([score.members for score in ensemble.score(TALKS)])
        np.testing.assert_allclose(by_member.mean(0), 0, atol=1e-6)
        alone = np.array([float(score) for score in ensemble.models[1].score(TALKS)])
        np.testing.assert_allclose(by_member[:, 1], alone - alone.mean(), atol=1e-6)

    def test_what_one_member_cannot_score_has_no_score(self, paths):
        score = Ensemble.load(paths).score([[{"role": "user"}]])[0]
        assert score.status == "error"
        assert np.isnan(score)

    def test_one_model_is_no_ensemble(self, paths):
        with pytest.raises(ConfigError, match="at least two"):
            Ensemble.load(paths[:1])
