"""Best-of-n over files: what is written, masked, resumed, and summed up."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_models import chat
from tiny_policy import tiny_policy

from guerdon import cli
from guerdon.data.demonstrations import load_demonstrations
from guerdon.optimize.best_of_n import BestOfN, best_of_n
from guerdon.optimize.best_of_n_summary import summarise
from guerdon.optimize.generate import Sampling
from guerdon.optimize.pick import Picking
from guerdon.optimize.policy import Policy
from guerdon.types import ConfigError, Conversation, Score


class Words:
    """A reward that counts words, and cannot score answers that hold `broken`."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign, self.calls = sign, 0

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        self.calls += 1
        texts = [conversation[-1]["content"] for conversation in conversations]
        return [
            Score(0, "error", reason="broken") if "broken" in text else Score(self.sign * len(text.split()))
            for text in texts
        ]


@pytest.fixture(scope="module")
def base(tmp_path_factory, make_tokenizer) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("bon") / "base", make_tokenizer)


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


POOLS = [
    {"id": "a", "prompt": "p", "completions": ["one", "one two", "broken"]},
    {"prompt": "q", "completions": ["broken", "broken two"]},
    {"question": "no candidates"},
    {"prompt": "r", "completions": ["x", "x y", "x y z"]},
]


def test_given_candidates_are_picked_masked_and_counted(tmp_path):
    out = tmp_path / "out.jsonl"
    summary = best_of_n([write(tmp_path / "in.jsonl", POOLS)], out, Words(), plan=BestOfN(), held_out=Words(-1))
    rows = read(out)
    assert [row["status"] for row in rows] == ["ok", "masked", "error", "ok"]
    assert [row["completion"] for row in rows] == ["one two", None, None, "x y z"]
    assert rows[0] | {"prompt": None} == {
        "index": 0, "id": "a", "prompt": None, "completion": "one two", "status": "ok", "pick": 1, "picked_score": 2.0, "value": 2.0,
        "margin": 1.0, "n": 3, "scored": 2, "scores": [1.0, 2.0, None], "held_out": [-1.0, -2.0, None],
    }  # fmt: skip
    assert rows[1]["reason"] == "broken"
    assert rows[1]["scores"] == [None, None]
    assert rows[2]["reason"].startswith("nothing to score in the columns 'question'")
    assert (summary.rows, summary.candidates, summary.masked) == (4, 8, 3)
    assert summary.picked.mean == pytest.approx((-2 - 3) / 2)
    assert summary.chance.mean == pytest.approx((-1.5 - 2) / 2)
    assert summary.gain.mean == pytest.approx(-0.75)
    learned = load_demonstrations([str(out)])  # the file is what sft reads
    assert [answer.answer for answer in learned.answers] == ["one two", "x y z"]
    assert learned.dropped == {"no answer": 2}


def test_ladder_is_the_mean_over_all_subsets(tmp_path):
    pools = [["a", "a b c", "a b", "a b c d"], ["x y", "x", "x y z w v", "x y z"]]
    rows = [{"prompt": f"p{i}", "completions": pool} for i, pool in enumerate(pools)]
    out = tmp_path / "out.jsonl"
    summary = best_of_n([write(tmp_path / "in.jsonl", rows)], out, Words(), plan=BestOfN(), held_out=Words(-1))
    assert [rung.n for rung in summary.ladder] == [1, 2, 3, 4]
    for rung in summary.ladder:
        best = [
            max(len(text.split()) for text in subset)
            for pool in pools
            for subset in itertools.combinations(pool, rung.n)
        ]
        assert rung.reward.mean == pytest.approx(sum(best) / len(best))
        assert rung.held_out.mean == pytest.approx(-sum(best) / len(best))
        assert rung.kl == pytest.approx(math.log(rung.n) - (rung.n - 1) / rung.n)
    assert summary.prompts == 2
    assert summarise(out).ladder == summary.ladder


def test_sampled_candidates_carry_log_probabilities_of_the_policy(base, tmp_path):
    policy = Policy.load(base, device="cpu")
    data = write(tmp_path / "in.jsonl", [{"prompt": f"hello {i}"} for i in range(5)] + [{"prompt": "fox " * 400}])
    plan = BestOfN(4, Sampling(6), block=8, keep_all=True, max_prompt=200)
    best_of_n([data], tmp_path / "a.jsonl", Words(), plan=plan, policy=policy)
    best_of_n([data], tmp_path / "b.jsonl", Words(), plan=plan, policy=policy)
    rows = read(tmp_path / "a.jsonl")
    assert rows == read(tmp_path / "b.jsonl")
    assert rows[5]["status"] == "error"
    assert "more than --max-length 200" in rows[5]["reason"]
    assert all(len(row["completions"]) == len(row["scores"]) == len(row["logprobs"]) == 4 for row in rows[:5])
    assert all(value < 0 for row in rows[:5] for value in row["logprobs"])
    assert len({text for row in rows[:5] for text in row["completions"]}) > 10


def test_a_run_that_is_cut_short_goes_on_and_gives_the_same_file(base, tmp_path):
    policy = Policy.load(base, device="cpu")
    data = write(tmp_path / "in.jsonl", [{"prompt": f"hello {i}"} for i in range(10)])
    plan = BestOfN(3, Sampling(5), block=6)
    best_of_n([data], tmp_path / "whole.jsonl", Words(), plan=plan, policy=policy)

    class Dies(Words):
        def score(self, conversations: Sequence[Conversation]) -> list[Score]:
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().score(conversations)

    cut = tmp_path / "cut.jsonl"
    with pytest.raises(KeyboardInterrupt):
        best_of_n([data], cut, Dies(), plan=plan, policy=policy)
    partial = tmp_path / "cut.jsonl.partial"
    assert len(read(partial)) == 6
    with partial.open("a") as file:
        file.write(json.dumps(read(partial)[0]) + '\n{"torn')  # half a block, and half a row
    with pytest.raises(ConfigError, match="other data or options"):
        best_of_n([data], cut, Words(), plan=BestOfN(3, Sampling(5), block=6, seed=1), policy=policy)
    summary = best_of_n([data], cut, Words(), plan=plan, policy=policy)
    assert summary.resumed == 6
    assert read(cut) == read(tmp_path / "whole.jsonl")
    assert not partial.exists()
    with pytest.raises(ConfigError, match="exists"):
        best_of_n([data], cut, Words(), plan=plan, policy=policy)


def test_majority_needs_no_reward_and_nothing_else_does_without(tmp_path):
    rows = [{"prompt": "2 + 2?", "completions": ["answer is 4", "answer is 5", "#### 4", "no idea"]}]
    data = write(tmp_path / "in.jsonl", rows)
    summary = best_of_n([data], tmp_path / "o.jsonl", None, plan=BestOfN(picking=Picking("majority")))
    row = read(tmp_path / "o.jsonl")[0]
    assert (row["completion"], row["status"], row["scored"]) == ("answer is 4", "ok", 0)
    assert row["votes"] == [
        {"answer": "4", "count": 2, "share": pytest.approx(2 / 3)},
        {"answer": "5", "count": 1, "share": pytest.approx(1 / 3)},
    ]
    assert summary.ladder == ()
    with pytest.raises(ConfigError, match="--reward is missing"):
        best_of_n([data], tmp_path / "x.jsonl", None, plan=BestOfN())
    with pytest.raises(ConfigError, match="needs --policy"):
        best_of_n([data], tmp_path / "x.jsonl", Words(), plan=BestOfN(picking=Picking(logprob_weight=1.0)))


def test_command(tmp_path, capsys):
    data = write(tmp_path / "in.jsonl", [{"prompt": chat("hi"), "completions": ["a", "a b", "a b c d e f"]}] * 3)
    out, report = tmp_path / "out.jsonl", tmp_path / "out.json"
    words = ["optimize", "best-of-n", "--data", data, "--output", str(out), "--reward", "length=words:2:3:1.0"]
    cli.main([*words, "--held-out", "length=words:6:6:1.0", "--json", str(report)])
    assert [row["completion"] for row in read(out)] == ["a b"] * 3
    assert "3 rows (3 ok)" in capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["ladder"][-1]["n"] == 3
    assert found["picked"]["mean"] == -4.0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "p"}, {"prompt": "q"}], "none of 2 rows has a pick; give --policy to sample answers to prompts, or mend"),
        ([{"prompt": "p", "completions": ["a", "b"]}], "none of 1 rows has a pick; mend what is named above"),
    ],
)  # fmt: skip
def test_a_file_without_any_pick_is_an_error(tmp_path, capsys, rows, said):
    out, answers = tmp_path / "out.jsonl", tmp_path / "answers.jsonl"
    answers.write_text('{"prompt": "another", "answer": "a"}\n')
    words = ["optimize", "best-of-n", "--data", write(tmp_path / "in.jsonl", rows), "--output", str(out)]
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--reward", f"answer={answers}:1"])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert f"guerdon: {out}: {said}" in captured.err
    assert "rows without a pick: " in captured.out
