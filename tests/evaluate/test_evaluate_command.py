"""`guerdon evaluate` with its switches: the sheet in the JSON, prompts removed, label noise, and the stored temperature."""

import json
import shutil

import pytest
from tiny_models import chat

from guerdon.cli import main
from guerdon.data.write import write_jsonl
from guerdon.evaluate.calibration import cross_fit_temperature
from guerdon.evaluate.table import ScoreTable
from guerdon.model.contract import FILE, Contract
from guerdon.model.reward import RewardModel
from guerdon.types import Comparison


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_backbone):
    """A model, and 40 pairs of which 25 are judged by three raters; labels follow the model but for every fourth."""
    folder = tmp_path_factory.mktemp("evaluate")
    model = RewardModel.load(make_backbone(folder / "base"), seed=1)
    model.save(folder / "model")
    rows = []
    for i in range(40):
        prompt, answers = chat(f"question {i}"), [chat("", f"yes {i}")[1:], chat("", f"no, not {i} at all")[1:]]
        first, second = model.score([prompt + answer for answer in answers])
        for rater in "xyz" if i < 25 else "x":
            is_first = (first > second) ^ (i % 4 == 0) ^ (rater == "z" and i % 5 == 0)
            ranks = (1, 2) if is_first else (2, 1)
            rows.append(Comparison(tuple(prompt), tuple(map(tuple, answers)), ranks, annotator=rater, id=f"{rater}{i}"))
    write_jsonl(folder / "data.jsonl", rows)
    return folder


def evaluate(world, *options, model="model"):
    main(["evaluate", "--model", f"{world}/{model}", "--data", f"{world}/data.jsonl", *options])


def test_the_sheet_and_the_rows_are_there_by_default(world, capsys):
    evaluate(world, "--json", f"{world}/e.json")
    record, text = json.loads((world / "e.json").read_text()), capsys.readouterr().out
    assert set(record["baselines"]) == {"longer", "shorter", "random", "constant"}
    assert record["calibration"]["temperature"]["folds"] == 5
    assert record["agreement"]["pairs"] == 25
    assert record["ceiling"][0] == pytest.approx(record["agreement"]["share"]) == pytest.approx((20 + 5 / 3) / 25)
    assert all(words in text for words in ("random", "temperature", "trust above", "of what these labels allow"))


def test_prompts_removed(world, capsys):
    evaluate(world, "--without-prompt", "--json", f"{world}/w.json")
    row = json.loads((world / "w.json").read_text())["baselines"]["prompt removed"]
    assert row["n"] == 90
    assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
    assert "not shown the prompt" in capsys.readouterr().out


def test_agreement_from_the_command_line_and_leakage(world, capsys):
    evaluate(world, "--agreement", "0.51", "--json", f"{world}/a.json")
    record = json.loads((world / "a.json").read_text())
    assert record["ceiling"] == pytest.approx([0.51, (1 + 0.02**0.5) / 2])
    assert "agreement" not in record
    assert record["accuracy_low"] > record["ceiling"][1]
    assert "leakage" in record["warnings"][-1]
    for wrong in (["--agreement", "72"], ["--agreement", ".7", "--ceiling", ".8"], ["--max-error", "20"]):
        with pytest.raises(SystemExit):
            evaluate(world, *wrong)
        assert capsys.readouterr().err.splitlines()[-1].startswith("guerdon: ")


def test_the_temperature_is_written_and_changes_no_score(world, capsys):
    shutil.copytree(world / "model", world / "calibrated")
    evaluate(world, "--calibrate", "--table", f"{world}/one.jsonl", model="calibrated")
    assert "temperature" in capsys.readouterr().out
    fitted = cross_fit_temperature(ScoreTable.read(world / "one.jsonl").pairs()).value
    before, after = Contract.read(world / "model"), Contract.read(world / "calibrated")
    assert before.temperature is None
    assert after.temperature == pytest.approx(fitted)
    assert after.hash == before.hash
    assert RewardModel.load(world / "calibrated").contract.temperature == after.temperature
    evaluate(world, "--table", f"{world}/two.jsonl", model="calibrated")
    assert (world / "one.jsonl").read_bytes() == (world / "two.jsonl").read_bytes()


def test_nothing_is_written_without_a_contract_or_a_fit(world, capsys):
    shutil.copytree(world / "model", world / "bare")
    (world / "bare" / FILE).unlink()
    with pytest.raises(SystemExit):
        evaluate(world, "--calibrate", model="bare")
    assert FILE in capsys.readouterr().err
    (world / "few.jsonl").write_text("".join((world / "data.jsonl").read_text().splitlines(keepends=True)[:6]))
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", f"{world}/model", "--data", f"{world}/few.jsonl", "--calibrate"])
    assert "nothing was written" in capsys.readouterr().err
    assert Contract.read(world / "model").temperature is None
