"""Every number of a check, counted by hand on small files and against published counts on real ones."""

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from guerdon.data.check import Check, check
from guerdon.data.export import export
from guerdon.data.quality import ODD_CHARACTERS, estimated_length, odd_characters, template_leftovers
from guerdon.types import Conversation, DataError, Message, Question
from tests.data.test_judgements import judged

DATA = Path(__file__).parents[2].parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.exists(), reason="needs the shared preference data beside the checkout")


def checked(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> Check:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return check(path, **options)


def question(name: str) -> Question:
    answers = tuple(({"role": "assistant", "content": f"{name} {side}"},) for side in "xy")
    return Question(({"role": "user", "content": f"{name}?"},), answers, id=name)


def pair(chosen: str = "x", rejected: str = "y", prompt: str = "q", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | more


def ranked(ranks: list[float], answers: list[str], **more: Any) -> dict[str, Any]:
    return {"prompt": "q", "completions": answers, "ranks": ranks} | more


def test_counts(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        ranked([0, 1, 1], ["aaa", "bb", "c"]),
        ranked([1, 0], ["d", "ee"], prompt="other"),
        ranked([0, 1], ["f", "g"], prompt="Other!"),
        ranked([0, 0], ["h", "i"]),
        ranked([0, 0], ["h", " "]),
    )
    assert (found.rows, found.comparisons, found.pairs, found.ties, found.prompts) == (5, 4, 6, 2, 2)
    assert (found.completions, found.turns) == ({2: 3, 3: 1}, {1: 4})
    assert (found.format, found.files) == ("guerdon", 1)
    # Decided: aaa > bb, aaa > c, ee > d longer; f > g equal, which counts half.
    assert found.longer_wins == pytest.approx(3.5 / 4)
    assert found.equal_lengths == 1
    assert found.dropped == {"empty answer": 1}


def test_repeats(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        ranked([0, 1], ["a", "b"]),
        ranked([0, 1], ["a", "b"]),  # again
        ranked([0, 1], ["a", "b"]),  # and again
        ranked([1, 0], ["b", "a"]),  # swapped
        ranked([0, 1], ["c", "d"]),
        ranked([1, 0], ["c", "d"]),  # contradicts
        ranked([0, 1], ["e", "f"]),
        ranked([0, 0], ["f", "e"]),  # contradicts: a tie
        ranked([0, 1], ["a", "b"], prompt="another"),  # not the same pair
        ranked([0, 1, 2], ["a", "b", "g"]),  # holds the first pair again
    )
    assert (found.duplicates, found.swapped, found.contradicting) == (3, 1, 2)
    place = [f"{tmp_path}/rows.jsonl:{line}" for line in range(11)]
    assert found.examples["duplicates"] == [" = ".join(place[1:4])]
    assert sorted(found.examples["contradicting"]) == [f"{place[5]} = {place[6]}", f"{place[7]} = {place[8]}"]


def test_chosen_rejected_files_contradict_when_swapped(tmp_path: Path) -> None:
    found = checked(tmp_path, pair("x", "y"), pair("y", "x"), pair("x", "y"))
    assert (found.duplicates, found.swapped, found.contradicting) == (1, 0, 1)


def words(conversations: list[Conversation]) -> list[int]:
    """A tokenizer that writes one token round each message and one for each word."""
    return [sum(1 + len(message["content"].split()) for message in conversation) for conversation in conversations]


def test_lengths_in_tokens(tmp_path: Path) -> None:
    rows = [pair("a " * n, "b", prompt="q q q") for n in range(1, 101)]
    found = checked(tmp_path, *rows, lengths=words, max_length=90)
    assert found.length_unit == "tokens"
    assert (found.lengths["prompt"].median, found.lengths["prompt"].max) == (4, 4)
    chosen = found.lengths["chosen"]
    assert (chosen.median, chosen.p95, chosen.max) == (51, 96, 101)
    assert found.lengths["rejected"].max == 2
    assert found.lengths["whole"].max == 105
    assert found.cut == 15  # n + 5 > 90
    assert found.examples["cut"][0].endswith("rows.jsonl:86")


def test_lengths_are_estimates_without_a_tokenizer(tmp_path: Path) -> None:
    found = checked(tmp_path, pair("Well, yes.", "No", prompt="Is it?"))
    assert found.length_unit == "words and marks (estimate)"
    assert [found.lengths[name].max for name in ("prompt", "chosen", "rejected", "whole")] == [3, 4, 1, 7]


@pytest.mark.parametrize(("truncation", "identical"), [("left", 1), ("right", 2)])
def test_pairs_that_differ_only_in_what_is_cut(tmp_path: Path, truncation: Any, identical: int) -> None:
    tail = " t" * 50
    found = checked(
        tmp_path,
        pair(f"a{tail}", f"b{tail}", prompt="p"),  # the same from the left limit on
        pair(f"{tail} a", f"{tail} b", prompt="p"),  # the same up to the right limit
        pair(f"a{tail}", "b", prompt="p " * 60),  # cut inside the prompt: the same start
        pair("a", "b"),
        max_length=40,
        truncation=truncation,
    )
    assert found.cut == 3
    assert found.cut_identical == identical


def test_template_that_refuses_a_conversation(tmp_path: Path) -> None:
    def alternating(conversations: list[Conversation]) -> list[int]:
        for conversation in conversations:
            if [message["role"] for message in conversation][-2:] == ["assistant", "assistant"]:
                raise DataError("roles must alternate")
        return words(conversations)

    doubled = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    found = checked(tmp_path, pair(), pair() | {"prompt": doubled}, pair("z"), lengths=alternating)
    assert (found.refused, found.lengths["whole"].max) == (1, 4)
    assert found.examples["refused"][0].endswith(":2")


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("plain\n\ttext\r\n – “quoted” é 中文", []),
        ("\ufffd", [0]),
        ("zero\u200bwidth", [1]),
        ("\u202eright to left", [1]),
        ("bell\x07", [2]),
        ("\x85 and \ufeff", [1, 2]),
        ("family 👨‍👩‍👧 and no-break\u00a0space", []),
    ],
)
def test_odd_characters(text: str, kinds: list[int]) -> None:
    assert list(odd_characters(text)) == [ODD_CHARACTERS[kind] for kind in kinds]


@pytest.mark.parametrize(
    ("text", "markers"),
    [
        ("a < b, [1] and <b>bold</b> <|", set()),
        ("Human: is a word", set()),
        ("Yes.<|im_end|>\n<|im_start|>user", {"<|im_end|>", "<|im_start|>"}),
        ("[INST] x [/INST]</s>", {"[INST]", "[/INST]", "</s>"}),
        ("Yes.\n\nHuman: and", {"Human:"}),
        ("<end_of_turn><extra_id_1><<SYS>>", {"<end_of_turn>", "<extra_id_1>", "<<SYS>>"}),
    ],
)
def test_template_leftovers(text: str, markers: set[str]) -> None:
    assert template_leftovers(text) == markers


def test_estimate_counts_words_marks_and_signs() -> None:
    assert estimated_length((Message(role="user", content="Hello, wörld! 你好。"),)) == 7


def test_odd_texts_are_counted_by_comparison(tmp_path: Path) -> None:
    found = checked(
        tmp_path, pair("\ufffd\ufffd", "\ufffd"), pair("x\x07", "y\u200b"), pair(prompt="[INST] q"), pair("z")
    )
    assert found.odd_characters == dict(zip(ODD_CHARACTERS, (1, 1, 1), strict=True))
    assert found.leftovers == {"[INST]": 1}
    assert [len(found.examples[name]) for name in ("odd_characters", "leftovers")] == [2, 1]


def test_strength_and_annotators(tmp_path: Path) -> None:
    rows = [ranked([0, 1], [f"x{i}", "y"], strength=i, annotator="ann" if i else "bob") for i in range(5)]
    found = checked(tmp_path, *rows)
    assert found.strength == {"min": 0, "q25": 1, "median": 2, "q75": 3, "max": 4}
    assert (found.annotator_count, found.annotators) == (2, {"ann": 4, "bob": 1})


def test_findings_say_what_to_do_and_where(tmp_path: Path) -> None:
    rows = [pair(f"longer {i}", "y") for i in range(60)]
    found = checked(tmp_path, pair(chosen=""), pair(), pair("y", "x"), *rows)
    assert [(finding.what, finding.count) for finding in found.findings] == [
        ("rows with empty answer", 1),
        ("pairs with contradicting labels", 1),
        ("the longer answer wins 98% of the decided pairs", 61),
    ]
    assert found.findings[0].places == (f"{tmp_path}/rows.jsonl:1",)


def test_json_and_table_hold_the_numbers(tmp_path: Path) -> None:
    found = checked(tmp_path, pair("[bold]x[/bold]"), pair(chosen=""), pair(chosen=""))
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (plain["rows"], plain["completions"], plain["empty"]) == (3, {"2": 1}, 2)
    assert plain["findings"][0]["what"] == "rows with empty answer"
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(found.render())
    text = console.export_text()
    assert "3, of which 2 are kept out" in text
    assert "rows.jsonl:2, rows.jsonl:3" in text


@pytest.mark.parametrize("format", ["label-studio", "argilla"])
def test_rows_that_hold_several_judgements_keep_out_no_less_than_none(format: str, tmp_path: Path) -> None:
    given = [judged(f"{q}{r}", r, question=question(q)) for q in ("a", "b", "c") for r in ("ann", "bob", "cy")]
    given[0] = judged("a-skip", "ann", (), answer="skip", question=question("a"))
    export(given, tmp_path / "out.jsonl", format)
    if format == "label-studio":
        with (tmp_path / "out.jsonl").open("a") as file:
            file.write(
                json.dumps({"id": 9, "data": {"prompt": "q", "answer1": "x", "answer2": "y"}, "annotations": []})
            )
    found = check(tmp_path / "out.jsonl")
    unlabelled = format == "label-studio"
    assert found.dropped == {"skip": 1} | ({"no label": 1} if unlabelled else {})
    assert (found.rows, found.comparisons) == (3 + unlabelled, 8)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(found.render())
    assert f"{found.rows}, of their judgements {1 + unlabelled} are kept out" in console.export_text()


def test_nothing_usable_is_reported_not_raised(tmp_path: Path) -> None:
    found = checked(tmp_path, pair(chosen=""))
    assert (found.comparisons, found.longer_wins, found.prompts) == (0, None, 0)
    assert found.findings[0].what == "no usable comparisons"
    assert found.to_dict()["lengths"]["whole"] == {"median": 0, "p95": 0, "max": 0}


def test_spread_is_nearest_rank(tmp_path: Path) -> None:
    sizes = random.Random(0).sample(range(1, 1000), 41)
    found = checked(tmp_path, *[pair("w " * size, "y") for size in sizes])
    ordered = sorted(sizes)
    chosen = found.lengths["chosen"]
    assert (chosen.median, chosen.p95, chosen.max) == (ordered[20], ordered[38], ordered[40])


@real
@pytest.mark.parametrize(
    ("name", "comparisons", "ties", "longer"),
    [("hh-rlhf/harmless-base", 2041, 0, 0.45), ("hh-rlhf/helpful-base", 2108, 0, 0.60), ("webgpt", 814, 220, 0.66)],
)
def test_longer_wins_on_real_data(name: str, comparisons: int, ties: int, longer: float) -> None:
    found = check(DATA / name)
    assert (found.comparisons, found.ties, found.contradicting) == (comparisons, ties, 0)
    assert found.longer_wins == pytest.approx(longer, abs=0.005)
