"""The numbers of the quality page, by hand where that can be done, and on planted raters."""

import json
import math
import sqlite3
from dataclasses import replace

import pytest

from guerdon.cli import main
from guerdon.collect.quality import quality
from guerdon.data.judgements import write_judgements
from guerdon.types import Question
from tests.data.study import said, simulate
from tests.data.test_judgements import ASKED, judged


def test_numbers_by_hand() -> None:
    given = [
        judged("1", "a", strength=None, shown_at=0.0, submitted_at=10.0, guideline=1),
        judged("2", "a", (1.0, 0.0), shown_at=10.0, submitted_at=20.0, guideline=2),
        judged("3", "b", (0.0, 0.0), shown_at=0.0, submitted_at=20.0, guideline=2),
        judged("4", "b", (), answer="skip", shown_at=20.0, submitted_at=60.0, guideline=2),
        judged("5", "m", kind="model"),
    ]
    found = quality(given)
    assert (found.judgements, found.answers, found.raters) == (4, {"ranked": 3, "skip": 1}, 2)
    assert found.per_hour == pytest.approx(3600 * 4 / 80)
    assert (found.seconds, found.per_day) == (15.0, 4.0)
    assert found.guidelines[2] == {"judgements": 3, "ties": 0.5, "unranked": pytest.approx(1 / 3), "seconds": 20.0}
    a = found.table[0]
    assert (a.rater, a.left.value, a.left.n) == ("a", 0.5, 2)
    assert quality(given, raters="model").judgements == 1


def test_gold_attention_and_repeats() -> None:
    given = [judged(f"g{i}", "a", (0.0, 1.0) if i < 3 else (1.0, 0.0), arm="gold") for i in range(12)]
    given += [judged(f"t{i}", "a", (1.0, 0.0), arm="attention") for i in range(2)]
    given += [judged("x", "b"), judged("y", "b", arm="repeat")]
    turned = given[-1].__class__(
        **{f: getattr(given[-1], f) for f in given[-1].__dataclass_fields__} | {"order": (1, 0)}
    )
    found = quality([*given[:-1], turned], gold={"q1": (0.0, 1.0)})
    assert (found.gold.value, found.gold.n, found.attention_failures) == (0.25, 12, 2)
    assert (found.consistency.value, found.consistency.n, found.swapped_side_bias) == (1.0, 1, 0.0)
    reasons = [item.reason for item in found.review if item.rater == "a"]
    assert reasons == ["25% of 12 gold items right", "failed 2 attention checks"]


def test_a_repeated_ranking_is_one_value_however_many_pairs_it_has() -> None:
    looks = []
    for i in range(6):
        asked = Question(said(f"p{i}", "user"), tuple(said(text) for text in "wxyz"), id=f"q{i}")
        first = judged(f"{i}", "a", (0.0, 1.0, 2.0, 3.0), asked)
        again = (0.0, 1.0, 2.0, 3.0) if i < 3 else (1.0, 0.0, 2.0, 3.0)  # 6 of 6 pairs stay, or 5
        looks += [first, replace(first, id=f"{i} again", ranks=again, order=(3, 2, 1, 0), arm="repeat")]
    found = quality(looks)
    assert (found.consistency.n, found.table[0].consistent.n) == (6, 6)
    assert found.consistency.value == pytest.approx((3 + 3 * 5 / 6) / 6)
    assert found.ceiling is None  # 36 pairs, but far from 30 repeats


def test_planted_raters_reach_the_review_list() -> None:
    given = simulate([0.0, 1.0, 1.0, 1.2, 1.0, 1.4, 1.0, 1.1], [0, 1.2, 0, 0, 0, 0, 0, 0], questions=700, repeats=0.1)
    found = quality(given)
    assert {item.rater for item in found.review} == {"r00", "r01"}
    assert found.agreement is not None
    assert found.agreement.low < found.agreement.share < found.agreement.high
    assert found.ceiling == found.agreement.ceiling
    assert found.alpha.low < found.alpha.value < found.alpha.high
    assert 0.5 < found.consistency.value < 1
    assert found.swapped_side_bias > 0
    assert found.share_not_random == pytest.approx(sum(j.arm == "repeat" for j in given) / len(given))
    json.dumps(found.to_dict(), allow_nan=False)


def test_alpha_is_about_different_raters() -> None:
    """A model asked in both orders is one rater with one value: its agreement with itself, or the lack of it, is not alpha's."""
    asked = [
        replace(ASKED, prompt=({"role": "user", "content": f"{i}?"},), id=f"q{i}") for i in range(30)
    ]  # fmt: skip

    def model(ways, name="m"):
        for i, question in enumerate(asked):
            for order, ranks in zip(((0, 1), (1, 0)), ways(i), strict=True):
                given = judged(f"{name}{i}{order}", name, ranks, question, kind="model")
                yield replace(given, order=order)

    first, second = (0.0, 1.0), (1.0, 0.0)
    same = list(model(lambda i: (first, first) if i % 2 else (second, second)))
    assert math.isnan(quality(same, raters="model").alpha.value)  # one rater alone

    one = [judged(f"h{i}", "h", first if i % 2 else second, q) for i, q in enumerate(asked)]
    torn = model(lambda i: (first, second), "torn")  # always the one shown first: ties, on balance
    ties = [judged(f"t{i}", "t", (0.0, 0.0), q) for i, q in enumerate(asked)]
    assert quality([*one, *torn], raters="both").alpha == quality([*one, *ties]).alpha
    assert quality([*one, *same], raters="both").alpha.value == 1.0


def test_nothing_yet_is_no_error() -> None:
    found = quality([])
    assert (found.judgements, found.agreement, found.ceiling, found.review) == (0, None, None, [])
    assert math.isnan(found.alpha.value)


def test_commands(tmp_path, capsys) -> None:
    path = tmp_path / "j.jsonl.gz"
    write_judgements(path, simulate([1.0] * 4, [0.0] * 4, questions=60))
    main(["collect", "quality", str(path), "--json", str(tmp_path / "q.json")])
    out = capsys.readouterr().out
    assert "180 by 4 raters" in out
    assert json.loads((tmp_path / "q.json").read_text())["judgements"] == 180
    main(
        [
            "collect",
            "export",
            str(path),
            "--format",
            "trl",
            "--labels",
            "majority",
            "--output",
            str(tmp_path / "t.jsonl"),
            "--skip-unsupported",
        ]
    )
    assert "rows of trl" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(
            [
                "collect",
                "export",
                str(path),
                "--format",
                "hh",
                "--output",
                str(tmp_path / "h.jsonl"),
                "--labels",
                "soft",
            ]
        )
    assert "has a soft label, and HH has no place for one" in capsys.readouterr().err


def test_what_is_not_known_is_not_printed_as_a_number(tmp_path, capsys) -> None:
    write_judgements(tmp_path / "j.jsonl", [judged("a")])
    main(["collect", "quality", str(tmp_path / "j.jsonl")])
    said = capsys.readouterr().out
    assert "nan" not in said
    assert said.count("not known") >= 3  # speed, alpha, same again


def test_a_database_named_as_a_file_is_told_how(tmp_path, capsys) -> None:
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("CREATE TABLE study (name TEXT)")
    with pytest.raises(SystemExit):
        main(["collect", "quality", str(tmp_path / "study.db")])
    assert f"sqlite:///{tmp_path}/study.db?study=NAME" in capsys.readouterr().err
