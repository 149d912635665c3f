"""`fit` as a whole: it learns, resumes bit for bit, does not depend on how a step is cut up, and fails before it costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import chat

from guerdon.data.write import write_jsonl
from guerdon.model.reward import RewardModel
from guerdon.train.config import TrainConfig
from guerdon.train.examples import encode_comparisons
from guerdon.train.loop import fit, row_loss
from guerdon.train.start import start_model
from guerdon.types import Comparison, ConfigError, DataError, TrainingError

GOOD, BAD = ("thank you, here it is", "gladly, of course", "yes, please take it"), ("no", "go away", "never ever")


def politeness(n: int) -> list[Comparison]:
    """Polite answers beat rude ones; every fifth row is a ranking of three, every seventh a tie."""
    rows = []
    for i in range(n):
        answers = [GOOD[i % 3], BAD[i // 3 % 3]]
        ranks: tuple[float, ...] = (1, 2)
        if i % 5 == 0:
            answers, ranks = [*answers, "hm"], (1, 3, 2)
        elif i % 7 == 0:
            answers, ranks = [GOOD[0], GOOD[1]], (1, 1)
        completions = tuple(({"role": "assistant", "content": f"{answer} {i}"},) for answer in answers)
        rows.append(Comparison(tuple(chat(f"question {i}: may I have {i}?")), completions, ranks, id=f"row-{i}"))
    return rows


@pytest.fixture(scope="module")
def setting(tmp_path_factory, make_backbone):
    folder = tmp_path_factory.mktemp("setting")
    write_jsonl(folder / "train.jsonl", politeness(120))
    make_backbone(folder / "base")
    return TrainConfig(
        data=(str(folder / "train.jsonl"),), model=str(folder / "base"), batch_size=8, learning_rate=3e-3, epochs=1,
        eval_fraction=0.2, eval_every=3, tokens_per_row=200, seed=1,
    )  # fmt: skip


def quiet(line: str) -> None:
    pass


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_bits(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_leaves_a_complete_run(setting, tmp_path):
    lines: list[str] = []
    result = fit(replace(setting, output=str(tmp_path / "run")), say=lines.append)
    assert result.evaluation["accuracy"] > 0.9
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.yaml", "metrics.jsonl", "model", "run.json",
    ]  # fmt: skip
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["train"]["comparisons"] == 120
    assert record["data"]["train"]["used"] + record["data"]["held_out"] == 120
    train_rows = [row for row in metrics(tmp_path / "run") if "loss" in row]
    assert [row["step"] for row in train_rows] == list(range(1, result.steps + 1))
    assert train_rows[-1]["loss"] < train_rows[0]["loss"]
    asked = "question 3: may I have 3?"
    polite, rude = RewardModel.load(result.model).score([chat(asked, f"{GOOD[0]} 3"), chat(asked, f"{BAD[1]} 3")])
    assert polite > rude
    assert any(line.startswith("held out") for line in lines)


def test_the_best_evaluation_is_what_stays(setting, tmp_path):
    config = replace(
        setting, output=str(tmp_path), eval_every=1, learning_rate=0.05, schedule="constant", best_by="nll"
    )
    result = fit(config, say=quiet)
    rows = [row for row in metrics(tmp_path) if "eval_nll" in row]
    best = min(rows, key=lambda row: row["eval_nll"])
    assert json.loads((tmp_path / "run.json").read_text())["best_step"] == best["step"]
    assert result.evaluation["nll"] == best["eval_nll"]


def test_same_seed_same_bits_other_seed_other_weights(setting, tmp_path):
    short = replace(setting, max_steps=3, eval_fraction=0.0)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(replace(short, output=str(tmp_path / name), seed=seed), say=quiet)
    assert_same_bits(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same_bits(tmp_path / "a", tmp_path / "c")


SCRIPT = """
import os, signal, sys
from guerdon.train.config import from_yaml
from guerdon.train.loop import fit
from guerdon.train.metrics import Watch

class Fatal(Watch):
    def step(self, row):
        if row["step"] == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

fit(from_yaml(sys.argv[1]), say=lambda line: None, watch=Fatal())
"""


@pytest.mark.parametrize("trained", [{}, {"lora": True, "lora_rank": 4}, {"freeze_layers": 1}], ids=str)
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(setting, tmp_path, trained):
    from guerdon.options import to_yaml

    config = replace(setting, **trained, eval_every=4, save_every=3)
    fit(replace(config, output=str(tmp_path / "whole")), say=quiet)
    killed = replace(config, output=str(tmp_path / "killed"))
    for attempt, deadly_step in enumerate((5, 10)):
        (tmp_path / "config.yaml").write_text(to_yaml(replace(killed, resume=attempt > 0)))
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "config.yaml"), str(deadly_step)], capture_output=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert not (tmp_path / "killed" / "run.json").exists()
    said: list[str] = []
    fit(replace(killed, resume=True), say=said.append)
    assert any("resumed after step 9" in line for line in said)
    assert_same_bits(tmp_path / "whole", tmp_path / "killed")
    timed = ("pairs_per_s", "tokens_per_s")
    strip = [
        [{k: v for k, v in row.items() if k not in timed} for row in metrics(tmp_path / n)] for n in ("whole", "killed")
    ]
    assert strip[0] == strip[1]


def test_resume_of_a_finished_run_does_nothing(setting, tmp_path):
    config = replace(setting, output=str(tmp_path), max_steps=2)
    fit(config, say=quiet)
    before = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    assert fit(replace(config, resume=True), say=said.append).steps == 0
    assert "complete" in said[0]
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == before


def gradient(config: TrainConfig, tokens_per_row: int) -> list[torch.Tensor]:
    from guerdon.train.loop import _accumulate
    from guerdon.train.start import make_accelerator

    config = replace(config, tokens_per_row=tokens_per_row)
    model = start_model(config, torch.device("cpu"))
    examples, _ = encode_comparisons(politeness(16), model.encoder, margin=0.0, ties="half", group_limit=16)
    rows = _accumulate(make_accelerator(config), model, model, examples, config)
    assert rows[:, 1].sum() == pytest.approx(16)
    assert (len(rows) == 1) == (tokens_per_row > 10_000)
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_accumulated_rows_equal_one_batch(setting):
    many, one = gradient(setting, 60), gradient(setting, 100_000)
    for a, b in zip(many, one, strict=True):
        assert (a - b).abs().max() <= 1e-6 * max(1.0, float(b.abs().max()))


def test_the_gradient_of_a_step_is_that_of_the_mean_loss(setting):
    """Written out: the mean over comparisons of the weighted losses of their pairs, by autograd on plain scores."""
    model = start_model(setting, torch.device("cpu"))
    rows = politeness(16)
    total = torch.zeros(())
    for row in rows:
        trees = [(item.ids,) for item in model.encoder(row.conversations())]
        rewards = torch.cat([model(packed) for tree in trees for packed in model.rows([tree], 10_000)])
        for pair in row.pairs():
            d = rewards[pair.chosen] - rewards[pair.rejected]
            nll = torch.nn.functional.softplus(-d)
            total = total + pair.weight * (nll if pair.target == 1.0 else 0.5 * (nll + torch.nn.functional.softplus(d)))
    (total / len(rows)).backward()
    expected = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(gradient(setting, 60), expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1e-3, float(b.abs().max()))


DISTRIBUTED = """
import sys, torch
from guerdon.train.config import from_yaml
from guerdon.train.loop import fit
fit(from_yaml(sys.argv[1]), say=print)
"""


@pytest.mark.slow
@pytest.mark.parametrize("average", [0.0, 2.0])
def test_two_processes_compute_what_one_does(setting, tmp_path, average):
    """DDP over gloo: rows are dealt out, gradients averaged; the weights agree with one process to float32 rounding."""
    from guerdon.options import to_yaml

    config = replace(setting, max_steps=4, batch_size=7, eval_every=2, schedule="constant", warmup=0.0, average=average)
    fit(replace(config, output=str(tmp_path / "one")), say=quiet)
    (tmp_path / "two.yaml").write_text(to_yaml(replace(config, output=str(tmp_path / "two"))))
    (tmp_path / "run.py").write_text(DISTRIBUTED)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "run.py"), str(tmp_path / "two.yaml")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "on 2 x cpu" in done.stdout
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        assert (one[name] - two[name]).abs().max() < 2e-4, name
    for a, b in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        for key in a.keys() & {"loss", "accuracy", "mean_reward", "grad_norm", "eval_accuracy", "eval_nll"}:
            assert a[key] == pytest.approx(b[key], abs=2e-3), (a["step"], key)


def test_kwise_margin_center_and_smoothing_reach_the_loss(setting):
    """The summed loss of one row equals the formula written out pair by pair."""
    config = replace(setting, margin=0.5, center=0.01, label_smoothing=0.1)
    rows = [replace(row, strength=2.0) for row in politeness(6)]
    model = start_model(config, torch.device("cpu"))
    examples, _ = encode_comparisons(rows, model.encoder, margin=0.5, ties="half", group_limit=8)
    (packed,) = model.rows([example.tree for example in examples], 10_000)
    with torch.no_grad():
        loss, _ = row_loss(model(packed), packed, examples, config)
    expected = 0.0
    for row in rows:
        scores = [float(s) for s in model.score(row.conversations())]
        k = len(scores)
        for i in range(k):
            for j in range(k):
                if row.ranks[i] < row.ranks[j] or (row.ranks[i] == row.ranks[j] and i < j):
                    tie = row.ranks[i] == row.ranks[j]
                    margin = (
                        0.0 if tie else 0.5 * 2.0 * (row.ranks[j] - row.ranks[i]) / (max(row.ranks) - min(row.ranks))
                    )
                    d = torch.tensor(scores[i] - scores[j] - margin, dtype=torch.float64)
                    t = 0.5 if tie else 0.9
                    nll = -(t * torch.nn.functional.logsigmoid(d) + (1 - t) * torch.nn.functional.logsigmoid(-d))
                    expected += float(nll + 0.01 * (scores[i] + scores[j]) ** 2) / (k * (k - 1) / 2)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_lora_trains_head_and_adapter_and_nothing_else(setting, tmp_path):
    config = replace(setting, output=str(tmp_path), lora=True, lora_rank=4, learning_rate=1e-2, epochs=2, batch_size=4)
    result = fit(config, say=quiet)
    assert result.evaluation["accuracy"] > 0.8
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("score" in name for name in adapter)
    base = load_file(Path(setting.model) / "model.safetensors")
    merged = weights(tmp_path)
    assert torch.equal(merged["model.embed_tokens.weight"], base["embed_tokens.weight"])
    assert not torch.equal(merged["model.layers.0.self_attn.q_proj.weight"], base["layers.0.self_attn.q_proj.weight"])


def test_a_loss_that_is_not_finite_stops_with_the_rows(setting, tmp_path):
    with pytest.raises(TrainingError, match=r"step \d+: the loss or its gradient is not finite.*row-\d+") as caught:
        fit(replace(setting, output=str(tmp_path), learning_rate=1e30, max_grad_norm=0.0, warmup=0.0), say=quiet)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run.json").exists()


def test_an_existing_run_is_not_overwritten(setting, tmp_path):
    config = replace(setting, output=str(tmp_path), max_steps=1)
    fit(config, say=quiet)
    with pytest.raises(ConfigError, match="already holds a run; go on with --resume"):
        fit(config, say=quiet)


def test_resume_under_other_options_is_refused(setting, tmp_path):
    fit(replace(setting, output=str(tmp_path), max_steps=1), say=quiet)
    with pytest.raises(ConfigError, match="was started with --seed 1, not 2"):
        fit(replace(setting, output=str(tmp_path), max_steps=1, seed=2, resume=True), say=quiet)


def test_resume_takes_what_is_left_open_from_the_saved_run(setting, tmp_path):
    open_config = replace(setting, output=str(tmp_path), max_steps=1, learning_rate=None, tokens_per_row=None)
    fit(open_config, say=quiet)
    assert "resume: false" in (tmp_path / "config.yaml").read_text()
    said: list[str] = []
    fit(replace(open_config, resume=True), say=said.append)
    assert "complete" in said[0]


def test_a_mistake_in_the_command_does_not_lock_the_folder(setting, tmp_path):
    with pytest.raises(DataError):
        fit(replace(setting, output=str(tmp_path), data=("typo.jsonl",)), say=quiet)
    assert fit(replace(setting, output=str(tmp_path), max_steps=1), say=quiet).steps == 1


def test_resume_on_other_data_is_refused(setting, tmp_path):
    from guerdon.options import to_yaml

    write_jsonl(tmp_path / "data.jsonl", politeness(60))
    config = replace(setting, output=str(tmp_path / "run"), data=(str(tmp_path / "data.jsonl"),), save_every=2)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "config.yaml"), "3"]
    assert subprocess.run(command, capture_output=True, timeout=240).returncode == -signal.SIGKILL
    write_jsonl(tmp_path / "data.jsonl", politeness(70))
    with pytest.raises(ConfigError, match="not those the run was started on"):
        fit(replace(config, resume=True), say=quiet)


@pytest.mark.parametrize("best_by", ["accuracy", "nll"])
def test_held_out_rows_that_cannot_be_scored_stop_the_run_with_a_sentence(setting, tmp_path, best_by):
    long = [replace(row, prompt=tuple(chat("word " * 400))) for row in politeness(6)]
    write_jsonl(tmp_path / "long.jsonl", long)
    config = replace(
        setting, output=str(tmp_path / "run"), eval_data=(str(tmp_path / "long.jsonl"),), eval_fraction=0.0
    )
    with pytest.raises(TrainingError, match="no held-out pair could be scored"):
        fit(replace(config, max_length=300, truncation="error", max_steps=1, best_by=best_by), say=quiet)


def test_starting_from_an_adapter_goes_on_from_its_weights(setting, tmp_path):
    config = replace(setting, lora=True, lora_rank=4, learning_rate=1e-2, max_steps=4)
    first = fit(replace(config, output=str(tmp_path / "one")), say=quiet)
    adapter = str(tmp_path / "one" / "adapter")
    for name, lora in (("full", False), ("lora", True)):
        again = replace(config, output=str(tmp_path / name), model=adapter, lora=lora, learning_rate=1e-9, max_steps=1)
        second = fit(again, say=quiet)
        talks = [chat("may I?", answer) for answer in GOOD + BAD]
        a, b = (RewardModel.load(result.model).score(talks) for result in (first, second))
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 1e-4


def test_gradient_checkpointing_changes_no_gradient(setting, tmp_path):
    for name, checkpointing in (("a", False), ("b", True)):
        config = replace(setting, output=str(tmp_path / name), gradient_checkpointing=checkpointing, max_steps=3)
        fit(config, say=quiet)
    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_no_space_is_found_before_training(setting, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(TrainingError, match="GB free; make room"):
        fit(replace(setting, output=str(tmp_path / "run")), say=quiet)


def test_an_output_below_a_file_is_found_before_training(setting, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        fit(replace(setting, output=str(tmp_path / "file" / "run")), say=quiet)


def test_nothing_left_to_train_on_is_said(setting, tmp_path):
    with pytest.raises(ConfigError, match="nothing to train on"):
        fit(replace(setting, output=str(tmp_path), max_length=3, truncation="error"), say=quiet)


def test_evaluation_data_that_shares_prompts_is_reported(setting, tmp_path):
    said: list[str] = []
    fit(replace(setting, output=str(tmp_path), eval_data=setting.data, max_steps=1), say=said.append)
    assert any("120 prompts are in both" in line for line in said)


def test_continuing_a_reward_model_starts_from_its_scores(setting, tmp_path):
    first = fit(replace(setting, output=str(tmp_path / "one")), say=quiet)
    second = fit(replace(setting, output=str(tmp_path / "two"), model=str(first.model), learning_rate=1e-9), say=quiet)
    talks = [chat("may I?", answer) for answer in GOOD + BAD]
    a, b = (RewardModel.load(result.model).score(talks) for result in (first, second))
    assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 1e-4


def test_trackers_receive_the_metrics(setting, tmp_path):
    pytest.importorskip("tensorboard")
    fit(replace(setting, output=str(tmp_path), max_steps=2, trackers=("tensorboard",)), say=quiet)
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_an_unknown_tracker_is_refused(setting, tmp_path):
    with pytest.raises(ConfigError, match="--trackers"):
        fit(replace(setting, output=str(tmp_path), trackers=("abacus",)), say=quiet)
