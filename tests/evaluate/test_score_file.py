"""Scoring a file: one row out per row in, through kills, torn lines, wrong models and two hundred thousand rows."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from guerdon.data.rows import ScoreRow
from guerdon.evaluate.score_file import input_identity, score_file
from guerdon.types import ConfigError, ContractError, DataError, Score


class LengthScorer:
    """Rewards length; "mask" is masked, "fail" fails. Counts what it was asked."""

    fingerprint = "length-1"

    def __init__(self):
        self.seen = []

    def score(self, conversations):
        self.seen += conversations
        return [self.one(conversation[-1]["content"]) for conversation in conversations]

    def one(self, text):
        if text == "mask":
            return Score(0, "masked", reason="no answer wanted")
        if text == "fail":
            return Score(0, "error", reason="cannot read it")
        return Score(len(text), tokens=len(text), truncated=len(text) > 8)


def row(index, *texts, problem=None, **raw):
    return ScoreRow(index, raw, [({"role": "user", "content": text},) for text in texts], problem)


def rows(n, size=1):
    return (row(i, *["x" * (i % 5 + 1 + j) for j in range(size)], id=f"r{i}") for i in range(n))


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_one_row_per_row_in_order(tmp_path):
    source = [
        row(0, "abc", "a" * 9, id="first"),
        row(1, "mask", "abc"),
        row(2, "fail", "mask"),
        row(3, problem="line 4: not JSON"),
        row(4),
    ]
    summary = score_file(LengthScorer(), source, tmp_path / "out.jsonl", progress=False)
    assert read(tmp_path / "out.jsonl") == [
        {"index": 0, "id": "first", "scores": [3.0, 9.0], "status": "ok", "tokens": [3, 9], "truncated": [False, True]},
        {
            "index": 1,
            "scores": [None, 3.0],
            "status": "masked",
            "reason": "no answer wanted",
            "tokens": [0, 3],
            "truncated": [False, False],
        },
        {
            "index": 2,
            "scores": [None, None],
            "status": "error",
            "reason": "cannot read it",
            "tokens": [0, 0],
            "truncated": [False, False],
        },
        {"index": 3, "scores": [], "status": "error", "reason": "line 4: not JSON", "tokens": [], "truncated": []},
        {
            "index": 4,
            "scores": [],
            "status": "error",
            "reason": "the row holds no conversation",
            "tokens": [],
            "truncated": [],
        },
    ]
    assert (summary.rows, summary.completions, summary.truncated) == (5, 6, 1)
    assert dict(summary.statuses) == {"ok": 1, "masked": 1, "error": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_batches_do_not_change_the_result(tmp_path, batch):
    score_file(LengthScorer(), rows(40, size=3), tmp_path / "out.jsonl", batch=batch, progress=False)
    assert [record["scores"] for record in read(tmp_path / "out.jsonl")] == [
        [i % 5 + 1.0, i % 5 + 2.0, i % 5 + 3.0] for i in range(40)
    ]


class Stops(LengthScorer):
    def score(self, conversations):
        if len(self.seen) >= 12:
            raise KeyboardInterrupt
        return super().score(conversations)


def stop_halfway(tmp_path, **options):
    with pytest.raises(KeyboardInterrupt):
        score_file(Stops(), rows(30), tmp_path / "out.jsonl", batch=4, progress=False, **options)
    assert not (tmp_path / "out.jsonl").exists()
    return tmp_path / "out.jsonl.partial"


def test_a_stopped_run_goes_on(tmp_path):
    stop_halfway(tmp_path)
    scorer = LengthScorer()
    summary = score_file(scorer, rows(30), tmp_path / "out.jsonl", batch=4, progress=False)
    assert (len(scorer.seen), summary.resumed, summary.rows, summary.completions) == (18, 12, 30, 30)
    score_file(LengthScorer(), rows(30), tmp_path / "whole.jsonl", progress=False)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("tear", [b'{"index": 12, "sco', b'{"index": 12}\n\x00\x00\x00\n', b"null\n"])
def test_a_torn_end_is_cut_off(tmp_path, tear):
    partial = stop_halfway(tmp_path)
    if tear.startswith(b'{"index": 12}\n'):
        tear = tear.removeprefix(b'{"index": 12}\n')
    partial.write_bytes(partial.read_bytes() + tear)
    summary = score_file(LengthScorer(), rows(30), tmp_path / "out.jsonl", progress=False)
    assert summary.resumed == 12
    assert [record["index"] for record in read(tmp_path / "out.jsonl")] == list(range(30))


def test_another_model_or_input_is_refused(tmp_path):
    partial = stop_halfway(tmp_path, source="a.jsonl")
    before = partial.read_bytes()
    other = LengthScorer()
    other.fingerprint = "length-2"
    with pytest.raises(ConfigError, match=r"another model.*length-1.*now 'length-2'"):
        score_file(other, rows(30), tmp_path / "out.jsonl", source="a.jsonl", progress=False)
    with pytest.raises(ConfigError, match=r"another input.*a\.jsonl"):
        score_file(LengthScorer(), rows(30), tmp_path / "out.jsonl", source="b.jsonl", progress=False)
    assert partial.read_bytes() == before
    score_file(other, rows(30), tmp_path / "out.jsonl", source="a.jsonl", overwrite=True, progress=False)
    assert len(other.seen) == 30


def test_rows_without_their_header_are_refused(tmp_path):
    stop_halfway(tmp_path).with_name("out.jsonl.partial.json").unlink()
    with pytest.raises(ConfigError, match="another input"):
        score_file(LengthScorer(), rows(30), tmp_path / "out.jsonl", progress=False)


def test_a_shorter_input_is_refused(tmp_path):
    stop_halfway(tmp_path)
    with pytest.raises(DataError, match="ends with row 11"):
        score_file(LengthScorer(), rows(5), tmp_path / "out.jsonl", progress=False)


def test_a_finished_file_is_safe(tmp_path):
    score_file(LengthScorer(), rows(3), tmp_path / "out.jsonl", progress=False)
    with pytest.raises(ConfigError, match="exists"):
        score_file(LengthScorer(), rows(5), tmp_path / "out.jsonl", progress=False)
    assert len(read(tmp_path / "out.jsonl")) == 3
    score_file(LengthScorer(), rows(5), tmp_path / "out.jsonl", overwrite=True, progress=False)
    assert len(read(tmp_path / "out.jsonl")) == 5


def test_a_wrong_number_of_scores_is_no_score(tmp_path):
    class Forgets(LengthScorer):
        def score(self, conversations):
            return super().score(conversations)[1:]

    with pytest.raises(ContractError, match="2 scores for 3"):
        score_file(Forgets(), rows(3), tmp_path / "out.jsonl", progress=False)


def test_unknown_endings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\.jsonl or \.parquet"):
        score_file(LengthScorer(), rows(3), tmp_path / "out.txt", progress=False)


def test_what_a_server_measures_is_written_beside_the_scores(tmp_path):
    import pyarrow.parquet as pq

    class Measures(LengthScorer):
        def one(self, text):
            return Score(len(text), probability=0.25, distance=2.0, out_of_distribution=len(text) > 2, contract="c")

    wanted = {"probability": [0.25] * 2, "distance": [2.0] * 2, "out_of_distribution": [False, True]}
    for name in ("out.jsonl", "out.parquet"):
        score_file(Measures(), [row(0, "ab", "abc")], tmp_path / name, progress=False)
    (line,) = read(tmp_path / "out.jsonl")
    (kept,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert {name: line[name] for name in wanted} == {name: kept[name] for name in wanted} == wanted


def test_parquet(tmp_path):
    import pyarrow.parquet as pq

    score_file(LengthScorer(), [row(0, "ab", id=7), row(1, "fail")], tmp_path / "out.parquet", progress=False)
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(r["index"], r["id"], r["scores"], r["status"], r["reason"]) for r in found] == [
        (0, "7", [2.0], "ok", None),
        (1, None, [None], "error", "cannot read it"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_input_identity_follows_the_content(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("one")
    first = input_identity(path)
    path.write_text("two")
    assert input_identity(path) != first
    path.write_text("one")
    assert input_identity(path) == first


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(n):
        tracemalloc.start()
        score_file(Constant(), (ScoreRow(i, {}, [()], None) for i in range(n)), tmp_path / f"{n}.jsonl", progress=False)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    class Constant:
        def score(self, conversations):
            return [Score(1.0)] * len(conversations)

    small, large = peak(2_000), peak(40_000)
    assert large < small + 200_000  # bytes; the 40,000 output rows alone would be 3 MB
    assert (tmp_path / "40000.jsonl").stat().st_size > 3_000_000


SLOW = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_score_file import LengthScorer, rows, score_file
class Slow(LengthScorer):
    def score(self, conversations):
        time.sleep(0.02)
        return super().score(conversations)
score_file(Slow(), rows(400), sys.argv[1], batch=2, progress=False)
"""


def start(output):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(output), str(Path(__file__).parent)], stderr=subprocess.PIPE
    )


def wait_for_rows(partial, child):
    for _ in range(600):
        if partial.exists() and partial.stat().st_size > 500:
            return
        assert child.poll() is None, child.stderr.read().decode()
        time.sleep(0.05)
    raise AssertionError("the child wrote nothing in 30 s")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_kill_minus_nine(tmp_path):
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    child = start(output)
    try:
        wait_for_rows(partial, child)
        with pytest.raises(ConfigError, match="another process"):
            score_file(LengthScorer(), rows(400), output, progress=False)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert not output.exists()
    with partial.open("ab") as file:
        file.write(b'{"index": 999, "scor')
    scorer = LengthScorer()
    summary = score_file(scorer, rows(400), output, progress=False)
    assert 0 < summary.resumed < 400
    assert len(scorer.seen) == 400 - summary.resumed
    score_file(LengthScorer(), rows(400), tmp_path / "whole.jsonl", progress=False)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_nothing_in_nothing_out(tmp_path):
    summary = score_file(LengthScorer(), [], tmp_path / "out.jsonl", progress=False)
    assert (summary.rows, (tmp_path / "out.jsonl").read_text()) == (0, "")


def test_not_a_number_never_reaches_the_file(tmp_path):
    class Broken(LengthScorer):
        def one(self, text):
            return Score(math.inf)

    score_file(Broken(), rows(1), tmp_path / "out.jsonl", progress=False)
    assert read(tmp_path / "out.jsonl")[0]["reason"] == "the model returned inf"
