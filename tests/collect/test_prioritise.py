"""`guerdon collect prioritise`: what a reward model says of the open questions becomes weights that `next` draws by."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from guerdon.cli import main
from guerdon.collect.prioritise import Seen, last_report, open_questions, projected, weights
from guerdon.collect.settings import Settings
from guerdon.collect.store import Store
from guerdon.types import Judgement, Question


def question(i, k=2):
    return Question(
        prompt=({"role": "user", "content": f"question {i}"},),
        completions=tuple(({"role": "assistant", "content": "word " * (1 + (i + j) % 5) + str(i)},) for j in range(k)),
        id=f"q{i}",
    )


def seen(i, rewards, rng, width=6):
    return Seen(question(i), np.array(rewards, dtype=float), rng.normal(size=(2, width)))


def test_weights_of_both_arms_and_what_could_not_be_scored():
    rng = np.random.default_rng(1)
    pool = [seen(i, (i, 0), rng) for i in range(6)] + [seen(9, (math.nan, 0), rng)]
    found = weights(pool, [seen(20, (1, 0), rng)], batch=3)
    assert found["uncertain"] == {f"q{i}": pytest.approx(1 / (i + 1)) for i in range(6)}  # nearest to 0 first
    assert sorted(found["d-optimal"].values(), reverse=True) == pytest.approx([1 / r for r in range(1, 7)])
    assert set(found["d-optimal"]) == {f"q{i}" for i in range(6)}
    assert weights([], [], 3) == {"uncertain": {}, "d-optimal": {}}


def test_projection_keeps_inner_products_roughly():
    rng = np.random.default_rng(2)
    h = rng.normal(size=(40, 3000))
    small = projected(h, 512)
    assert small.shape == (40, 512)
    assert np.corrcoef((h @ h.T).ravel(), (small @ small.T).ravel())[0, 1] > 0.95
    assert projected(h[:, :100]) is not None
    assert projected(h[:, :100]).shape == (40, 100)


@pytest.fixture(scope="module")
def model(tmp_path_factory, make_backbone):
    from guerdon.model.reward import RewardModel

    folder = tmp_path_factory.mktemp("prioritise")
    for seed in (1, 2):
        RewardModel.load(make_backbone(folder / "base"), seed=seed).save(folder / f"model{seed}")
    return folder


def test_the_command_ranks_open_questions_and_next_uses_them(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open("study.db") as store:
        store.create_study("s", Settings(random=0.2, arms=("d-optimal",), overlap=1, gold=0, attention=0, repeats=0))
        store.add_questions("s", [question(i) for i in range(20)])
        for i in range(3):
            store.submit(
                Judgement(
                    f"j{i}", "ann", "human", question(i), (0, 1), "ranked", (0, 1), arm="random", probability=0.05
                ),
                "s",
            )
        assert open_questions(store, "s") == {f"q{i}" for i in range(3, 20)}
    main(f"collect prioritise s --model {model}/model1 --batch 5".split())
    said = capsys.readouterr().out
    assert "17 open questions ranked, 3 with labels" in said
    assert "Not yet known" in said
    with Store.open("study.db") as store:
        given = [store.next("s", f"rater{i}") for i in range(17)]
        assert {a.question.id for a in given} == {f"q{i}" for i in range(3, 20)}
        assert Counter(a.arm for a in given)["d-optimal"] >= 5
        at, name, report = last_report(store, "s")
        assert name.endswith("model1")
        assert report.verdict == "not yet known"
        assert at > 0
    main(f"collect prioritise s --model {model}/model1,{model}/model2 --most 10".split())
    assert "10 open questions ranked" in capsys.readouterr().out


def test_the_command_says_what_is_missing(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open("study.db") as store:
        store.create_study("s", Settings())
        assert last_report(store, "s") is None
    for arguments, sentence in (("--batch 0", "at least 1"), ("", "no open question")):
        with pytest.raises(SystemExit):
            main(f"collect prioritise s --model {model}/model1 {arguments}".split())
        assert sentence in capsys.readouterr().err
    with Store.open("study.db") as store:
        store.add_questions("s", [question(i) for i in range(4)])
    main(f"collect prioritise s --model {model}/model1".split())
    assert "no active arm" in capsys.readouterr().out


def test_the_trial_runs_when_every_question_is_answered(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open("study.db") as store:
        store.create_study("s", Settings(overlap=1, random=0.5, arms=("uncertain",)))
        store.add_questions("s", [question(i) for i in range(200)])
        for i in range(200):
            arm = "random" if i < 130 else "uncertain"
            order, ranks = (0, 1), (0, 1) if i % 3 else (1, 0)
            store.submit(
                Judgement(f"j{i}", "ann", "human", question(i), order, "ranked", ranks, arm=arm, probability=0.01), "s"
            )
        assert open_questions(store, "s") == set()
    main(f"collect prioritise s --model {model}/model1".split())
    said = capsys.readouterr().out
    assert "no question is open any more, 200 with labels" in said
    assert "labels each" in said
    with Store.open("study.db") as store:
        assert last_report(store, "s")[2].labels >= 60
