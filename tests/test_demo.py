"""The demo, small: every file it promises is there, and its numbers are those of the commands."""

from __future__ import annotations

import json

import pytest

from guerdon.data.read import load
from guerdon.demo import Size, run
from guerdon.demo_policy import PolicySize
from guerdon.evaluate.metrics import evaluate
from guerdon.evaluate.score import score_comparisons
from guerdon.model.reward import RewardModel
from guerdon.types import ConfigError

TINY = Size(
    comparisons=96,
    evaluation=40,
    prompts_to_score=5,
    candidates=3,
    pretraining_texts=64,
    pretraining_steps=2,
    epochs=1.0,
    policy=PolicySize(
        prompts=20,
        tuning_steps=2,
        steps=2,
        steps_without_kl=2,
        prompts_per_step=2,
        samples_per_prompt=2,
        new_tokens=8,
        best_of=4,
        best_of_prompts=2,
    ),
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("demo") / "run"
    run(folder, seed=5, size=TINY)
    return folder


def test_report_is_one_file_that_opens_offline(demo):
    html = (demo / "report.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") or html.startswith("<!DOCTYPE html>")
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert "<svg" in html


def test_evaluation_is_that_of_the_saved_model(demo):
    model = RewardModel.load(demo / "run" / "model")
    saved = json.loads((demo / "evaluation.json").read_text())
    again = evaluate(score_comparisons(model, load(demo / "test.jsonl").comparisons))
    assert saved["accuracy"] == pytest.approx(again.accuracy)
    assert saved["nll"] == pytest.approx(again.nll, abs=1e-6)
    assert 0.5 < saved["ceiling"] < 1
    assert 0 < saved["gold_accuracy"] < 1


def test_held_out_prompts_are_new(demo):
    train, test = (
        {c.prompt[0]["content"] for c in load(demo / f"{name}.jsonl").comparisons} for name in ("train", "test")
    )
    assert len(test) == len(load(demo / "test.jsonl").comparisons)
    assert not train & test


def test_every_candidate_is_scored(demo):
    rows = [json.loads(line) for line in (demo / "scores.jsonl").read_text().splitlines()]
    assert [len(row["scores"]) for row in rows] == [3] * 5
    assert {row["status"] for row in rows} == {"ok"}


def test_only_a_demo_is_replaced(demo, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not a demo"):
        run(tmp_path, size=TINY)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_policy_runs_are_whole_and_on_one_page(demo):
    for name, beta in (("ppo", 0.2), ("ppo-without-kl", 0.0)):
        rows = [json.loads(line) for line in (demo / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["step"] for row in rows] == [1, 2]
        assert {row["beta"] for row in rows} == {beta}
        assert all(0 <= row["held_out"] <= 1 for row in rows)  # gold
        assert (demo / name / "policy" / "config.json").is_file()
    page = (demo / "policy.html").read_text(encoding="utf-8")
    assert "ppo-without-kl" in page
    assert "https://" not in page
