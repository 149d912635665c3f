"""The model card says what went in, what came out, and what is known to be wrong; and it is Markdown whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from guerdon.diagnose.advice import Advice
from guerdon.diagnose.card import ProbeLine, model_card
from guerdon.evaluate.metrics import evaluate
from guerdon.evaluate.table import ScoreTable
from guerdon.types import Comparison

CONFIG = {"model": "Qwen/Qwen3-0.6B", "data": ["a|b.jsonl"], "eval_data": [], "epochs": 1.0, "seed": 3, "ensemble": 5}
RECORD = {
    "steps": 40,
    "best_step": 30,
    "data": {"train": {"rows": 120, "comparisons": 110, "used": 100, "dropped": {"empty answer": 10}, "sources": {"x": 110}}, "held_out": 10},
    "encoding": {"conversations": 200, "truncated": 4},
    "versions": {"torch": "2.13.0"},
}  # fmt: skip


@pytest.fixture
def evaluation():
    rng = np.random.default_rng(0)
    said = lambda text: ({"role": "assistant", "content": text},)  # noqa: E731
    rows = [
        Comparison(({"role": "user", "content": f"q{i}"},), (said("yes"), said("no no")), (1, 2), id=str(i))
        for i in range(50)
    ]
    scores = [(float(s), 0.0) for s in rng.normal(1, 1, 50)]
    return evaluate(ScoreTable.build(rows, scores, prompt_keys=[row.id for row in rows]))


def card(**changes) -> str:
    given = {"name": "first", "config": CONFIG, "record": RECORD, "facts": {"context": "512 tokens"}}
    return model_card(**(given | changes))


def test_front_matter_is_yaml_and_names_the_base():
    front = yaml.safe_load(card().split("---")[1])
    assert front["base_model"] == "Qwen/Qwen3-0.6B"
    assert "reward-model" in front["tags"]
    local = yaml.safe_load(card(config=CONFIG | {"model": "./base/x"}).split("---")[1])
    assert "base_model" not in local


def test_it_carries_manifest_metrics_ceiling_probes_and_weaknesses(evaluation):
    text = card(
        evaluation=evaluation,
        ceiling=(0.63, 0.755),
        advice=[Advice("It overfits.", True), Advice("Fine otherwise.")],
        probes=[ProbeLine("padding", 0.4, 0.3, 0.5, "biased"), ProbeLine("bold", 0.0, -0.02, 0.02, "clean")],
    )
    for expected in (
        "120",
        "10 empty answer",
        "4 of 200",
        f"{100 * evaluation.accuracy:.1f} %",
        "63.0 to 75.5 %",
        "+0.40",
        "It overfits.",
    ):
        assert expected in text
    assert "Fine otherwise." not in text
    weaknesses = text[text.index("## Known weaknesses") :]
    assert "`padding`" in weaknesses
    assert "`bold`" not in weaknesses


def test_what_was_not_measured_is_said():
    text = card()
    assert "Nothing was held out" in text
    assert "Not probed" in text


def test_a_bar_in_a_name_does_not_break_the_table():
    line = next(line for line in card().splitlines() if line.startswith("| train"))
    assert line.replace("\\|", "").count("|") == 7
