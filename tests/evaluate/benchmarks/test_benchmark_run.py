"""The runner: any scorer through any benchmark, trivial rows, score tables, the protocol record, the command."""

import json
import math

import numpy as np
import pytest
from tiny_models import chat

from guerdon.cli import main
from guerdon.data.read import load as read_comparisons
from guerdon.data.split import prompt_key
from guerdon.evaluate.benchmarks.item import make_item, matrix
from guerdon.evaluate.benchmarks.protocol import Protocol, batch_difference, record
from guerdon.evaluate.benchmarks.render import render
from guerdon.evaluate.benchmarks.run import BENCHMARKS, find, run, run_scores, trivial
from guerdon.evaluate.benchmarks.score_table import write_score_table
from guerdon.evaluate.metrics import evaluate
from guerdon.evaluate.table import ScoreTable
from guerdon.model.reward import RewardModel
from guerdon.terminal import show
from guerdon.types import ConfigError, DataError, Score


class Lengths:
    """Scores the length of the last message; cuts at 20 characters, and refuses the text `fail`."""

    fingerprint = "lengths"
    dtype = "float64"

    def score(self, conversations):
        texts = [conversation[-1]["content"] for conversation in conversations]
        return [
            Score(math.nan, "error", reason="refused") if text == "fail" else Score(len(text), truncated=len(text) > 20)
            for text in texts
        ]


class Drifting(Lengths):
    """Adds a tenth of the batch size: what a padding bug does."""

    def score(self, conversations):
        return [Score(float(score) + len(conversations) / 10) for score in super().score(conversations)]


def items():
    return [make_item(f"i{n}", "honest", f"q{n}", ["x" * (n % 5 + 2), "x" * 3], [True, False]) for n in range(40)]


def test_a_scorer_of_length_is_the_longer_row():
    seen = []
    report, scores = run(find("hhh"), items(), Lengths(), model="lengths", advance=seen.append)
    assert sum(seen) == 80
    assert report.rows["lengths"] == report.trivial["longer"]
    assert report.rows["lengths"].overall.value == pytest.approx(3 / 5)
    assert report.trivial["shorter"].overall.value == pytest.approx(1 / 5)
    assert report.trivial["constant"].overall.value == 0
    assert report.trivial["random"].overall.value == pytest.approx(0.5, abs=1e-12)
    assert math.isnan(report.trivial["random"].overall.low)
    assert scores.shape == (40, 2)
    assert json.loads(json.dumps(report.to_dict()))["trivial"]["random"]["overall"]["low"] is None


def test_chance_of_the_best_of_ten():
    ten = [make_item(str(n), "", f"q{n}", ["x"] * 10, [True] + [False] * 9) for n in range(300)]
    chance = trivial(find("rewardmath"), ten)["random"]
    assert chance.overall.value == pytest.approx(0.1, abs=0.01)
    assert chance.details["MRR"].value == pytest.approx(sum(1 / k for k in range(1, 11)) / 10, abs=0.01)


def test_the_record_counts_truncation_failures_and_batch_dependence():
    conversations = [chat("q", "x" * n) for n in range(19, 29)] + [chat("q", "fail")]
    scorer = Lengths()
    found = record(scorer, conversations, scorer.score(conversations), facts={"max_length": 20, "template_hash": "ab"})
    assert (found.conversations, found.truncated, found.failed) == (11, 8, 1)
    assert found.truncation_rate == pytest.approx(8 / 11)
    assert (found.fingerprint, found.dtype, found.max_length, found.template_hash) == ("lengths", "float64", 20, "ab")
    assert (found.batch_difference, found.batch_checked) == (0.0, 10)
    assert found.reward_std == pytest.approx(np.std(range(19, 29)))
    assert found.versions is not None
    assert "numpy" in found.versions
    assert [line.split()[0] for line in found.warnings()] == ["72.7", "1"]
    assert batch_difference(Drifting(), conversations[:10])[0] == pytest.approx(0.9)
    drifted = record(Drifting(), conversations[:10], Drifting().score(conversations[:10]))
    assert any(line.startswith("Scores depend on the batch") for line in drifted.warnings())
    assert batch_difference(Lengths(), []) == (None, 0)


def test_the_record_of_a_file_knows_only_the_file():
    known = {name: value for name, value in Protocol(scores="f").to_dict().items() if value is not None}
    assert known == {"scores": "f"}


def test_a_written_table_measures_the_same(tmp_path):
    report, scores = run(find("hhh"), items(), Lengths(), model="m")
    write_score_table(tmp_path / "t.jsonl", "hhh", items(), {"m": scores})
    again = run_scores(find("hhh"), tmp_path / "t.jsonl")
    assert again.rows["m"] == report.rows["m"]
    assert again.trivial == report.trivial
    assert "x" * 3 not in (tmp_path / "t.jsonl").read_text()
    with pytest.raises(DataError, match="scores of hhh, not of hh"):
        run_scores(find("hh"), tmp_path / "t.jsonl")
    with pytest.raises(ConfigError, match=r"written as \.jsonl"):
        write_score_table(tmp_path / "t.json", "hhh", items(), {"m": scores})
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="not a table that guerdon benchmark --table wrote"):
        run_scores(find("hhh"), tmp_path / "other.jsonl")


def test_nothing_scored_is_no_number():
    """Every candidate of every item failed: undefined everywhere, counted, and never 0."""
    for name, benchmark in BENCHMARKS.items():
        marks = [True] * 3 + [False] * 3 if name == "rm-bench" else [True, False]
        category = {"rewardbench": "math-prm", "rewardbench2": "Math", "rm-bench": "chat", "llmbar": "Manual"}.get(
            name, "c"
        )
        failed = [make_item(str(n), category, f"q{n}", ["x"] * len(marks), marks) for n in range(3)]
        result = benchmark.measure(failed, matrix(failed, [[math.nan] * len(marks)] * 3))
        assert math.isnan(result.overall.value), name
        assert (result.items, result.unscored) == (0, 3), name


def test_data_without_texts_are_not_scored():
    bare = [type(item)(item.id, item.category, item.correct, item.group) for item in items()]
    with pytest.raises(DataError, match="hold no texts to score"):
        run(find("hhh"), bare, Lengths())
    assert set(trivial(find("hhh"), bare)) == {"constant", "random"}
    with pytest.raises(ConfigError, match="there is no benchmark 'mmlu'"):
        find("mmlu")


def test_hhh_on_its_data(real_data):
    benchmark = BENCHMARKS["hhh"]
    report, _ = run(benchmark, benchmark.load(str(real_data / "hhh-alignment")), Lengths())
    result = report.rows["model"]
    assert {name: estimate.n for name, estimate in result.categories.items()} == {
        "helpful": 50,
        "honest": 55,
        "harmless": 50,
        "other": 40,
    }
    assert (result.items, result.prompts) == (195, 90)
    assert result.details["macro average"].value == pytest.approx(
        np.mean([estimate.value for estimate in result.categories.values()])
    )


def test_hh_agrees_with_the_evaluation_of_the_same_file(real_data):
    """`evaluate` counts a tie of scores one half, the benchmark counts it wrong; otherwise they are one number."""
    path = real_data / "hh-rlhf" / "harmless-base" / "test.jsonl.gz"
    benchmark = BENCHMARKS["hh"]
    report, _ = run(benchmark, benchmark.load(str(path)), Lengths())
    result = report.rows["model"]
    comparisons = read_comparisons(path).comparisons
    scorer = Lengths()
    scores = [scorer.score(comparison.conversations()) for comparison in comparisons]
    e = evaluate(ScoreTable.build(comparisons, scores, prompt_keys=[prompt_key(c) for c in comparisons]), resamples=50)
    assert (result.items, result.ties, result.unscored, result.prompts) == (e.n, e.score_ties, e.unscored, e.prompts)
    assert result.overall.value == pytest.approx(e.accuracy - e.score_ties / 2 / e.n)


@pytest.fixture(scope="module")
def model(tmp_path_factory, make_backbone):
    """A saved reward model with a drawn head that claims to be trained."""
    folder = tmp_path_factory.mktemp("bench")
    start = RewardModel.load(make_backbone(folder / "base"), device="cpu", max_length=64)
    start.save(folder / "model")
    return folder / "model"


def test_the_command_scores_a_model(model, tmp_path, capsys):
    rows = [{"prompt": f"q{n}", "chosen": "yes " * (n % 4), "rejected": "no", "source": "honest"} for n in range(1, 12)]
    (tmp_path / "hhh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row["chosen"]))
    out, table = tmp_path / "r.json", tmp_path / "t.jsonl"
    main(["benchmark", "hhh", "--data", f"{tmp_path}/hhh.jsonl", "--model", str(model), "--json", str(out), "--table", str(table)])  # fmt: skip
    report = json.loads(out.read_text())
    protocol = report["protocol"]
    assert protocol["dtype"] == "float32"
    assert protocol["max_length"] == 64
    assert len(protocol["template_hash"]) == len(protocol["fingerprint"]) == 16
    assert protocol["batch_difference"] < 1e-3
    assert protocol["truncated"] == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("overall", "longer", "random", "Protocol", "template hash", "macro average"))
    main(["benchmark", "hhh", "--scores", str(table), "--json", str(tmp_path / "again.json")])
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["rows"] == report["rows"]
    assert again["protocol"]["template_hash"] is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["hhh"], "give either --model or --scores"),
        (["hhh", "--model", "m", "--scores", "s"], "give either --model or --scores"),
        (["hhh", "--scores", "s", "--table", "t.jsonl"], "--table writes the scores of a model"),
        (["llmbar", "--model", "m"], "LLMBar has no hub set"),
        (["nothing", "--model", "m"], "there is no benchmark"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, text, capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", *arguments])
    assert text in capsys.readouterr().err


def test_names_are_shown_as_text(capsys):
    report, _ = run(find("hhh"), items(), Lengths(), model="[red]m[/red]")
    show(render(report))
    assert "[red]m[/red]" in capsys.readouterr().out
