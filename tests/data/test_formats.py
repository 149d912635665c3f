"""Every format by hand-written rows, and on the real files they were made from."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from guerdon.data.containers import Row, stream
from guerdon.data.formats import FORMATS, recognise
from guerdon.data.messages import common_start, transcript_of
from guerdon.data.read import load, read
from guerdon.types import Comparison, ConfigError, DataError

DATA = Path(__file__).parents[2].parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.exists(), reason="needs the shared preference data beside the checkout")


def turns(text: str) -> list[dict[str, str]]:
    """`u:Why? a:Because.` as messages."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[part[0]], "content": part[2:]} for part in text.split("|")]


def convert(row: dict[str, Any]) -> tuple[str, Comparison]:
    name = recognise([Row("rows.jsonl", 1, row)])
    return name, FORMATS[name].convert(row)


def plain(comparison: Comparison) -> list[str]:
    """Prompt and answers as `u:Why?|a:Because.`."""
    sides = [comparison.prompt, *comparison.completions]
    return ["|".join(f"{message['role'][0]}:{message['content']}" for message in side) for side in sides]


TRL = {
    "text": ({"prompt": "p", "chosen": "x", "rejected": "y"}, ["u:p", "a:x", "a:y"]),
    "text without a prompt": ({"chosen": "p x", "rejected": "p y"}, ["", "a:p x", "a:p y"]),
    "blank prompt": ({"prompt": " ", "chosen": "x", "rejected": "y"}, ["", "a:x", "a:y"]),
    "messages": (
        {"prompt": turns("s:be brief|u:p"), "chosen": turns("a:x"), "rejected": turns("a:y")},
        ["s:be brief|u:p", "a:x", "a:y"],
    ),
    "messages that repeat the prompt": (
        {"prompt": turns("u:p"), "chosen": turns("u:p|a:x"), "rejected": turns("u:p|a:y")},
        ["u:p", "a:x", "a:y"],
    ),
    "one of two repeats the prompt": (
        {"prompt": turns("u:p"), "chosen": turns("u:p|a:x"), "rejected": turns("a:y")},
        ["u:p", "a:x", "a:y"],
    ),
    "text prompt repeated in messages": (
        {"prompt": "p", "chosen": turns("u:p|a:x"), "rejected": turns("u:p|a:y")},
        ["u:p", "a:x", "a:y"],
    ),
    "text prompt after a system message": (
        {"prompt": "p", "chosen": turns("s:be brief|u:p|a:x"), "rejected": turns("s:be brief|u:p|a:y")},
        ["s:be brief|u:p", "a:x", "a:y"],
    ),
    "messages without a prompt": (
        {"chosen": turns("u:p|a:q|u:r|a:x"), "rejected": turns("u:p|a:q|u:r|a:y")},
        ["u:p|a:q|u:r", "a:x", "a:y"],
    ),
    "messages that part early": (
        {"chosen": turns("u:p|a:x|u:r|a:s"), "rejected": turns("u:p|a:y|u:r|a:s")},
        ["u:p", "a:x|u:r|a:s", "a:y|u:r|a:s"],
    ),
    "one a start of the other": (
        {"chosen": turns("u:p|a:x"), "rejected": turns("u:p|a:x|u:r|a:y")},
        ["u:p", "a:x", "a:x|u:r|a:y"],
    ),
    "answers of several turns after a prompt": (
        {"prompt": turns("u:p"), "chosen": turns("a:x|u:r|a:s"), "rejected": turns("a:y|u:t|a:s")},
        ["u:p", "a:x|u:r|a:s", "a:y|u:t|a:s"],
    ),
    "messages after a text prompt": (
        {"prompt": "p", "chosen": turns("a:x"), "rejected": turns("a:y")},
        ["u:p", "a:x", "a:y"],
    ),
}


@pytest.mark.parametrize(("row", "expected"), TRL.values(), ids=TRL.keys())
def test_trl_shapes(row: dict[str, Any], expected: list[str]) -> None:
    name, comparison = convert(row)
    assert name == "trl"
    assert plain(comparison) == expected
    assert [(pair.chosen, pair.target) for pair in comparison.pairs()] == [(0, 1.0)]


MARGINS = [(0.5, 0.5), (2, 2.0), ("1.5", 1.5), (None, None), ("", None), (-1, -1)]


@pytest.mark.parametrize(("margin", "strength"), MARGINS)
def test_margin_is_the_strength(margin: object, strength: float | None) -> None:
    assert convert({"chosen": "x", "rejected": "y", "margin": margin})[1].strength == strength


def test_keys_beyond_role_and_content_are_left_behind() -> None:
    row = {"chosen": [{"role": "assistant", "content": "x", "tool_calls": None}], "rejected": turns("a:y")}
    assert convert(row)[1].completions[0] == ({"role": "assistant", "content": "x"},)


OTHERS = {
    "guerdon": (
        {"prompt": "p", "completions": ["x", turns("a:y"), "z"], "ranks": [2, 1, 1], "annotator": "ann", "weight": 2},
        ["u:p", "a:x", "a:y", "a:z"],
        (2, 1, 1),
        None,
    ),
    "hh": (
        {"chosen": "\n\nHuman: p\n\nAssistant: x", "rejected": "\n\nHuman: p\n\nAssistant: y"},
        ["u:p", "a:x", "a:y"],
        (0, 1),
        None,
    ),
    "hh with a prompt column": (
        {"prompt": "\n\nHuman: p\n\nAssistant:", "chosen": " x", "rejected": " y", "margin": 1},
        ["u:p", "a:x", "a:y"],
        (0, 1),
        1,
    ),
    "scored": (
        {"text": ["\n\nHuman: p\n\nAssistant: x", "\n\nHuman: p\n\nAssistant: y"], "score": [0.5, 1.5]},
        ["u:p", "a:x", "a:y"],
        (1, 0),
        1.0,
    ),
    "scored tie": ({"text": ["x", "y"], "score": [1, 1.0]}, ["", "a:x", "a:y"], (0, 0), 0.0),
    "sharegpt": (
        {
            "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "p"}],
            "chosen": {"from": "gpt", "value": "x"},
            "rejected": {"from": "gpt", "value": "y"},
        },
        ["s:s|u:p", "a:x", "a:y"],
        (0, 1),
        None,
    ),
    "alpaca ranking": (
        {"instruction": "p", "input": "i", "output": ["x", "y", "z"], "history": [["q", "r"]]},
        ["u:q|a:r|u:p\ni", "a:x", "a:y", "a:z"],
        (0, 1, 2),
        None,
    ),
    "alpaca": ({"instruction": "p", "chosen": "x", "rejected": "y"}, ["u:p", "a:x", "a:y"], (0, 1), None),
    "nemo": (
        {
            "context": turns("u:p"),
            "completions": [{"rank": 1, "completion": turns("a:x")}, {"rank": 0, "completion": turns("a:y")}],
        },
        ["u:p", "a:x", "a:y"],
        (1, 0),
        None,
    ),
    "helpsteer3, first better": (
        {"context": turns("u:p"), "response1": "x", "response2": "y", "overall_preference": -2},
        ["u:p", "a:x", "a:y"],
        (0, 1),
        2,
    ),
    "helpsteer3, equal": (
        {"context": turns("u:p"), "response1": "x", "response2": "y", "overall_preference": 0},
        ["u:p", "a:x", "a:y"],
        (0, 0),
        0,
    ),
}


@pytest.mark.parametrize("case", OTHERS.keys())
def test_other_formats(case: str) -> None:
    row, expected, ranks, strength = OTHERS[case]
    name, comparison = convert(row)
    assert name == case.replace(",", " ").split()[0]
    assert (plain(comparison), comparison.ranks, comparison.strength) == (expected, ranks, strength)


def test_marker_inside_a_turn_does_not_part_it() -> None:
    text = "\n\nHuman: He wrote\nHuman: hi. Assistant: no \n\n\nAssistant:  Yes.\n\nA list\n\n Human: x\n"
    assert transcript_of(text, "chosen") == (
        {"role": "user", "content": "He wrote\nHuman: hi. Assistant: no"},
        {"role": "assistant", "content": "Yes.\n\nA list\n\n Human: x"},
    )


def test_a_text_under_other_markers_keeps_ours_as_text() -> None:
    text = "## Human:\nWhy?\n\nHuman: is a word\n\n## Assistant:\nSo."
    assert [message["content"] for message in transcript_of(text, "text")] == ["Why?\n\nHuman: is a word", "So."]


def test_common_start_leaves_an_answer() -> None:
    same = transcript_of("Human: a\n\nAssistant: b", "x")
    assert common_start([same, same]) == 1


def test_one_bad_row_does_not_change_the_format() -> None:
    good = {"chosen": "\n\nHuman: p\n\nAssistant: x", "rejected": "\n\nHuman: p\n\nAssistant: y"}
    rows = [Row("f", line, good) for line in range(2, 5)]
    assert recognise([Row("f", 1, {"chosen": "x", "rejected": "y"}), *rows]) == "hh"


def test_format_can_be_forced(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"chosen": "\n\nHuman: p\n\nAssistant: x", "rejected": "\n\nHuman: p\n\nAssistant: y"}))
    (comparison,) = read(path, format="trl")
    assert comparison.prompt == ()
    assert comparison.completions[0][0]["content"] == "\n\nHuman: p\n\nAssistant: x"


def test_unknown_format_is_known_before_reading() -> None:
    with pytest.raises(ConfigError, match="unknown format 'tlr'; did you mean trl\\? choose one of judgements"):
        read("nowhere.jsonl", format="tlr")


def test_error_lists_what_every_format_needs() -> None:
    with pytest.raises(DataError) as caught:
        recognise([Row("a.jsonl", 1, {"question": 1})])
    assert str(caught.value).startswith("a.jsonl:1: no format fits the columns 'question'; ")
    assert all(f"{name} needs" in str(caught.value) for name in FORMATS)


@real
def test_hh_harmless_counts() -> None:
    train, test = (load([DATA / "hh-rlhf" / "harmless-base" / f"{name}.jsonl.gz"]) for name in ("train", "test"))
    assert (train.rows, test.rows) == (1780, 265)
    assert (train.dropped, test.dropped) == ({"empty answer": 3}, {"empty answer": 1})
    together = train.comparisons + test.comparisons
    several = [c.id for c in together if any(len(answer) > 1 for answer in c.completions)]
    assert several == [f"train.jsonl.gz:{n}" for n in (959, 1285, 1485, 1487)] + ["test.jsonl.gz:237"]
    assert all(c.prompt[0]["role"] == "user" for c in together)
    assert train.sources == {"harmless-base": 1777}


@real
def test_hh_texts_are_whole_but_for_white_space() -> None:
    path = DATA / "hh-rlhf" / "harmless-base" / "test.jsonl.gz"
    names = {"user": "Human:", "assistant": "Assistant:"}
    raw = {f"test.jsonl.gz:{row.line}": row.data for row in stream(path)}
    for comparison in read(path):
        for side, conversation in zip(("chosen", "rejected"), comparison.conversations(), strict=True):
            text = " ".join(f"{names[message['role']]} {message['content']}" for message in conversation)
            assert text.split() == raw[comparison.id][side].split()


@real
def test_helpful_base_is_scored_and_seven_pairs_part_early() -> None:
    data = load([DATA / "hh-rlhf" / "helpful-base"])
    assert (data.rows, data.dropped) == (2111, {"empty answer": 3})
    assert sum(any(len(answer) > 1 for answer in c.completions) for c in data.comparisons) == 7
    assert {c.ranks for c in data.comparisons} == {(0.0, 1.0)}


@real
def test_webgpt_ties_and_margins() -> None:
    data = load([DATA / "webgpt"])
    assert len(data.comparisons) == data.rows == 814
    assert sum(c.ranks[0] == c.ranks[1] for c in data.comparisons) == 220
    assert {c.strength for c in data.comparisons} == {0.0, 1.0, 2.0}
    assert all(len(c.prompt) == 1 for c in data.comparisons)


@real
def test_sharegpt_demos() -> None:
    english, chinese = (load([DATA / "format-demos" / f"dpo_{name}_demo.jsonl.gz"]) for name in ("en", "zh"))
    assert (len(english.comparisons), len(chinese.comparisons)) == (270, 262)
    assert Counter(c.prompt[0]["role"] for c in english.comparisons).keys() == {"user", "system"}
    with pytest.raises(DataError, match=r"kto_en_demo\.jsonl\.gz:1: no format fits the columns 'messages', 'label'"):
        load([DATA / "format-demos" / "kto_en_demo.jsonl.gz"])


@real
def test_ranked_replies_expand_to_the_documented_pairs() -> None:
    data = load([DATA / "oasst-zh-ranked"])
    assert (data.rows, data.dropped) == (701, {"identical answers": 6})
    kinds = Counter(len(c.completions) for c in data.comparisons)
    assert (kinds.total(), kinds[4], kinds[6], kinds[10]) == (695, 57, 1, 1)
