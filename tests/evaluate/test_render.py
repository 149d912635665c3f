"""The terminal table shows the numbers that the record holds."""

import io

from rich.console import Console
from test_metrics import make_table, random_table

from guerdon.evaluate.metrics import ceiling, evaluate
from guerdon.evaluate.render import render
from guerdon.evaluate.sheet import calibrate


def show(evaluation, width=120, **options):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(evaluation, **options))
    return console.file.getvalue()


def test_accuracy_stands_beside_its_baselines_and_ceiling():
    e = evaluate(random_table())
    text = show(e, ceiling=(0.63, 0.755), title="test")
    assert f"test: 300 decided pairs from {e.prompts} prompts" in text
    assert f"{100 * e.accuracy_low:.1f} to {100 * e.accuracy_high:.1f}" in text
    assert f"{100 * e.accuracy:.1f} %" in text
    assert f"{100 * e.longer_wins:.1f} %" in text
    assert "63.0 to 75.5" in text
    assert "gold" not in show(evaluate(make_table([[1, 0]] * 4, [[1, 2]] * 4)))


def test_the_share_of_the_ceiling_is_said():
    e = evaluate(make_table([[1, 0]] * 72 + [[0, 1]] * 28, [[1, 2]] * 100))
    assert "72.0 % is 96 % of what these labels allow." in show(e, ceiling=0.75)
    assert "72.0 % is 87 to 100 % of what these labels allow." in show(e, ceiling=ceiling(0.72))
    assert "these labels allow" not in show(e)


def test_the_calibration_sheet_is_shown_in_eighty_columns():
    table = random_table()
    text = show(evaluate(table), calibration=calibrate(table), width=80)
    assert all(line in text for line in ("temperature", "surest 25 %", "AURC", "trust above", "length removed"))
    assert f"{100 * calibrate(table).selective['25']:.1f} %" in text
    assert "temperature" not in show(evaluate(table))


def test_sources_and_titles_are_text_not_markup():
    table = make_table([[1, 0]] * 4, [[1, 2]] * 4, source=["[red]a[/red]", "[b]", "[b]", "c"])
    text = show(evaluate(table), title="runs/[bold]x")
    assert "runs/[bold]x: 4 decided" in text
    assert "[red]a[/red]" in text
    assert "By source" in text


def test_warnings_and_missing_numbers():
    text = show(evaluate(make_table([[1, 1], [2, 2]], [[1, 1], [1, 1]])))
    assert "! No pair could be measured" in text
    assert "nan" not in text
