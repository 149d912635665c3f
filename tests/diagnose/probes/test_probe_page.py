"""What people see: every probe in the table, on the chart and on the page, with its verdict and its remedy."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console
from test_measure import Rule, comparisons, facts, noise
from tiny_models import chat

from guerdon.cli import main
from guerdon.data.write import write_jsonl
from guerdon.diagnose.probe_charts import forest
from guerdon.diagnose.probes.advice import advice, finding, headline, wanted
from guerdon.diagnose.probes.catalog import PROBES
from guerdon.diagnose.probes.measure import measure
from guerdon.diagnose.probes.page import write_page
from guerdon.diagnose.probes.render import render
from guerdon.diagnose.probes.results import Effect, Independence, ProbeReport, ProbeResult
from guerdon.train.config import TrainConfig
from guerdon.train.loop import fit

PAGE = (Path(__file__).parents[3] / "docs" / "probes.md").read_text(encoding="utf-8")


def biased(prompt, answer):
    return facts(prompt, answer) + len(answer) / 60 + 0.2 * noise(prompt, answer)


@pytest.fixture(scope="module")
def report():
    return measure(Rule(biased), comparisons(24), limit=None)


@pytest.fixture(scope="module")
def unsure():
    return measure(Rule(noise), comparisons(24), limit=None)


def text(report, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(report))
    return console.export_text()


def test_the_table_fits_a_narrow_terminal_and_names_every_probe(report):
    shown = text(report, 80)
    assert all(probe.name.split()[0] in shown for probe in PROBES)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert shown.index("padding") < shown.index("flattery")  # what fails comes first
    assert "By dose" in shown


def test_advice_quotes_the_numbers_and_the_remedy(report, unsure):
    padding = report.probes[0]
    line = finding(padding)
    assert f"{padding.worst.effect:+.2f} SD" in line
    assert PROBES[0].remedy in line
    assert f"{100 * padding.worst.flip_rate:.0f} % of right orders" in line
    assert len(advice(report)) == len(report.named("biased")) == 3
    assert headline(report).startswith("Of 25 probes 3 find a fault")
    assert wanted(report) == []
    joined = " ".join(wanted(unsure))
    assert all(probe.name in joined for probe in unsure.named("unclear"))


def test_the_chart_says_what_it_shows_and_is_the_same_again(report):
    svg = forest(report.probes)
    assert svg == forest(report.probes)
    assert "padding" in svg
    assert f"padding {report.probes[0].worst.effect:+.2f}, biased" in svg
    assert "var(--warm)" in svg
    assert "var(--accent)" in svg


def test_the_page_stands_alone_and_escapes(report, tmp_path):
    write_page(tmp_path / "p.html", report, title="<b>model</b>", facts={"data": "a & b"})
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<b>model" not in page
    assert "&lt;b&gt;model" in page
    assert not re.search(r'(?:src|href)="http', page)
    assert page.count("<figure>") == 1
    for probe in PROBES:
        assert probe.name in page
    assert "Does it read the prompt?" in page


def test_a_report_without_any_effect_still_shows(tmp_path):
    nothing = measure(Rule(lambda p, a: 0.0), comparisons(12), limit=None)
    write_page(tmp_path / "p.html", nothing, title="constant")
    assert "<figure" not in (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "same reward" in text(nothing)


def test_every_probe_and_every_key_is_defined_in_the_docs():
    names = [field.name for record in (Effect, ProbeResult, Independence, ProbeReport) for field in fields(record)]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    assert [probe.name for probe in PROBES if f"| {probe.name.split(':')[0]} |" not in PAGE] == []


def test_the_command_writes_json_and_html(make_backbone, tmp_path, capsys):
    write_jsonl(tmp_path / "data.jsonl", comparisons(8))
    base = make_backbone(tmp_path / "base")
    config = TrainConfig(
        data=(f"{tmp_path}/data.jsonl",),
        model=str(base),
        output=f"{tmp_path}/run",
        eval_fraction=0,
        max_steps=1,
        batch_size=8,
        max_length=64,
    )
    model = fit(config, say=lambda line: None).model
    arguments = ["diagnose", "probes", "--model", str(model), "--data", f"{tmp_path}/data.jsonl", "--limit", "2"]
    main([*arguments, "--json", f"{tmp_path}/p.json", "--html", f"{tmp_path}/p.html"])
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["comparisons"] == 2
    assert found["left_out"] == 6
    assert [probe["name"] for probe in found["probes"]] == [probe.name for probe in PROBES]
    assert {probe["verdict"] for probe in found["probes"]} == {"unclear"}  # two prompts are too few for any claim
    assert any(effect["truncated"] for probe in found["probes"] for effect in probe["effects"])
    assert "cut by the context" in " ".join(found["warnings"])
    assert (tmp_path / "p.html").stat().st_size > 20_000
    assert "2 comparisons from 2 prompts" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        main([*arguments[:-1], "0"])
    assert "--limit must be 1 or more" in capsys.readouterr().err


def test_conversations_with_earlier_turns_are_probed_in_the_last():
    seen = []

    class Watch:
        def score(self, conversations):
            seen.extend(conversations)
            return Rule(facts).score(conversations)

    rows = comparisons(12)
    earlier = tuple(chat("Hello.", "Hi."))
    long = [type(row)(earlier + row.prompt, row.completions, row.ranks, id=row.id) for row in rows]
    measure(Watch(), long, limit=None)
    asked = [c for c in seen if len(c) == 4]
    assert asked
    assert all(c[:2] == earlier for c in asked)
