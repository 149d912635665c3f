"""The trial of active selection, on simulated studies in which the truth is known."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from guerdon.collect.selection import LEAST, SelectionReport, _importance, fit, selection_report
from guerdon.types import Judgement, Question


def study(n, seed, *, width=6, quality=1.0, active="same"):
    """(judgements, features): half by the random arm, half by an active one whose labels are `same`, `noise` or `better`."""
    rng = np.random.default_rng(seed)
    theta, judgements, features = rng.normal(size=width), [], {}
    for i in range(n):
        arm = "random" if i % 2 == 0 else "uncertain"
        question = Question(
            prompt=({"role": "user", "content": f"{seed}-{i}"},),
            completions=tuple(({"role": "assistant", "content": f"{i} {side}"},) for side in "ab"),
            id=f"q{i}",
        )
        h = rng.normal(size=(2, width))
        margin = quality * float((h[0] - h[1]) @ theta)
        if arm == "uncertain" and active == "noise":
            margin = 0.0
        first = rng.random() < 1 / (1 + math.exp(-margin))
        ranks = (0.0, 1.0) if first else (1.0, 0.0)
        if arm == "random" and active == "better" and rng.random() < 0.85:
            ranks = (0.0, 0.0)  # most pairs that chance chooses are ties, which teach little
        features[question.id] = h
        judgements.append(
            Judgement(
                str(i),
                f"r{i % 5}",
                "human",
                question,
                (0, 1),
                "ranked",
                ranks,
                arm=arm,
                probability=1 / 500,
            )
        )
    return judgements, features


def test_labels_that_say_nothing_earn_nothing():
    report = selection_report(*study(1200, 1, active="noise"), resamples=60)
    assert report.verdict == "no gain"
    assert report.high < 0
    assert report.random > 0.7 > report.active
    assert "switch it off" in report.sentence


def test_labels_that_say_more_earn_their_keep():
    report = selection_report(*study(4000, 2, width=40, quality=1.0, active="better"), resamples=24)
    assert report.verdict == "earns"
    assert report.low > 0
    assert report.gain == pytest.approx(report.active - report.random)
    assert f"{100 * report.gain:+.1f} points" in report.sentence


def test_an_arm_that_is_chance_in_disguise_seldom_earns():
    """Both arms are the same here, so that an interval of 95 % should lie above 0 in 2.5 % of studies."""
    reports = [selection_report(*study(500, 100 + seed, quality=0.5), resamples=24) for seed in range(12)]
    assert sum(r.verdict == "earns" for r in reports) <= 2
    assert sum(r.low <= 0 <= r.high for r in reports) >= 10
    assert abs(np.mean([r.gain for r in reports])) < 0.02


def test_too_little_is_not_yet_known():
    judgements, features = study(2 * LEAST, 3)
    report = selection_report(judgements, features)
    assert report.verdict == "not yet known"
    assert "too few" in report.sentence
    assert math.isnan(report.gain)
    chance = [j for j in judgements if j.arm == "random"]
    assert "no labels of the active arms" in selection_report(chance, features).sentence
    assert (
        "no labels of the random arm"
        in selection_report([j for j in judgements if j.arm != "random"], features).sentence
    )
    assert selection_report([], {}).verdict == "not yet known"
    machines = [replace(j, kind="model") for j in study(1000, 4)[0]]
    assert "no labels" in selection_report(machines, study(1000, 4)[1]).sentence  # people only


def test_importance_compares_with_the_nearest_random_judgement():
    judgements, _ = study(6, 5)
    chances = [1 / 100, 1 / 50, 1 / 80, 1 / 160, 1 / 60, 1 / 6000]
    judgements = [replace(j, probability=p) for j, p in zip(judgements, chances, strict=True)]
    assert _importance(judgements) == pytest.approx([1, 50 / 100, 1, 160 / 80, 1, 10.0])


def test_a_study_of_rankings_and_ties_can_be_measured():
    rng = np.random.default_rng(6)
    judgements, features = [], {}
    for i in range(600):
        question = Question(
            prompt=({"role": "user", "content": str(i)},),
            completions=tuple(({"role": "assistant", "content": f"{i} {j}"},) for j in range(3)),
            id=f"q{i}",
        )
        h = rng.normal(size=(3, 4))
        features[question.id] = h
        ranks = tuple(float(v) for v in np.round(-h[:, 0]))
        arm = "random" if i % 2 else "d-optimal"
        judgements.append(
            Judgement(str(i), "r", "human", question, (0, 1, 2), "ranked", ranks, arm=arm, probability=0.01)
        )
    report = selection_report(judgements, features, resamples=20)
    assert report.random > 0.9
    assert report.labels == 150
    assert report.held_out == 150


def test_a_report_survives_being_written_down():
    report = SelectionReport("earns", "yes", 5, 6, 0.7, 0.8, 0.1, 0.05, 0.15)
    again = SelectionReport.from_dict(asdict(report) | {"later": 1})
    assert again.sentence == "yes"
    assert again.high == 0.15


def test_the_fit_is_a_logistic_regression():
    from scipy.optimize import minimize

    from guerdon.collect.selection import SPREAD, _labels

    judgements, features = study(80, 8, width=3)
    labels = _labels([(j, 1.0, i) for i, j in enumerate(judgements)], features)
    theta = fit(labels, np.arange(80), np.ones(80))

    def loss(w):
        m = labels.z @ w
        return (
            -np.sum(np.where(labels.target == 1, -np.log1p(np.exp(-m)), -np.log1p(np.exp(m))))
            + 3 / SPREAD**2 / 2 * w @ w
        )

    np.testing.assert_allclose(theta, minimize(loss, np.zeros(3)).x, atol=1e-3)
