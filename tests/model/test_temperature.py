"""The temperature stands in the contract without being part of the reward: old contracts, hash, copies and training."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_models import chat

from guerdon.model.contract import FILE, Contract
from guerdon.model.reward import RewardModel
from guerdon.types import ContractError


@pytest.fixture(scope="module")
def saved(tmp_path_factory, make_backbone):
    """A reward model folder as it was written before temperatures."""
    folder = tmp_path_factory.mktemp("temperature")
    RewardModel.load(make_backbone(folder / "base"), seed=1).save(folder / "model")
    return folder / "model"


def test_a_contract_without_temperature_reads_as_none_and_is_written_without(saved):
    raw = json.loads((saved / FILE).read_text())
    assert "temperature" not in raw
    contract = Contract.read(saved)
    assert contract.temperature is None
    assert contract.hash == raw["hash"]


def test_the_temperature_comes_back_and_the_hash_stays(saved, tmp_path):
    contract = Contract.read(saved)
    replace(contract, temperature=3.25).write(tmp_path)
    again = Contract.read(tmp_path)
    assert again.temperature == 3.25
    assert again.hash == contract.hash
    assert again.golden == contract.golden
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("wrong", [0, -1.5, "2", float("nan"), True])
def test_a_damaged_temperature_is_refused(saved, tmp_path, wrong):
    raw = json.loads((saved / FILE).read_text()) | {"temperature": wrong}
    (tmp_path / FILE).write_text(json.dumps(raw))
    with pytest.raises(ContractError, match="temperature"):
        Contract.read(tmp_path)


def test_a_copy_keeps_the_temperature_and_other_weights_lose_it(saved, tmp_path):
    model = RewardModel.load(saved)
    model.contract = replace(model.contract, temperature=2.0)
    before, scores = model.fingerprint, model.score([chat("question", "answer")])
    model.save(tmp_path / "copy")
    copy = RewardModel.load(tmp_path / "copy")
    assert copy.contract.temperature == 2.0
    assert copy.fingerprint == before
    assert copy.score([chat("question", "answer")]) == scores
    with torch.no_grad():
        next(p for p in copy.net.parameters()).mul_(1.5)
    copy.save(tmp_path / "trained")
    assert RewardModel.load(tmp_path / "trained").contract.temperature is None
