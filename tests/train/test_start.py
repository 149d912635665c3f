"""What a training starts from: a pooler that was never trained is opened, one that was is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import chat
from transformers import AutoModelForSequenceClassification

from guerdon.data.write import write_jsonl
from guerdon.model.reward import RewardModel
from guerdon.train.config import TrainConfig
from guerdon.train.loop import fit
from guerdon.train.start import start_model
from guerdon.types import Comparison

POOLER = "bert.pooler.dense"


@pytest.fixture
def config(tmp_path, make_backbone):
    make_backbone(tmp_path / "base", "bert")
    rows = [
        Comparison(
            tuple(chat(f"may I have {i}?")),
            tuple(({"role": "assistant", "content": text},) for text in (f"gladly {i}", f"no {i}")),
            (1, 2),
            id=f"row-{i}",
        )
        for i in range(40)
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    return TrainConfig(
        data=(str(tmp_path / "train.jsonl"),), model=str(tmp_path / "base"), output=str(tmp_path / "run"), batch_size=4,
        learning_rate=1e-2, max_steps=4, lora_rank=4, seed=1,
    )  # fmt: skip


def started(config: TrainConfig) -> RewardModel:
    return start_model(config, Accelerator(cpu=True).device)


def pooler(model: RewardModel) -> torch.nn.Linear:
    return model.net.get_submodule(POOLER)


def give_bias(folder: Path) -> None:
    """As if somebody had trained the pooler."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("pooler.dense.bias"))
    weights[name][0] = 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_pooler_that_was_never_trained_starts_as_the_identity(config):
    model = started(config)
    assert torch.equal(pooler(model).weight, torch.eye(32))
    first = model.net.bert(input_ids=torch.tensor([[3, 4, 5]]))
    assert torch.allclose(first.pooler_output, first.last_hidden_state[:, 0].tanh())


def test_a_trained_pooler_and_that_of_a_reward_model_are_kept(config):
    fit(config, say=lambda line: None)
    trained = Path(config.output) / "model"
    again = started(replace(config, model=str(trained)))
    assert torch.equal(pooler(again).weight, load_file(trained / "model.safetensors")[f"{POOLER}.weight"])
    give_bias(Path(config.model))
    stored = load_file(Path(config.model) / "model.safetensors")
    assert torch.equal(pooler(started(config)).weight, stored["pooler.dense.weight"])


def test_with_lora_an_opened_pooler_is_trained_and_saved_with_the_adapter(config):
    """Else the adapter on its base, whose pooler is the stored one, would score otherwise than the run did."""
    fit(replace(config, lora=True), say=lambda line: None)
    run, asked = Path(config.output), [chat("may I have 7?", "gladly 7"), chat("may I have 7?", "no 7")]
    merged = RewardModel.load(run / "model")
    assert not torch.equal(pooler(merged).weight, torch.eye(32))
    expected = [float(score) for score in merged.score(asked)]
    adapter = RewardModel.load(run / "adapter")
    assert [float(score) for score in adapter.score(asked)] == pytest.approx(expected, abs=1e-5)
    base = AutoModelForSequenceClassification.from_pretrained(config.model, num_labels=1)
    theirs = PeftModel.from_pretrained(base, run / "adapter").eval()
    ids = [torch.tensor([one.ids]) for one in merged.encoder(asked)]
    with torch.no_grad():
        assert [theirs(input_ids=one).logits.item() for one in ids] == pytest.approx(expected, abs=1e-5)
