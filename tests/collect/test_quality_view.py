"""What the quality page writes: numbers of a study whose answers are known, in the right tile, cell and place of the picture."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

pytest.importorskip("starlette", reason="guerdon collect is an extra")

from guerdon.collect.quality import Review, quality
from guerdon.collect.spending import Spent
from guerdon.collect.web.charts import Panel, panels
from guerdon.collect.web.quality_view import cost_of, doubts_of, sections_of, seen, tiles_of
from guerdon.commands.collect_quality import _render
from guerdon.types import Judgement, Question


def study(questions=30):
    """Rater a always takes candidate 0, rater b does on two questions of three; a looks at each again with sides swapped
    and then takes the first shown, so one of the two answers on a question names each candidate."""
    found = []
    for i in range(questions):
        asked = ({"role": "user", "content": f"Question {i}?"},)
        answers = tuple(({"role": "assistant", "content": text},) for text in (f"yes {i}", f"no {i}, and more"))
        question = Question(asked, answers, id=f"q{i}")
        for rater, ranks, order, arm in (
            ("a", (1.0, 2.0), (0, 1), "random"),
            ("b", (1.0, 2.0) if i % 3 else (2.0, 1.0), (1, 0), "random"),
            ("a", (2.0, 1.0), (1, 0), "repeat"),
        ):
            found.append(
                Judgement(
                    f"{rater}{i}{arm}",
                    rater,
                    "human",
                    question,
                    order,
                    "ranked",
                    ranks,
                    shown_at=1e9,
                    submitted_at=1e9 + 20,
                    arm=arm,
                )
            )
    return quality(found)


def test_tiles_say_the_numbers_of_the_study():
    found = {tile.name: tile for tile in tiles_of(study())}
    assert found["Two raters agree"].value == "66.7\u202f%"
    assert found["Same answer again"].value == "0.0\u202f%"
    assert found["Same answer again"].note.endswith("of 30 repeats with sides swapped")
    assert found["Side bias"].value == "+50.0 points"  # the first shown always won
    assert found["Speed"].value == "20 s"
    assert found["From the random arm"].value == "66.7\u202f%"
    assert found["Gold items right"].value == "–"


def test_raters_stand_in_the_table_with_their_rates():
    raters = sections_of(study())[0]
    cells = {row[0]: dict(zip(raters.header, row, strict=True)) for row in raters.rows}
    assert cells["a"]["judgements"] == "60"
    assert cells["a"]["first shown wins"] == ("100\u202f%", "94 to 100")  # Wilson, 60 of 60
    assert cells["a"]["longer wins"] == ("50\u202f%", "38 to 62")  # 30 of 60
    assert cells["b"]["longer wins"] == ("33\u202f%", "19 to 51")  # 10 of 30
    assert cells["b"]["first shown wins"] == ("33\u202f%", "19 to 51")
    assert cells["b"]["gold right"] == "–"
    assert len(re.findall("<circle", str(raters.chart))) >= 2


def test_a_couple_is_one_entry_that_names_both():
    found = replace(study(), review=[Review("a", "slow"), Review("a", "agree", "b"), Review("a", "wrong")])
    assert [(doubt.raters, doubt.reasons) for doubt in doubts_of(found)] == [
        (("a",), ["slow", "wrong"]),
        (("a", "b"), ["agree"]),
    ]


@pytest.mark.parametrize("order", [(0, 1), ()])
def test_page_and_command_show_skill_and_side_bias_of_the_same_raters(order):
    """One rater alone has no skill, but a side bias as soon as an order was recorded."""
    answers = tuple(({"role": "assistant", "content": text},) for text in ("yes", "no, not at all"))
    given = []
    for i in range(30):
        asked = Question(({"role": "user", "content": f"{i}?"},), answers, id=f"q{i}")
        given.append(Judgement(f"j{i}", "alone", "human", asked, order, "ranked", (1.0, 2.0), arm="random"))
    found = quality(given)
    section = sections_of(found)[0]
    page = dict(zip(section.header, section.rows[0], strict=True))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(_render(found))
    command = next(line for line in console.export_text().splitlines() if line.startswith("alone")).split()
    assert page["skill"] == "–"
    assert command[3] == "?"
    if order:
        assert page["side bias"][0] == command[4]
        assert float(command[4]) > 0.2
    else:
        assert (page["side bias"], command[4]) == ("–", "?")


def test_small_costs_are_not_nothing():
    bills = [Spent("m", "rate", 2, 10, 5, cost) for cost in (0.0037, 0.0000126, 1234.5, 0.0, None)]
    assert [row[-1] for row in cost_of(bills).rows] == ["0.0037", "0.000013", "1,234.50", "0.00", "no price given"]


def test_nothing_judged_makes_no_section():
    assert sections_of(quality([])) == []
    tiles = tiles_of(quality([]))
    assert {tile.value for tile in tiles} <= {"–", "– s", "100.0\u202f%"}
    assert "nan" not in str(tiles)


def test_a_panel_puts_values_where_its_axis_says_and_cuts_whiskers_off():
    drawn = str(panels(["one", "<two>"], [Panel("Skill", 0, 2, 1, [(1.0, -1.0, 3.0), None])], "Raters"))
    whisker = re.search(r'whisker" x1="([\d.]+)" x2="([\d.]+)"', drawn)
    middle = re.search(r'half" x1="([\d.]+)"', drawn)
    dot = re.search(r'cx="([\d.]+)"', drawn)
    axis = re.search(r'axis" x1="([\d.]+)" x2="([\d.]+)"', drawn)
    assert whisker.groups() == axis.groups()
    assert float(dot[1]) == float(middle[1]) == pytest.approx(sum(map(float, axis.groups())) / 2, abs=0.1)
    assert "&lt;two&gt;" in drawn
    assert "<two>" not in drawn
    assert len(re.findall("<circle", drawn)) == 1
    assert drawn.count("‹") == drawn.count("›") == 1  # both ends of the whisker lie beyond the axis


def test_a_panel_leaves_unknown_values_out():
    drawn = str(panels(["one", "two"], [Panel("Gold", 0, 1, 0.7, [None, (math.nan, math.nan, math.nan)])], "Raters"))
    assert "<circle" not in drawn
    assert "Gold: nothing known" in drawn


@pytest.mark.parametrize(
    ("ranks", "places"),
    [
        ((0.0, 1.0), ["1st", "2nd"]),
        ((1.0, 1.0), ["tie", "tie"]),
        ((3.0, 0.0, 3.0), ["2nd, tied", "1st", "2nd, tied"]),
        ((4.0, 1.0, 3.0, 2.0), ["4th", "1st", "3rd", "2nd"]),
    ],
)
def test_a_judgement_is_shown_with_places_and_not_with_our_numbers(ranks, places):
    answers = tuple(({"role": "assistant", "content": f"answer {i}"},) for i in range(len(ranks)))
    asked = Question(({"role": "user", "content": "p"},), answers)
    judgement = Judgement("x", "r", "human", asked, tuple(range(len(ranks))), "ranked", ranks)
    assert [place for _, place in seen(judgement).answers] == places
