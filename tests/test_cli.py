"""The commands as a script meets them: names, files, exit codes, and one-sentence errors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tiny_models import chat

from guerdon.cli import COMMANDS, main
from guerdon.data.write import write_jsonl
from guerdon.model.reward import RewardModel
from guerdon.types import Comparison


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_backbone):
    """Comparisons, a base model, and a reward model trained for a few steps from the command line."""
    folder = tmp_path_factory.mktemp("cli")
    rows = [
        Comparison(tuple(chat(f"question {i}")), (({"role": "assistant", "content": f"yes {i}"},), ({"role": "assistant", "content": f"no {i}"},)), (1, 2), id=f"r{i}")
        for i in range(60)
    ]  # fmt: skip
    write_jsonl(folder / "data.jsonl", rows)
    make_backbone(folder / "base")
    main(
        [
            "train",
            "--data",
            f"{folder}/data.jsonl",
            "--model",
            f"{folder}/base",
            "--output",
            f"{folder}/run",
            "--seed",
            "3",
            "--epochs",
            "1",
            "--max-length",
            "128",
            "--batch-size",
            "8",
            "--learning-rate",
            "3e-3",
        ]
    )
    return folder


def failing(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("guerdon: ")
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def test_check_writes_json(world, capsys):
    main(["check", f"{world}/data.jsonl", "--json", f"{world}/check.json"])
    assert json.loads((world / "check.json").read_text())["comparisons"] == 60
    assert "60" in capsys.readouterr().out


def test_check_counts_tokens_with_a_model(world):
    main(
        ["check", f"{world}/data.jsonl", "--model", f"{world}/base", "--max-length", "12", "--json", f"{world}/c.json"]
    )
    text = (world / "c.json").read_text()
    assert '"tokens"' in text


def test_evaluate_writes_the_promised_keys(world):
    main(["evaluate", "--model", f"{world}/run/model", "--data", f"{world}/data.jsonl", "--json", f"{world}/e.json"])
    found = json.loads((world / "e.json").read_text())
    assert {"accuracy", "accuracy_low", "accuracy_high", "n", "ties", "nll", "ece", "longer_wins"} <= found.keys()
    assert found["n"] == 60
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]


def test_score_gives_one_row_per_row_in_order_equal_to_python(world):
    rows = [
        {"prompt": "question 1", "completion": "yes"},
        {"prompt": "question 1", "completions": ["yes", "no", "perhaps"]},
        {"prompt": [{"role": "user", "content": "question 2"}], "completions": ["a", "b"]},
        {"messages": chat("hi", "there")},
        {"prompt": "question 3"},
    ]
    (world / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["score", "--model", f"{world}/run/model", "--data", f"{world}/in.jsonl", "--output", f"{world}/out.jsonl"])
    found = [json.loads(line) for line in (world / "out.jsonl").read_text().splitlines()]
    assert [len(row["scores"]) for row in found] == [1, 3, 2, 1, 0]
    assert [row["status"] for row in found] == ["ok", "ok", "ok", "ok", "error"]
    model = RewardModel.load(world / "run" / "model")
    expected = model.score([chat("question 1", answer) for answer in ("yes", "no", "perhaps")])
    assert found[1]["scores"] == pytest.approx([float(s) for s in expected], abs=1e-5)
    assert found[0]["scores"] == pytest.approx([float(expected[0])], abs=1e-5)


def test_flags_win_over_the_config_file_and_the_resolved_config_is_saved(world):
    (world / "c.yaml").write_text(f"data: {world}/data.jsonl\nmodel: {world}/base\nmax_steps: 1\nseed: 7\n")
    main(["train", "--config", f"{world}/c.yaml", "--output", f"{world}/run2", "--seed", "8"])
    saved = (world / "run2" / "config.yaml").read_text()
    assert "seed: 8" in saved
    assert "max_steps: 1" in saved
    assert "learning_rate: 0.0001" in saved  # the default that was chosen by size


def test_resume_from_the_command_line_of_a_finished_run(world, capsys):
    main(["train", "--config", f"{world}/run2/config.yaml", "--resume"])
    assert "complete" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_every_command(command):
    done = subprocess.run([sys.executable, "-m", "guerdon", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "usage: guerdon " + command in done.stdout


def test_overview_names_every_command(capsys):
    main([])
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in COMMANDS)


def test_mistakes_are_one_sentence(world, tmp_path, capsys):
    data = f"{world}/data.jsonl"
    assert "did you mean evaluate" in failing(["evalute"], capsys)
    assert "--data is missing" in failing(["train", "--model", "x", "--output", str(tmp_path)], capsys)
    assert "already holds a run" in failing(
        ["train", "--data", data, "--model", f"{world}/base", "--output", f"{world}/run"], capsys
    )
    assert "gone.jsonl" in failing(["check", f"{world}/gone.jsonl"], capsys)
    assert "no trained score head" in failing(["evaluate", "--model", f"{world}/base", "--data", data], capsys)
    assert "no such model folder" in failing(["evaluate", "--model", "./none", "--data", data], capsys)
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty.jsonl" in failing(
        ["evaluate", "--model", f"{world}/run/model", "--data", f"{tmp_path}/empty.jsonl"], capsys
    )
    score = ["score", "--model", f"{world}/run/model", "--data", data, "--output", f"{tmp_path}/o.jsonl"]
    main(score)
    capsys.readouterr()
    assert "--overwrite" in failing(score, capsys)
    assert "cannot be written" in failing(["check", data, "--json", f"{tmp_path}/empty.jsonl/c.json"], capsys)


def test_a_checkpoint_that_scores_otherwise_is_refused_with_one_sentence(world, tmp_path, capsys):
    import shutil

    shutil.copytree(world / "run" / "model", tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    message = failing(["evaluate", "--model", f"{tmp_path}/model", "--data", f"{world}/data.jsonl"], capsys)
    assert "chat template" in message
