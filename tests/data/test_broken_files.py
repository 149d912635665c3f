"""Broken input, case by case: one sentence with file, line and remedy, or counted and kept out as docs/data.md says."""

import gzip
import io
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from guerdon.data.read import load, read
from guerdon.types import DataError

GOOD = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


def lines(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def table(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def message(role: object = "assistant", content: object = "Because.") -> dict[str, object]:
    return {"role": role, "content": content}


GOOD_LINES = lines(*[GOOD] * 400)
PARQUET = table(chosen=["a"], rejected=["b"])

# name, bytes, line named in the error (None: the file as a whole), words of the cause, words of the remedy
ERRORS = [
    # files
    ("empty.jsonl", b"", None, "empty", "export it again"),
    ("blank.jsonl", b"\n \n\n", None, "no rows", "at least one row"),
    ("empty_list.json", b"[]", None, "no rows", "at least one row"),
    ("header_only.csv", b"prompt,chosen,rejected\n", None, "no rows", "at least one row"),
    ("no_rows.parquet", table(chosen=pa.array([], pa.string())), None, "no rows", "at least one row"),
    ("words.txt", b"hello", None, "cannot tell", ".jsonl"),
    ("set.jsonl.zst", b"\x28\xb5\x2f\xfd", None, "cannot tell", ".gz"),
    ("plain.jsonl.gz", lines(GOOD), None, "not gzip", "remove .gz"),
    ("zipped.jsonl", gzip.compress(lines(GOOD)), None, "gzip data", "rename it to zipped.jsonl.gz"),
    ("lines.parquet", lines(GOOD), None, "not Parquet", "name of what it is"),
    ("table.jsonl", PARQUET, None, "Parquet data", "rename it to table.parquet"),
    ("cut.parquet", PARQUET[: len(PARQUET) // 2], 1, "Parquet", "write the file again"),
    ("damaged.parquet", PARQUET[:4] + b"\xff" * 60 + PARQUET[64:], 1, "Parquet", "write the file again"),
    ("cut.jsonl.gz", gzip.compress(GOOD_LINES)[:-4], 401, "cut short", "download it again"),
    ("head.jsonl.gz", gzip.compress(GOOD_LINES)[:6], 1, "cut short", "download it again"),
    ("noise.jsonl.gz", gzip.compress(GOOD_LINES)[:12] + b"\xff" * 90, 1, "damaged", "download it again"),
    ("checksum.jsonl.gz", gzip.compress(GOOD_LINES)[:-8] + bytes(8), 401, "damaged", "download it again"),
    ("cut.json.gz", gzip.compress(json.dumps([GOOD] * 99).encode())[:-30], 1, "cut short", "download it again"),
    ("utf16.jsonl", lines(GOOD).decode().encode("utf-16"), 1, "UTF-16", "save it as UTF-8"),
    # lines
    ("line3.jsonl", lines(GOOD, GOOD, b'{"prompt": "Why?"', GOOD), 3, "not valid JSON", "repair or remove"),
    ("quotes.jsonl", lines(GOOD, b"{'chosen': 'a', 'rejected': 'b'}"), 2, "not valid JSON", "repair or remove"),
    ("two_on_one.jsonl", lines(GOOD, b"{} {}"), 2, "not valid JSON", "repair or remove"),
    ("list.jsonl", json.dumps([GOOD], indent=1).encode(), 1, "not valid JSON", "named .json"),
    ("list_line.jsonl", json.dumps([GOOD]).encode(), 1, "a list", "name the file .json"),
    ("number.jsonl", lines(GOOD, 7), 2, "a number", "an object"),
    ("null.jsonl", lines(GOOD, b"null"), 2, "null", "an object"),
    ("latin1.jsonl", lines(GOOD, '{"chosen": "é"}'.encode("latin-1")), 2, "not UTF-8", "save the file as UTF-8"),
    ("latin1.json", b'[\n{"chosen": "' + "é".encode("latin-1") + b'"}]', 2, "not UTF-8", "save the file as UTF-8"),
    ("nul.jsonl", lines(GOOD, b'{"chosen": "a\0b"}'), 2, "NUL", "export the file again"),
    ("control.jsonl", lines(GOOD, b'{"chosen": "a\x01b"}'), 2, "not valid JSON", "repair or remove"),
    ("half.jsonl", lines(GOOD, b'{"chosen": "\\ud83d", "rejected": "b"}'), 2, "surrogate", "write the whole character"),
    ("half.json", b'[{"chosen": "a", "rejected": "\\udc00"}]', 1, "surrogate", "write the whole character"),
    ("deep.jsonl", lines(GOOD, b"[" * 100_000), 2, "too deep", "remove the row"),
    ("digits.jsonl", lines(GOOD, b'{"margin": ' + b"9" * 5000 + b"}"), 2, "too long", "remove the row"),
    ("cut.json", b'[{"chosen": "a",\n"rejected": "b"},\n{"cho', 3, "not valid JSON", "complete"),
    ("object.json", b'{"chosen": "a", "rejected": "b"}', 1, "without a list named 'data'", "a list of rows"),
    ("strings.json", b'[{"chosen": "a", "rejected": "b"}, "c"]', 2, "text", "an object"),
    ("cells.csv", b"chosen,rejected\na,b\nc,d,e\n", 3, "3 cells under 2 columns", "double quotes"),
    ("few_cells.csv", b"chosen,rejected\na,b\nc\n", 3, "1 cells under 2 columns", "double quotes"),
    ("open_quote.csv", b'chosen,rejected\na,b\n"c,d\n', 3, "not readable as CSV", "close every double quote"),
    ("twice.csv", b"chosen,chosen\na,b\n", 1, "'chosen' stands there twice", "rename or remove"),
    # columns and values
    ("columns.jsonl", lines({"question": "q", "answer": "a"}), 1, "'question', 'answer'", "trl needs chosen, rejected"),
    ("unpaired.jsonl", lines({"prompt": "q", "completion": "a", "label": True}), 1, "no format fits", "rename them"),
    ("semicolons.csv", b"chosen;rejected\na;b\n", 2, "'chosen;rejected'", "rename them"),
    ("no_column.jsonl", lines(GOOD, GOOD, {"prompt": "q", "chosen": "a"}), 3, "no column 'rejected'", "add it"),
    ("bool.jsonl", lines(GOOD, GOOD | {"chosen": True}), 2, "'chosen' is true or false", "write a list of messages"),
    (
        "stringified.jsonl",
        lines(GOOD | {"prompt": json.dumps([message("user")])}),
        1,
        "stored as a string",
        "as a list",
    ),
    ("python_repr.csv", b"chosen,rejected\n\"[{'role': 'user', 'content': 'a'}]\",b\n", 2, "as a string", "as a list"),
    (
        "no_role.jsonl",
        lines(GOOD | {"chosen": [{"content": "a"}]}),
        1,
        "'chosen[0]' has no 'role'",
        "'role' and 'content'",
    ),
    ("no_content.jsonl", lines(GOOD | {"chosen": [{"role": "user"}]}), 1, "has no 'content'", "'role' and 'content'"),
    ("role.jsonl", lines(GOOD | {"chosen": [message("gpt")]}), 1, "the role 'gpt'", "one of system"),
    ("role_number.jsonl", lines(GOOD | {"chosen": [message(1)]}), 1, "the role a number", "one of system"),
    ("null_content.jsonl", lines(GOOD | {"chosen": [message(content=None)]}), 1, "null as content", "write text"),
    ("not_messages.jsonl", lines(GOOD | {"chosen": ["a", "b"]}), 1, "'chosen[0]' is text", "an object with 'role'"),
    ("margin_text.jsonl", lines(GOOD | {"margin": "large"}), 1, "'margin' is 'large'", "write a number"),
    ("margin_list.jsonl", lines(GOOD | {"margin": [1]}), 1, "'margin' is a list", "write a number"),
    ("ranks.jsonl", lines({"completions": ["a", "b"], "ranks": [1, 2, 3]}), 1, "2 completions but 3 ranks", "one rank"),
    (
        "ranks_text.jsonl",
        lines({"completions": ["a", "b"], "ranks": ["A", "B"]}),
        1,
        "'ranks' is 'A'",
        "write a number",
    ),
    ("no_list.jsonl", lines({"completions": "a", "ranks": [1]}), 1, "'completions' is text", "write a list"),
    ("weight.jsonl", lines({"completions": ["a", "b"], "ranks": [1, 2], "weight": -1}), 1, "'weight' is -1", "finite"),
    ("scores.jsonl", lines({"text": ["a", "b"], "score": [1]}), 1, "2 texts but 1 scores", "one score"),
    (
        "sharegpt.jsonl",
        lines({"conversations": [{"from": "bot", "value": "a"}], "chosen": "a", "rejected": "b"}),
        1,
        "'bot'",
        "one of system",
    ),
    (
        "no_marker.jsonl",
        lines(*[{"chosen": f"\n\nHuman: {i}", "rejected": "\n\nHuman: b"} for i in range(3)], GOOD | {"prompt": None}),
        4,
        "does not start with 'Human:'",
        "--format",
    ),
]


@pytest.mark.parametrize(("name", "content", "line", "cause", "remedy"), ERRORS, ids=[case[0] for case in ERRORS])
def test_unreadable_input_is_one_sentence_with_place_and_remedy(
    tmp_path: Path, name: str, content: bytes, line: int | None, cause: str, remedy: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read(path))
    said = str(caught.value)
    assert said.startswith(f"{path}: " if line is None else f"{path}:{line}: ")
    assert "\n" not in said
    assert said.index(cause) < said.index(remedy, said.index(cause) + len(cause)), said


def mutated(**changes: object) -> dict[str, object]:
    return GOOD | changes


RANKED = {"prompt": "q", "completions": ["a", "b", "c"], "ranks": [0, 1, 2]}
SAME_TURNS = [message("user", "q"), message()]

DROPPED = [
    ("same text", mutated(rejected="Because."), "identical answers"),
    ("same messages", {"chosen": SAME_TURNS, "rejected": SAME_TURNS}, "identical answers"),
    (
        "same transcript",
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b "},
        "identical answers",
    ),
    ("two of three the same", RANKED | {"completions": ["a", "b", "a"]}, "identical answers"),
    ("same text, labelled a tie", {"completions": ["a", "a"], "ranks": [0, 0]}, "identical answers"),
    ("empty chosen", mutated(chosen=""), "empty answer"),
    ("blank rejected", mutated(rejected=" \n\t"), "empty answer"),
    ("null chosen", mutated(chosen=None), "empty answer"),
    ("no messages", mutated(chosen=[], rejected=[message()]), "empty answer"),
    ("blank message", mutated(chosen=[message(content=" ")], rejected=[message()]), "empty answer"),
    (
        "empty last turn",
        {"chosen": "\n\nHuman: a\n\nAssistant:", "rejected": "\n\nHuman: a\n\nAssistant: b"},
        "empty answer",
    ),
    ("both empty", mutated(chosen="", rejected=""), "empty answer"),
    ("one of three empty", RANKED | {"completions": ["a", "", "c"]}, "empty answer"),
    ("2 MB answer", mutated(chosen="x" * 2_000_000), "answer too long"),
    ("NaN margin", mutated(margin=math.nan), "margin not finite"),
    ("infinite margin", mutated(margin=-math.inf), "margin not finite"),
    ("margin beyond floats", mutated(margin=10**400), "margin not finite"),
    ("NaN strength", RANKED | {"strength": math.nan}, "margin not finite"),
    ("null ranks", RANKED | {"ranks": None}, "no label"),
    ("one null rank", RANKED | {"ranks": [0, None, 1]}, "no label"),
    ("NaN rank", RANKED | {"ranks": [0, math.nan, 1]}, "no label"),
    ("empty score", {"text": ["a", "b"], "score": ["", ""]}, "no label"),
    ("null scores", {"text": ["a", "b"], "score": None}, "no label"),
    ("one completion", RANKED | {"completions": ["a"], "ranks": [0]}, "fewer than two answers"),
]


@pytest.mark.parametrize(("row", "reason"), [case[1:] for case in DROPPED], ids=[case[0] for case in DROPPED])
def test_a_row_without_a_preference_is_counted_and_kept_out(
    tmp_path: Path, row: dict[str, object], reason: str
) -> None:
    good = GOOD if "chosen" in row else {"text": ["x", "y"], "score": [0, 1]} if "text" in row else RANKED
    if "Human" in str(row):
        good = {"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: a\n\nAssistant: y"}
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(good, row, good))
    reader = read(path)
    kept = [comparison.id for comparison in reader]
    assert kept == ["rows.jsonl:1", "rows.jsonl:3"]
    assert reader.rows == 3
    assert reader.dropped == {reason: 1}
    assert reader.examples == {reason: [f"{path}:2"]}


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines(GOOD))
    with pytest.raises(DataError, match=r"trian\.jsonl: no such file or folder; did you mean .*train\.jsonl\?$"):
        list(read(tmp_path / "trian.jsonl"))


def test_missing_folder_names_the_part_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "hh-rlhf").mkdir()
    with pytest.raises(DataError, match=r"did you mean .*hh-rlhf\?$"):
        list(read(tmp_path / "hh-rhlf" / "train.jsonl"))


def test_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(DataError, match="the path of the data is empty; give a file"):
        list(read(""))


def test_folder_without_data_says_what_data_is(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "MANIFEST.json").write_text("{}")
    (tmp_path / ".hidden.jsonl").write_bytes(lines(GOOD))
    with pytest.raises(DataError, match=r"holds no data files; expected \.jsonl, \.json, \.csv, \.parquet"):
        list(read(tmp_path))


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guerdon.data.containers.MAX_LINE", 2**20)
    path = tmp_path / "endless.jsonl"
    path.write_bytes(lines(GOOD) + b'{"chosen": "' + b"x" * 2**20 + b'"}')
    with pytest.raises(DataError, match=r"endless\.jsonl:2: the line is over 1 MiB; write one row per line"):
        list(read(path))


def test_answer_limit_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(mutated(chosen="x" * 101), mutated(chosen="x" * 100)))
    reader = read(path, max_answer=100)
    assert [comparison.id for comparison in reader] == ["rows.jsonl:2"]
    assert reader.dropped == {"answer too long": 1}


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(mutated(chosen=""), mutated(chosen=""), mutated(chosen="No.")))
    expected = r"rows\.jsonl: no usable comparison in 3 rows \(empty answer: 2, identical answers: 1\); repair"
    with pytest.raises(DataError, match=expected):
        load([path])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + lines(GOOD), id="byte order mark"),
        pytest.param(lines(GOOD).replace(b"\n", b"\r\n"), id="windows line ends"),
        pytest.param(lines(GOOD)[:-1], id="no last line end"),
        pytest.param(b"\n\n" + lines(GOOD) + b"\n", id="blank lines"),
        pytest.param(lines(GOOD | {"chosen": "x" * 2**18}), id="a long line"),
        pytest.param('{"chosen": "a\u2028b\x85c", "rejected": "\\ud83d\\ude00"}\n'.encode(), id="odd line separators"),
    ],
)
def test_harmless_oddities_are_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    reader = read(path)
    assert len(list(reader)) == 1
    assert (reader.rows, reader.dropped) == (1, {})
