"""The report: self-contained, safe against its own texts, the same bytes each time, right in what it advises."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from guerdon.diagnose.advice import advise, overfitting
from guerdon.diagnose.charts import margin_histogram, reliability_diagram, training_curve
from guerdon.diagnose.mistakes import worst_mistakes
from guerdon.diagnose.page import MOST, passage
from guerdon.diagnose.report import write_report
from guerdon.evaluate.calibration import reliability
from guerdon.evaluate.metrics import ceiling, evaluate
from guerdon.evaluate.table import ScoreTable
from guerdon.types import Comparison, ConfigError

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> $x^2$ & \"'"


def comparison(i, chosen="good", rejected="bad", prompt="?", ranks=(1, 2), source="set"):
    completions = tuple(({"role": "assistant", "content": text},) for text in (chosen, rejected))
    return Comparison(({"role": "user", "content": prompt},), completions, ranks, source=source, id=f"file:{i}")


def build(scores, rows=None, gold=None, prompts=None):
    rows = rows or [comparison(i) for i in range(len(scores))]
    keys = prompts or [row.id for row in rows]
    return ScoreTable.build(rows, scores, prompt_keys=keys, gold=gold), rows


def random_case(n=200, seed=0, edge=0.8, **fields):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 2)) + np.array([edge, 0.0])
    lengths = rng.integers(1, 9, size=(n, 2))
    rows = [comparison(i, "c" * a, "r" * b, f"prompt {i}", **fields) for i, (a, b) in enumerate(lengths)]
    return *build(scores.tolist(), rows, gold=(scores + 0.1).tolist()), rng


METRICS = [{"step": s, "loss": 0.7 - s / 1000, "accuracy": 0.5 + s / 500} for s in range(1, 101)] + [
    {"step": s, "eval_nll": 0.69 - s / 2000, "eval_accuracy": 0.6} for s in (50, 100)
]


def report(tmp_path, name="report.html", **options):
    table, rows, _ = random_case()
    defaults = {
        "title": "A model",
        "evaluations": {"test": evaluate(table)},
        "tables": {"test": table},
        "metrics": METRICS,
        "ceiling": ceiling(0.72),
        "examples": worst_mistakes(table, rows, 3),
        "facts": {"data": "lab"},
    }
    write_report(tmp_path / name, **(defaults | options))
    return (tmp_path / name).read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is closed but not open."""

    VOID = ("meta", "br", "img", "path", "use", "rect")

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.references, self.open, self.words = [], [], [], [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs, closed=False):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        self.references += [value for key, value in attrs if key in ("href", "src", "action", "srcset")]
        if not closed and tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs, closed=True)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def test_the_page_stands_alone(tmp_path):
    html = report(tmp_path)
    page = Page(html)
    assert sum(tag == "svg" for tag, _ in page.tags) == 6
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", html)
    assert all(reference.startswith("#") for reference in page.references)
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in page.tags}
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_ids_are_unique_and_every_reference_has_one(tmp_path):
    one, _, _ = random_case(seed=1)
    two, _, _ = random_case(seed=2)
    tables = {"one": one, "two": two}
    html = report(tmp_path, tables=tables, evaluations={name: evaluate(table) for name, table in tables.items()})
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    used = [reference.removeprefix("#") for reference in page.references] + re.findall(r"url\(#([^)]+)\)", html)
    assert used
    assert set(used) <= set(page.ids)


def test_every_picture_has_words(tmp_path):
    pictures = [attributes for tag, attributes in Page(report(tmp_path)).tags if tag == "svg"]
    assert all(picture["role"] == "img" and re.search(r"\d", picture["aria-label"]) for picture in pictures)


def test_no_text_becomes_markup(tmp_path):
    rows = [comparison(i, ATTACK, ATTACK * 20, ATTACK * 20 + str(i), source=ATTACK) for i in range(4)]
    table, _ = build([[0, 1], [0, 2], [1, 0], [2, 0]], rows)
    html = report(
        tmp_path,
        title=ATTACK,
        run=ATTACK,
        evaluations={ATTACK: evaluate(table), ATTACK + "2": evaluate(table)},
        tables={ATTACK: table, ATTACK + "2": table},
        examples=worst_mistakes(table, rows),
        facts={ATTACK: ATTACK},
    )
    page = Page(html)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.text.count("<script>alert(1)</script>") >= 10


def test_odd_characters_survive_or_are_replaced(tmp_path):
    rows = [comparison(i, "完璧 \u202e \x00 \ud800", "悪い", f"質問 {i}") for i in range(3)]
    table, _ = build([[0, 1], [0, 2], [1, 0]], rows)
    html = report(
        tmp_path, evaluations={"評価": evaluate(table)}, tables={"評価": table}, examples=worst_mistakes(table, rows)
    )
    assert "完璧" in html
    assert "\ud800" not in html


def test_the_same_input_gives_the_same_bytes(tmp_path):
    assert report(tmp_path, "a.html") == report(tmp_path, "b.html")


def test_the_numbers_of_the_evaluation_are_on_the_page(tmp_path):
    table, _, _ = random_case()
    e = evaluate(table)
    text = Page(report(tmp_path)).text.replace("\u00a0", " ")
    assert f"in {100 * e.accuracy:.1f} % of 200 pairs from 200 prompts" in text
    assert f"{100 * e.accuracy_low:.1f} to {100 * e.accuracy_high:.1f}" in text
    assert f"wrong {100 * (1 - e.accuracy):.1f} %" in text
    assert "ceiling 72.0 to 83.2 %" in text
    assert "Held-out loss was still falling at the end (0.640 nats)" in text


def test_little_is_enough(tmp_path):
    write_report(tmp_path / "bare.html", title="Bare", evaluations={})
    assert Page((tmp_path / "bare.html").read_text()).text.count("Bare") == 2
    empty, _ = build([[1.0, 1.0]], [comparison(0, ranks=(1, 1))])
    html = report(
        tmp_path, evaluations={"test": evaluate(empty)}, tables={"test": empty}, metrics=[], examples=[], ceiling=0.7
    )
    assert "No pair could be measured" in html
    assert "nan" not in Page(html).text.lower().split()
    constant, _ = build([[1.0, 1.0]] * 20)
    html = report(
        tmp_path,
        evaluations={"test": evaluate(constant)},
        tables={"test": constant},
        metrics=[{"step": 1, "loss": None}],
    )
    assert "collapsed" in html


def test_a_failed_report_leaves_the_old_one(tmp_path, monkeypatch):
    old = report(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'guerdon\[report\]'"):
        report(tmp_path)
    assert (tmp_path / "report.html").read_text() == old


def test_colours_belong_to_the_page(tmp_path):
    """A colour written into a picture would not follow dark and light."""
    svgs = re.findall(r"<svg.*?</svg>", report(tmp_path), flags=re.DOTALL)
    assert {color for svg in svgs for color in re.findall(r"(?:fill|stroke|color): (#\w+|rgb.*?\))", svg)} == set()
    assert all("var(--ink)" in svg or "var(--muted)" in svg for svg in svgs)


def test_pictures_say_their_numbers():
    table, _ = build([[1, 0]] * 30 + [[0, 1]] * 10)
    pairs = table.pairs()
    assert "25.0 % of the pairs lie on the wrong side" in margin_histogram(pairs.margin)
    assert "73 % sure and 75 % right" in reliability_diagram(reliability(pairs))
    curve = training_curve([{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.5}], "loss", "eval_nll", 0.693)
    assert "training from 0.700 to 0.500" in curve
    assert "held-out" not in curve


def test_worst_mistakes_are_the_worst_one_per_prompt():
    rows = [comparison(i, f"c{i}", f"r{i}", ranks=(2, 1) if i == 3 else (1, 2)) for i in range(6)]
    scores = [[0, 1], [0, 5], [0, 4], [3, 0], [9, 0], [0, 0]]
    table, _ = build(scores, rows, prompts=["p", "q", "q", "r", "s", "t"])
    found = worst_mistakes(table, rows, 10)
    assert [(m.id, m.margin) for m in found] == [("file:1", -5.0), ("file:3", -3.0), ("file:0", -1.0)]
    assert (found[1].chosen, found[1].rejected, found[1].chosen_score, found[1].rejected_score) == (
        "r3",
        "c3",
        0.0,
        3.0,
    )
    assert [m.id for m in worst_mistakes(table, rows, 1)] == ["file:1"]
    with pytest.raises(ValueError, match="6 comparisons"):
        worst_mistakes(table, rows[:3])


@pytest.mark.parametrize("tail", [False, True])
def test_long_texts_lose_nothing_below_the_limit(tail):
    words = " ".join(f"w{i}" for i in range(900))
    seen = Page(passage(words, tail)).text
    assert [word for word in seen.split() if re.fullmatch(r"w\d+", word)] == words.split()
    huge = passage("x" * (3 * MOST), tail)
    assert len(huge) < 1.2 * MOST
    assert f"cut here: {3 * MOST:,}" in huge


def texts(advice):
    return [(item.is_warning, item.text) for item in advice]


def test_advice_follows_the_numbers():
    def found(scores, bound=None):
        rng = np.random.default_rng(5)
        lengths = rng.integers(1, 99, size=(len(scores), 2))
        table, _ = build(scores, [comparison(i, "c" * a, "r" * b) for i, (a, b) in enumerate(lengths)])
        return texts(advise(evaluate(table), bound, reliability(table.pairs())))

    strong = [[1.5, 0]] * 800 + [[0, 1.5]] * 200
    coin = [[1, 0]] * 200 + [[0, 1]] * 200
    assert any(not warning and "more than length" in text for warning, text in found(strong))
    assert found(coin)[0][0]
    assert "not shown to do better" in found(coin)[0][1]
    assert any(warning and "Suspect leakage" in text for warning, text in found(strong, (0.6, 0.7)))
    assert any("reached the range" in text for _, text in found(strong, (0.79, 0.9)))
    assert any("points are left" in text for _, text in found(strong, (0.9, 0.95)))
    assert any("too sure" in text for _, text in found([[9, 0]] * 800 + [[0, 9]] * 200))
    assert any("too timid" in text for _, text in found([[0.3, 0]] * 800 + [[0, 0.3]] * 200))
    assert not any("too sure" in text or "too timid" in text for _, text in found(strong))


def test_overfitting_is_seen():
    def rows(values):
        return [{"step": 10 * i, "eval_nll": value} for i, value in enumerate(values)]

    risen = overfitting(rows([0.69, 0.60, 0.66]))
    assert risen.is_warning
    assert "best at step 10 (0.600 nats) and rose to 0.660" in risen.text
    assert "still falling" in overfitting(rows([0.69, 0.62, 0.60])).text
    assert "level since" in overfitting(rows([0.69, 0.60, 0.605])).text
    assert overfitting(rows([0.69])) is None
