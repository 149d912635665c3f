"""Pairs to label: their worth is the information of BALD, computed here by hand, and none is repeated, empty or unusable."""

from __future__ import annotations

import json
import math

import pytest
from policy_folders import metrics, sample, write_run

from guerdon.data.rows import stream_conversations
from guerdon.diagnose.labelling import pairs_to_label, write_to_label
from guerdon.types import ConfigError, DataError


def entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def run_with(tmp_path, *samples):
    return write_run(tmp_path / "run", [metrics(1)], samples)


def test_members_that_contradict_each_other_are_worth_bald(tmp_path):
    run = run_with(
        tmp_path,
        sample(1, 0, "a", 1.0, members=(2.0, 0.0)),
        sample(1, 0, "b", 1.0, members=(0.0, 2.0)),  # against a: p = sigmoid(2), sigmoid(-2), mean 1/2
        sample(1, 0, "c", 1.0, members=(2.0, 0.0)),
    )
    (pair,) = pairs_to_label(run)
    assert pair.samples == (0, 1)
    assert pair.information == pytest.approx(math.log(2) - entropy(sigmoid(2)))
    assert pair.why == "1 of 2 members of the reward prefer the first answer, 1 the second."


def test_members_that_agree_are_worth_nothing_however_unsure(tmp_path):
    run = run_with(tmp_path, sample(1, 0, "a", 1.0, members=(1.0, 1.0)), sample(1, 0, "b", 1.0, members=(1.0, 1.0)))
    assert pairs_to_label(run)[0].information == pytest.approx(0, abs=1e-12)


def test_held_out_is_a_source_of_its_own_beside_the_members(tmp_path):
    """Members agree on p = sigmoid(1); held-out differs by 2 in units of its deviation, sqrt(2) times half the gap."""
    run = run_with(
        tmp_path,
        sample(1, 0, "a", 1.0, held_out=0.0, members=(1.0, 1.0)),
        sample(1, 0, "b", 0.0, held_out=0.4, members=(0.0, 0.0)),
    )
    (pair,) = pairs_to_label(run)
    p, q = sigmoid(1), sigmoid(-0.4 / (0.4 / math.sqrt(2)))
    assert pair.information == pytest.approx(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2)
    assert pair.why == "The reward prefers the first answer, held-out the second."


def test_without_members_an_undecided_pair_and_a_contradicted_one_come_before_a_clear_one(tmp_path):
    run = run_with(
        tmp_path,
        *(sample(1, 0, text, reward, held) for text, reward, held in (("a", 0.0, 0.0), ("b", 4.0, 1.0))),
        *(sample(1, 1, text, reward, held) for text, reward, held in (("a", 0.0, 1.0), ("b", 4.0, 0.0))),
        *(sample(1, 2, text, reward) for text, reward in (("a", 1.0), ("b", 1.01))),
    )
    pairs = pairs_to_label(run)
    assert [pair.a["group"] for pair in pairs] == [2, 1, 0]
    reward = math.sqrt((8 + 8 + 0.00005) / 3)  # standard deviations within prompts; that of held-out is sqrt(1/2)
    p, q = sigmoid(4 / reward), sigmoid(1 / math.sqrt(0.5))
    values = [entropy(sigmoid(0.01 / reward)), entropy((p + 1 - q) / 2), entropy((p + q) / 2)]
    assert [pair.information for pair in pairs] == pytest.approx(values)
    assert "can hardly decide: the answers lie 0.00 standard deviations" in pairs[0].why
    assert pairs[1].why == "The reward prefers the second answer, held-out the first."


def test_later_steps_come_first_among_equals_and_a_prompt_comes_once(tmp_path):
    members = {"a": (2.0, 0.0), "b": (0.0, 2.0)}
    rows = [
        sample(step, group, text, 1.0, members=m)
        for step in (1, 2, 3)
        for group in (0, 1)
        for text, m in members.items()
    ]
    run = run_with(tmp_path, *[row for row in rows if not (row["step"] == 3 and row["group"] == 0)])
    pairs = pairs_to_label(run)
    assert [(pair.a["step"], pair.a["group"]) for pair in pairs] == [(3, 1), (2, 0)]


def test_equal_texts_and_answers_without_a_reward_are_left_out(tmp_path):
    run = run_with(
        tmp_path,
        sample(1, 0, "same", 1.0, members=(2.0, 0.0)),
        sample(1, 0, " same\n", 1.0, members=(0.0, 2.0)),
        sample(1, 1, "a", 1.0),
        sample(1, 1, "b", None),
        sample(1, 2, "alone", 1.0),
    )
    assert write_to_label(run) == 0
    assert (run / "to_label.jsonl").read_text() == ""


def test_the_file_is_capped_counted_and_read_back_as_conversations(tmp_path):
    rows = [sample(1, group, text, r) for group in range(5) for text, r in (("a", 0.1 * group), ("b", 0.0))]
    run = run_with(tmp_path, *rows)
    assert write_to_label(run, most=3) == 3
    read = list(stream_conversations(run / "to_label.jsonl"))
    assert [row.problem for row in read] == [None] * 3
    assert [[m["content"] for m in one] for one in read[0].conversations] == [["question 0", "a"], ["question 0", "b"]]
    first = json.loads((run / "to_label.jsonl").read_text().splitlines()[0])
    assert first["id"] == "run:1:0:0-1"
    assert (first["run"], first["step"], first["group"], first["samples"]) == ("run", 1, 0, [0, 1])
    assert first["rewards"] == [0.0, 0.0]


def test_a_file_that_cannot_be_made_leaves_the_old_one(tmp_path):
    run = run_with(tmp_path, sample(1, 0, "a", 1.0), sample(1, 0, "b", 2.0))
    write_to_label(run)
    before = (run / "to_label.jsonl").read_text()
    (run / "samples.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError, match=r"samples\.jsonl:1"):
        write_to_label(run)
    assert (run / "to_label.jsonl").read_text() == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_bad_calls_are_said(tmp_path):
    with pytest.raises(DataError, match=r"no samples\.jsonl"):
        write_to_label(tmp_path)
    with pytest.raises(ConfigError, match="at least 1"):
        pairs_to_label(run_with(tmp_path, sample(1, 0, "a", 1.0)), most=0)
