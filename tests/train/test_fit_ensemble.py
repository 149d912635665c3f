"""Training an ensemble: each member on its own bootstrap, one forward pass, the same as M runs on weighted data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fit import politeness, quiet, setting  # noqa: F401

from guerdon.model.head import final_layers
from guerdon.model.reward import RewardModel
from guerdon.train.examples import encode_comparisons
from guerdon.train.loop import fit, row_loss
from guerdon.train.start import start_model
from guerdon.types import ConfigError


def prepared(config, count: int):
    config = replace(config, ensemble=count)
    model = start_model(config, torch.device("cpu"))
    examples, _ = encode_comparisons(
        politeness(30), model.encoder, margin=0.0, ties="half", group_limit=8, ensemble=count, seed=config.seed
    )
    return config, model, examples


def test_each_member_draws_as_many_prompts_as_there_are(setting):  # noqa: F811
    _, _, examples = prepared(setting, 6)
    draws = np.array([example.draws for example in examples])
    assert draws.shape == (30, 6)
    assert (draws.sum(0) == 30).all()
    assert len({tuple(column) for column in draws.T}) == 6
    assert 0.2 < (draws == 0).mean() < 0.55  # 1/e in the limit


def test_the_loss_is_the_mean_of_the_members_losses_on_their_own_draws(setting):  # noqa: F811
    config, model, examples = prepared(setting, 3)
    (row,) = model.rows([example.tree for example in examples], 100_000)
    rewards = model(row).detach()
    assert rewards.shape == (sum(len(example.tree) for example in examples), 3)
    loss, _ = row_loss(rewards, row, examples, config)
    expected = 0.0
    for number in range(3):
        weighted = [
            replace(e, draws=(), pairs=tuple(p._replace(weight=p.weight * e.draws[number]) for p in e.pairs))
            for e in examples
        ]
        expected += float(row_loss(rewards[:, number], row, weighted, config)[0]) / 3
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_the_gradient_of_a_member_is_that_of_training_it_alone(setting):  # noqa: F811
    config, model, examples = prepared(setting, 3)
    (row,) = model.rows([example.tree for example in examples], 100_000)
    loss, _ = row_loss(model(row), row, examples, config)
    loss.backward()
    together = final_layers(model.net)[0][2].weight.grad[1] * 3
    _, alone, _ = prepared(setting, 3)
    weighted = [
        replace(e, draws=(), pairs=tuple(p._replace(weight=p.weight * e.draws[1]) for p in e.pairs)) for e in examples
    ]
    row_loss(alone(row)[:, 1], row, weighted, config)[0].backward()
    torch.testing.assert_close(together, final_layers(alone.net)[0][2].weight.grad[1])


@pytest.mark.parametrize("lora", [False, True])
def test_it_learns_and_the_members_differ(setting, tmp_path, lora):  # noqa: F811
    config = replace(setting, ensemble=4, epochs=2, lora=lora, lora_rank=4, learning_rate=1e-2 if lora else 3e-3)
    result = fit(replace(config, output=str(tmp_path / "run")), say=quiet)
    assert result.evaluation["accuracy"] > 0.8
    model = RewardModel.load(result.model)
    scores = model.score([c for row in politeness(20) for c in row.conversations()])
    assert model.members == 4
    assert min(score.std for score in scores) > 0
    if lora:
        again = RewardModel.load(tmp_path / "run" / "adapter")
        assert again.members == 4


def test_interrupted_and_resumed_equals_uninterrupted(setting, tmp_path):  # noqa: F811
    config = replace(setting, ensemble=3, save_every=3, eval_every=4)
    fit(replace(config, output=str(tmp_path / "whole")), say=quiet)

    class Stop(Exception):
        pass

    class Watch:
        def __getattr__(self, name):
            def react(*args):
                if name == "step" and args[0]["step"] == 7:
                    raise Stop

            return react

    with pytest.raises(Stop):
        fit(replace(config, output=str(tmp_path / "cut")), say=quiet, watch=Watch())
    fit(replace(config, output=str(tmp_path / "cut"), resume=True), say=quiet)
    for name in ("model.safetensors", "ensemble.npz"):
        assert (tmp_path / "whole" / "model" / name).read_bytes() == (tmp_path / "cut" / "model" / name).read_bytes()


def test_an_ensemble_goes_on_as_its_members_or_as_its_mean(setting, tmp_path):  # noqa: F811
    first = fit(replace(setting, ensemble=3, output=str(tmp_path / "run"), max_steps=4), say=quiet)
    start = replace(setting, model=str(first.model))
    talks = [c for row in politeness(5) for c in row.conversations()]
    expected = RewardModel.load(first.model).score(talks)
    kept = start_model(replace(start, ensemble=3), torch.device("cpu")).eval().score(talks)
    assert all(a.members == pytest.approx(b.members, abs=1e-5) for a, b in zip(expected, kept, strict=True))
    mean = start_model(start, torch.device("cpu")).eval().score(talks)
    assert [float(s) for s in mean] == pytest.approx([float(s) for s in expected], abs=1e-5)
    with pytest.raises(ConfigError, match="ensemble of 3"):
        start_model(replace(start, ensemble=2), torch.device("cpu"))
