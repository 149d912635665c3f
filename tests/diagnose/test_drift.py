"""The drift check as a whole: what it concludes, from arrays, from tables, and from a model at the command line."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from guerdon.cli import main
from guerdon.diagnose import surface
from guerdon.diagnose.accuracy_lost import AccuracyLost
from guerdon.diagnose.drift import LENGTH, MODEL, SURFACE, Sample, measure_drift
from guerdon.diagnose.drift_measures import Measure
from guerdon.diagnose.drift_page import page, render
from guerdon.diagnose.drift_samples import draw, read_table
from guerdon.diagnose.drift_verdict import HOLDS, INSIDE, OUTSIDE, UNKNOWN, decide
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.columns import texts
from guerdon.evaluate.table import ScoreTable
from guerdon.types import Comparison, ConfigError, DataError

WORDS = "the a fox dog jumps over lazy quick brown world hello and then it was good".split()


def sample(rng, n=400, shift=0.0, name="r", dims=4, words=WORDS, members=0, drop=1.0):
    """`n` pairs of answers whose features are normal about `shift`; `drop` scales how often the reward is right."""
    features = rng.normal(shift, 1, size=(2 * n, dims))
    reward = features[:, 0] + 0.3 * rng.normal(size=2 * n)
    rows = [
        Comparison(
            ({"role": "user", "content": f"{name} {i}"},),
            tuple(({"role": "assistant", "content": " ".join(rng.choice(words, 12))},) for _ in range(2)),
            (1.0, 2.0) if (reward[2 * i] > reward[2 * i + 1]) == (rng.random() < 0.5 + 0.3 * drop) else (2.0, 1.0),
            id=f"{name}{i}",
        )
        for i in range(n)
    ]
    keys = [f"{name} {i}" for i in range(n)]
    table = ScoreTable.build(rows, reward.reshape(n, 2).tolist(), prompt_keys=keys)
    answers = [answer[0]["content"] for row in rows for answer in row.completions]
    judged = reward[:, None] + (0.1 + 0.3 * abs(shift)) * rng.normal(size=(2 * n, members))
    return Sample(features, reward, table.prompt, texts(answers), table.chars, judged, table.pairs())


def named(found):
    return {m.name: m for m in found.measures}


def test_answers_of_the_same_kind_are_inside():
    rng = np.random.default_rng(0)
    found = measure_drift(sample(rng), sample(rng, name="c"), sample(rng, name="f"), times=399)
    assert found.verdict == INSIDE
    assert found.compared == MODEL
    assert found.answers == (800, 800)
    assert (found.per_prompt, found.shared_prompts) == (2, 0)
    measures = named(found)
    assert measures["classifier AUC"].value == pytest.approx(0.5, abs=0.06)
    assert measures["reward spread"].value == pytest.approx(1, abs=0.1)
    assert not any(m.is_significant for m in found.measures)
    fresh, estimate = found.accuracy
    assert abs(fresh.loss) < 0.1
    assert fresh.reference == pytest.approx(0.8, abs=0.06)
    assert abs(estimate.loss) < 0.03
    assert found.curve is not None
    assert found.curve.n.sum() == 600  # 400 fresh pairs, and half of the reference ones


def test_a_shift_under_which_labels_show_a_loss_is_outside():
    rng = np.random.default_rng(1)
    current = sample(rng, shift=1.0, name="c", words=["sorry"], members=3)
    fresh = sample(rng, shift=1.0, name="f", drop=0.0)
    found = measure_drift(sample(rng, members=3), current, fresh, times=399)
    assert found.verdict == OUTSIDE
    measures = named(found)
    assert measures["disagreement"].value == pytest.approx(4.0, abs=0.5)  # 0.4 to 0.1
    assert measures["outliers"].low > 0.01
    assert measures["reward mean"].value == pytest.approx(1 / math.sqrt(1.09), abs=0.12)
    assert measures["repetition"].value == pytest.approx(2.0)  # from never to always
    assert measures["opener reuse"].current == 1.0
    assert found.accuracy[0].loss == pytest.approx(0.3, abs=0.07)
    assert found.accuracy[0].p_holm < 0.05
    assert "Stop optimising" in found.advice[0].text
    assert any("three words" in advice.text for advice in found.advice)


def test_a_shift_under_which_labels_hold_is_told_apart():
    rng = np.random.default_rng(2)
    found = measure_drift(
        sample(rng, n=1000), sample(rng, shift=0.7, name="c"), sample(rng, n=1000, shift=0.7, name="f"), times=399
    )
    assert found.verdict == HOLDS
    assert found.accuracy[0].high < 0.05


def test_without_labels_or_overlap_a_shift_is_outside():
    rng = np.random.default_rng(3)
    found = measure_drift(sample(rng), sample(rng, shift=3.0, name="c"), times=399)
    assert found.verdict == OUTSIDE
    assert found.accuracy[0].refused
    none = measure_drift(replace(sample(rng), pairs=None), sample(rng, shift=3.0, name="c"), times=399)
    assert (none.verdict, none.accuracy) == (OUTSIDE, ())
    assert any("--labels" in advice.text for advice in none.advice)


def test_few_answers_are_not_called_inside():
    rng = np.random.default_rng(4)
    found = measure_drift(sample(rng, n=20), sample(rng, n=20, name="c"), times=399)
    assert found.verdict == UNKNOWN
    with pytest.raises(DataError, match="current sample has 19 prompts"):
        measure_drift(sample(rng, n=30), sample(rng, n=19, name="c"))


def test_the_rule_of_the_verdict():
    calm = [Measure("classifier AUC", 0.52, 0.49, 0.55, 0.4, 1.0), Measure("MMD²", 0.0, p=0.5, p_holm=1.0)]
    wide = [replace(calm[0], high=0.7), calm[1]]
    moved = [replace(calm[0], value=0.8, low=0.77, high=0.83, p_holm=0.01), calm[1]]
    lost = AccuracyLost("fresh labels", 0.8, 0.6, 0.2, 0.1, 0.3, 0.001, 0.01)
    small = AccuracyLost("fresh labels", 0.8, 0.79, 0.01, -0.02, 0.04, 0.5, 1.0)
    unsure = replace(small, high=0.08)
    refused = AccuracyLost("importance weights", refused="few")
    assert decide(calm, []) == INSIDE
    assert decide(calm, [lost]) == OUTSIDE
    assert decide([calm[0], replace(calm[1], p_holm=0.01)], []) == OUTSIDE
    assert decide(wide, []) == UNKNOWN
    assert decide(moved, [small]) == HOLDS
    assert decide(moved, [unsure]) == OUTSIDE
    assert decide(moved, [unsure, replace(small, road="importance weights")]) == OUTSIDE
    assert decide(moved, [refused]) == OUTSIDE
    assert decide([replace(calm[0], low=math.nan, high=math.nan), calm[1]], []) == UNKNOWN


def test_missing_rewards_and_features_are_counted_and_left_out():
    rng = np.random.default_rng(5)
    reference, current = sample(rng, n=60), sample(rng, n=60, name="c")
    reward, features = current.reward.copy(), current.features.copy()
    reward[:7], features[:4] = math.nan, math.nan
    found = measure_drift(reference, replace(current, reward=reward, features=features), times=99)
    assert found.unscored == (0, 7)
    assert found.answers == (120, 116)
    assert len(found.rewards[1]) == 113
    blank = replace(current, reward=np.full(120, math.nan), text=texts([""] * 120))
    found = measure_drift(reference, blank, times=99)
    assert "reward mean" not in named(found)
    assert "characters" in named(found)
    assert any("Too few rewards" in advice.text for advice in found.advice)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["unscored"] == [0, 120]


def test_constant_features_tell_nothing():
    rng = np.random.default_rng(6)
    same = [replace(sample(rng, n=60, name=n), features=np.ones((120, 3))) for n in "rc"]
    found = named(measure_drift(*same, times=99))
    assert found["classifier AUC"].value == 0.5
    assert found["classifier AUC"].p == 1.0
    assert found["MMD²"].value == pytest.approx(0.0, abs=1e-12)
    assert found["outliers"].value == 0.0


def test_more_answers_per_prompt_on_one_side_are_thinned():
    rng = np.random.default_rng(7)
    many = sample(rng, n=60)
    one = sample(rng, n=60, name="c").where(np.arange(120) % 2 == 0)
    found = measure_drift(many, one, times=99)
    assert (found.per_prompt, found.answers) == (1, (60, 60))


def test_equal_samples_on_the_same_prompts_do_not_differ():
    rng = np.random.default_rng(8)
    reference = sample(rng, n=100)
    found = measure_drift(reference, reference, times=99)
    assert found.shared_prompts == 100
    assert named(found)["reward mean"].value == 0.0
    assert not any(m.is_significant for m in found.measures)


def test_surface_of_an_answer_by_hand():
    found = surface.columns(
        ["# Title\n\n- one\n- **two**\n\n```\nx\n```", "I'm sorry, but I cannot do that.", "a b a b a b a b", ""]
    )
    assert found["list"].tolist() == [1, 0, 0, 0]
    assert found["bold"].tolist() == [1, 0, 0, 0]
    assert found["heading"].tolist() == [1, 0, 0, 0]
    assert found["code"].tolist() == [1, 0, 0, 0]
    assert found["refusal"].tolist() == [0, 1, 0, 0]
    assert found["characters"].tolist() == [35, 32, 15, 0]
    assert found["repetition"][2:] == pytest.approx([3 / 5, 0])  # five 4-grams, two of them different
    assert found["distinct-2"][2:] == pytest.approx([2 / 7, 1])
    number, known = surface.openers(["The quick brown fox", "the quick brown dog", "Hello"])
    assert (number.tolist(), known) == ([1, 1, 0], ["hello", "the quick brown"])
    rows = surface.features(["hello world", "hello world", "other", "", "a"])
    assert np.isfinite(rows).all()
    assert (rows[0] == rows[1]).all()
    assert np.linalg.norm(rows[0, :256]) == pytest.approx(1.0)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def comparisons(n, seed=0, words=WORDS):
    rng = np.random.default_rng(seed)
    texts_ = [[" ".join(rng.choice(words, rng.integers(3, 9))) + f" {i}{side}" for side in "ab"] for i in range(n)]
    return [{"prompt": f"question {i}", "chosen": a, "rejected": b} for i, (a, b) in enumerate(texts_)]


class TestSamples:
    def test_the_seed_draws_the_same_prompts_from_every_kind_of_file(self, tmp_path):
        labelled = write_rows(tmp_path / "a.jsonl", comparisons(200))
        plain = [{"prompt": f"question {i}", "completions": ["x", "y", "z"]} for i in range(199, -1, -1)]
        many = write_rows(tmp_path / "b.jsonl", plain)
        one, two, other = draw(labelled, 50, 3), draw(many, 50, 3), draw(many, 50, 4)
        assert one.prompt == two.prompt
        assert len(one.prompt) == 50
        assert set(two.prompt) != set(other.prompt)
        assert one.comparisons is not None
        assert two.comparisons is None
        assert len(draw(many, 5000, 0).conversations) == 400  # two of each three

    def test_what_cannot_be_read_is_one_sentence(self, tmp_path):
        (tmp_path / "empty.jsonl").write_text("")
        with pytest.raises(DataError, match=r"empty.jsonl: the file is empty"):
            draw(str(tmp_path / "empty.jsonl"), 100, 0)
        odd = write_rows(tmp_path / "odd.jsonl", [{"question": "x"}] * 3)
        with pytest.raises(DataError, match=r"no row can be scored \(3 x nothing to score"):
            draw(odd, 100, 0)
        plain = write_rows(tmp_path / "plain.jsonl", [{"prompt": "x", "completion": "y"}])
        with pytest.raises(DataError, match="no format fits"):
            draw(plain, 100, 0, needs_labels=True)
        with pytest.raises(DataError, match="neither a score table"):
            read_table(plain, 100, 0)

    def test_broken_rows_are_counted(self, tmp_path):
        rows = [{"prompt": f"q{i}", "completion": "a"} for i in range(30)] + [{"prompt": "q", "completion": 5}]
        assert sum(draw(write_rows(tmp_path / "x.jsonl", rows), 100, 0).dropped.values()) == 1

    def test_tables_carry_their_scores(self, tmp_path):
        rng = np.random.default_rng(0)
        keys = [f"p{i // 3}" for i in range(300)]
        answers = [" ".join(rng.choice(WORDS, 8)) for _ in keys]
        built = CandidateTable.build(keys, rng.normal(size=300), text=answers, members=rng.normal(size=(300, 4)))
        built.write(tmp_path / "c.parquet")
        found = read_table(str(tmp_path / "c.parquet"), 120, 0)
        assert (len(found), len(set(found.prompt)), found.members.shape) == (120, 60, (120, 4))
        assert all(built.score[list(built.text).index(t)] == s for t, s in zip(found.text, found.reward, strict=True))
        drift = measure_drift(found, replace(found, prompt=texts([f"x{p}" for p in found.prompt])), times=99)
        assert drift.compared == SURFACE
        assert "disagreement" in named(drift)
        assert any("--model" in advice.text for advice in drift.advice)

    def test_a_score_table_is_compared_by_length(self, tmp_path):
        rng = np.random.default_rng(0)
        rows = [
            {"comparison": f"c{i}", "completion": j, "rank": j, "score": rng.normal() - j, "chars": rng.integers(9, 99)}
            for i in range(100)
            for j in (0, 1)
        ]
        path = write_rows(
            tmp_path / "s.jsonl", [{k: v if k == "comparison" else float(v) for k, v in r.items()} for r in rows]
        )
        found = read_table(path, 120, 0)
        assert (len(found), len(found.pairs)) == (120, 60)
        drift = measure_drift(found, replace(found, prompt=texts([f"x{p}" for p in found.prompt])), found, times=99)
        assert drift.compared == LENGTH
        assert drift.accuracy[0].loss == 0.0
        bare = replace(found, chars=np.full(120, math.nan))
        with pytest.raises(DataError, match="no texts and no lengths"):
            measure_drift(bare, bare)


class TestCommand:
    @pytest.fixture
    def model(self, make_backbone, tmp_path):
        import torch

        from guerdon.model.head import find_head
        from guerdon.model.reward import RewardModel

        model = RewardModel.load(make_backbone(tmp_path / "base"))
        with torch.no_grad():
            for parameter in find_head(model.net)[1].parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
        model.new_modules = ()
        model.save(tmp_path / "reward")
        return str(tmp_path / "reward")

    def test_a_shouting_policy_is_found(self, model, tmp_path, capsys):
        reference = write_rows(tmp_path / "reference.jsonl", comparisons(90))
        shout = [{"prompt": f"question {i}", "completions": [f"WOW {i} **!!!**"] * 2} for i in range(90)]
        current = write_rows(tmp_path / "current.jsonl", shout)
        fresh = write_rows(tmp_path / "fresh.jsonl", comparisons(60, 1))
        files = ["--reference", reference, "--current", current, "--labels", fresh]
        outputs = ["--json", str(tmp_path / "d.json"), "--html", str(tmp_path / "d.html")]
        main(["diagnose", "drift", "--model", model, *files, *outputs, "--resamples", "499"])
        found = json.loads((tmp_path / "d.json").read_text())
        measures = {m["name"]: m for m in found["measures"]}
        assert found["verdict"] == OUTSIDE
        assert found["compared"] == MODEL
        assert found["shared_prompts"] == 90
        assert measures["classifier AUC"]["value"] > 0.95
        assert measures["bold"]["current"] == 1.0
        assert found["accuracy"][0]["pairs"] == 60
        html = (tmp_path / "d.html").read_text()
        assert html.count("<svg") == 2  # too few labelled pairs for a curve
        assert "outside: collect fresh" in capsys.readouterr().out

    def test_options_that_make_no_sense(self, tmp_path):
        with pytest.raises(SystemExit):
            main(["diagnose", "drift", "--reference", "a", "--current", "b", "--resamples", "5"])


def test_the_page_stands_alone_and_escapes_what_it_is_told():
    from rich.console import Console

    rng = np.random.default_rng(9)
    found = measure_drift(sample(rng, n=300), sample(rng, n=60, name="c", shift=2.0), times=99)
    html = page(found, "A & B", {"data": "<script>alert(1)</script>"})
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "A &amp; B" in html
    assert html.count("<svg") == 3
    console = Console(record=True, width=80)
    console.print(render(found, "x"))
    shown = console.export_text()
    assert all(m.name in shown for m in found.measures)


def test_pictures_need_matplotlib(monkeypatch):
    import sys

    rng = np.random.default_rng(10)
    found = measure_drift(sample(rng, n=30), sample(rng, n=30, name="c"), times=99)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="matplotlib"):
        page(found, "x", {})
