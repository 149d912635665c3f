"""The rater model finds what was planted, and its statistics are those of the reference implementations."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from guerdon.data.bradley_terry import bradley_terry
from guerdon.data.collusion import couples
from guerdon.data.krippendorff import alpha
from guerdon.data.likelihood import NODES, Parameters, blocks, outcome_odds
from guerdon.data.posterior import better
from guerdon.data.raters import fit_raters
from guerdon.data.votes import votes_of
from tests.adapters.consumers import consumers
from tests.data.study import simulate

SKILLS = [0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.6, 1.9, 2.4]
SIDES = [0.5, -0.5, 0.2, 0, 0.3, -0.3, 0, 0.1, 0.4, 0]


def lean(side: float, threshold: float) -> float:
    return (1 / (1 + math.exp(threshold - side)) - 1 / (1 + math.exp(threshold + side))) / 2


@pytest.fixture(scope="module")
def planted():
    return fit_raters(simulate(SKILLS, SIDES, questions=2500, overlap=4))


def test_planted_skill_and_side_are_found(planted) -> None:
    table = {row.rater: row for row in planted.table()}
    rows = [table[f"r{i:02d}"] for i in range(10)]
    assert spearmanr(SKILLS, [row.slope.value for row in rows])[0] >= 0.9
    errors = [abs(row.side.value - lean(side, 0.2)) for row, side in zip(rows, SIDES, strict=True)]
    assert np.mean(errors) < 0.02
    places = [planted.votes.raters.index(f"r{i:02d}") for i in range(10)]
    assert (np.abs(planted.p.side[places] - SIDES) < 3 * planted.deviations[places, 1]).all()
    inside = [
        row.slope.low * np.mean(SKILLS) <= skill <= row.slope.high * np.mean(SKILLS)
        for row, skill in zip(rows, SKILLS, strict=True)
    ]
    assert sum(inside) >= 8  # 95 % intervals


@pytest.mark.slow
def test_sides_within_three_hundredths() -> None:
    """3,000 votes by each rater: every side bias within 0.03 in probability."""
    table = {row.rater: row for row in fit_raters(simulate(SKILLS, SIDES, questions=6000, overlap=5)).table()}
    rows = [table[f"r{i:02d}"] for i in range(10)]
    assert max(abs(row.side.value - lean(side, 0.2)) for row, side in zip(rows, SIDES, strict=True)) < 0.03
    assert spearmanr(SKILLS, [row.slope.value for row in rows])[0] >= 0.95


def test_the_same_judgements_give_the_same_numbers() -> None:
    given = simulate(SKILLS[:4], SIDES[:4], questions=60, overlap=3)
    first, second = fit_raters(given), fit_raters(given)
    assert (first.p.skill == second.p.skill).all()
    assert (better(first) == better(second)).all()


def test_turning_every_question_round_turns_every_answer() -> None:
    given = simulate(SKILLS[:4], SIDES[:4], questions=80, overlap=3)
    turned = [
        replace(
            j,
            question=replace(j.question, completions=j.question.completions[::-1]),
            order=tuple(1 - c for c in j.order),
            ranks=j.ranks[::-1],
        )
        for j in given
    ]
    np.testing.assert_allclose(better(fit_raters(given)), 1 - better(fit_raters(turned)), atol=1e-4)


def test_probabilities_are_calibrated() -> None:
    """p(better) predicts how a typical rater, who is not in the data, decides."""
    given = simulate([1.0] * 8, [0.0] * 8, threshold=0.0, questions=1500, overlap=4, seed=3)
    held = {}
    for judgement in given:
        held[judgement.question.id] = judgement  # the last one of each question
    rest = [j for j in given if held[j.question.id] is not j]
    model = fit_raters(rest)
    p = better(model)
    won = np.array([held[q.id].ranks[0] < held[q.id].ranks[1] for q in model.votes.questions])
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (p >= low) & (p < low + 0.25)
        assert abs(won[chosen].mean() - p[chosen].mean()) < 0.06


def test_the_likelihood_is_a_probability_and_its_slopes_are_right() -> None:
    votes = votes_of(simulate(SKILLS[:3], SIDES[:3], questions=20, overlap=2))
    p = Parameters(np.array([0.5, 1.0, 2.0]), np.array([0.2, -0.3, 0.0]), np.log([0.2, 0.4, 0.1]), 1.5, True)
    np.testing.assert_allclose(outcome_odds(p, votes.rater, votes.side).sum(axis=1), 1)
    (block,) = blocks(votes, p)
    np.testing.assert_allclose(
        np.exp(block.log)[votes.outcome == 1], outcome_odds(p, votes.rater, votes.side)[votes.outcome == 1, 0]
    )
    h = 1e-5
    (up,), (down,) = (list(blocks(votes, replace(p, side=p.side + d))) for d in (h, -h))
    np.testing.assert_allclose((up.log - down.log) / (2 * h), block.eta * votes.side[:, None], atol=1e-6)
    (up,), (down,) = (list(blocks(votes, replace(p, tie=np.log(p.threshold + d)))) for d in (h, -h))
    np.testing.assert_allclose((up.log - down.log) / (2 * h), block.tau, atol=1e-5)
    assert block.weight.shape == (len(votes.question), len(NODES))


def test_colluders_are_found_and_honest_raters_are_not() -> None:
    wrong = tested = 0
    for seed in range(3):
        given = simulate([1.0] * 12, [0.1] * 12, questions=900, overlap=3, copiers=3 if seed < 2 else 0, seed=seed)
        found = couples(votes_of(given))
        flagged = {(c.first, c.second) for c in found if c.flagged}
        planted = {("r00", "r01"), ("r00", "r02"), ("r01", "r02")} if seed < 2 else set()
        assert {tuple(sorted(pair)) for pair in flagged} >= planted
        wrong += len(flagged) - len(planted)
        tested += len(found) - len(planted)
    assert wrong == 0  # of about 190 honest couples
    assert tested > 180


def test_what_cannot_be_known_is_said() -> None:
    alone = fit_raters(simulate([1.0, 2.0], [0.5, 0.0], questions=200, overlap=1))
    assert not alone.identified
    assert "skills cannot be told apart: 0 pairs have two votes" in alone.note
    assert (alone.p.skill == 1).all()
    assert not any(row.known for row in alone.table())
    unordered = fit_raters([replace(j, order=()) for j in simulate([1.0] * 3, [0.5] * 3, questions=60)])
    assert "side bias is unknown" in unordered.note
    assert all(math.isnan(row.side.low) for row in unordered.table())
    assert fit_raters([]).table() == []


def test_alpha_and_strengths_are_those_of_evalica() -> None:
    evalica, pandas = pytest.importorskip("evalica"), pytest.importorskip("pandas")
    rng = random.Random(0)
    unit, value, who = zip(
        *[(u, rng.choice([-1.0, 0.0, 1.0, 1.0]), r) for u in range(80) for r in range(5) if rng.random() < 0.6],
        strict=True,
    )
    frame = pandas.DataFrame({"u": unit, "r": who, "v": value}).pivot(index="r", columns="u", values="v")
    for distance in ("nominal", "interval"):
        ours = alpha(np.array(unit), np.array(value), distance)
        assert ours == pytest.approx(evalica.alpha(frame, distance=distance).alpha, abs=1e-6)
    first, second = np.array([(rng.randrange(6), rng.randrange(5)) for _ in range(400)]).T
    second = np.where(second >= first, second + 1, second)
    outcome = np.array([rng.choice([1, -1, 0]) for _ in first])
    names = {1: evalica.Winner.X, -1: evalica.Winner.Y, 0: evalica.Winner.Draw}
    theirs = evalica.bradley_terry(
        first.tolist(), second.tolist(), [names[o] for o in outcome], tolerance=1e-12, limit=10_000
    ).scores
    theirs = np.array([theirs[i] for i in range(6)])
    np.testing.assert_allclose(bradley_terry(first, second, outcome, 6), theirs / theirs.sum(), atol=1e-6)


def test_alpha_by_hand() -> None:
    # two units: values {1,1} and {1,0}: D_o = (0 + 2)/4, D_e = 2*3*1/(4*3) = 1/2 -> alpha = 0
    assert alpha(np.array([0, 0, 1, 1]), np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(0.0)
    assert math.isnan(alpha(np.array([0, 0]), np.array([1.0, 1.0])))


def test_skills_and_pairs_are_those_of_noisy_bradley_terry() -> None:
    """crowd-kit's model has no slope but a share of answers by attention: pairs in the same order, skills no worse than its own."""
    given = simulate(SKILLS, SIDES, threshold=0.0, questions=150, overlap=9)
    rows = [(f"{j.question.id} {j.order[0]}", f"{j.question.id} {j.order[1]}", j.rater,
             f"{j.question.id} {0 if j.ranks[0] < j.ranks[1] else 1}") for j in given]  # fmt: skip
    with consumers("crowdkit", "transformers", "nltk"):
        import pandas as pd
        from crowdkit.aggregation import NoisyBradleyTerry

        oracle = NoisyBradleyTerry(n_iter=100).fit(pd.DataFrame(rows, columns=["left", "right", "worker", "label"]))
    model = fit_raters(given)
    planted = [SKILLS[int(rater[1:])] for rater in model.votes.raters]
    theirs = spearmanr(planted, [oracle.skills_[rater] for rater in model.votes.raters])[0]
    assert spearmanr(planted, model.p.skill)[0] >= max(0.9, theirs)
    gaps = [oracle.scores_[f"{q.id} 0"] - oracle.scores_[f"{q.id} 1"] for q in model.votes.questions]
    assert spearmanr(gaps, better(model))[0] >= 0.9
