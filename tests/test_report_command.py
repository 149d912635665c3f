"""A finished run becomes a page and a model card, by `guerdon train` itself and again by `guerdon diagnose report`."""

from __future__ import annotations

import pytest
import yaml
from tiny_models import chat

from guerdon.cli import main
from guerdon.data.write import write_jsonl
from guerdon.evaluate.candidates import CandidateTable
from guerdon.types import Comparison


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_backbone):
    """A run of `guerdon train` on a few comparisons, with an ensemble."""
    folder = tmp_path_factory.mktemp("report")
    said = lambda text: ({"role": "assistant", "content": text},)  # noqa: E731
    rows = [
        Comparison(tuple(chat(f"question {i}")), (said(f"yes {i}"), said(f"no {i}")), (1, 2), id=f"r{i}")
        for i in range(60)
    ]
    write_jsonl(folder / "data.jsonl", rows)
    make_backbone(folder / "base")
    main(
        f"train --data {folder}/data.jsonl --model {folder}/base --output {folder}/run --max-length 256 --batch-size 8 "
        "--learning-rate 3e-3 --eval-fraction 0.2 --probes 4 --ensemble 2".split()
    )
    return folder / "run"


def test_train_leaves_a_page_and_a_card_beside_the_weights(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "How good is it?" in page
    assert "How can it be gamed?" in page
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    for heading in ("## Data", "## Training", "## Evaluation", "## Probes", "## Known weaknesses"):
        assert heading in card


def test_it_can_be_written_again_with_other_data_and_a_pool(run, capsys):
    pool = CandidateTable.build(
        [f"p{i // 6}" for i in range(120)],
        [float(i % 6) for i in range(120)],
        gold=[float((i * 7) % 5) for i in range(120)],
    )
    pool.write(run.parent / "pool.jsonl")
    page = run.parent / "again.html"
    main(
        f"diagnose report {run} --data {run.parent}/data.jsonl --output {page} --probes 0 --pool {run.parent}/pool.jsonl "
        "--agreement 0.75".split()
    )
    text = page.read_text(encoding="utf-8")
    assert "Does gold follow the reward?" in text
    assert "How can it be gamed?" not in text
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "| ceiling | 75.0 to 85.4 % |" in card
    assert "Not probed" in card


def test_an_unfinished_run_is_refused_with_a_remedy(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["diagnose", "report", str(tmp_path)])
    assert "holds no finished run" in capsys.readouterr().err


def test_evaluate_writes_a_page(run):
    main(f"evaluate --model {run}/model --data {run.parent}/data.jsonl --html {run.parent}/evaluation.html".split())
    assert (
        "Where is it most wrong?" in (run.parent / "evaluation.html").read_text()
        or "How good" in (run.parent / "evaluation.html").read_text()
    )
