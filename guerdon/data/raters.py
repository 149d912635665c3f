"""The rater model: how good each rater is, which side he leans to, when he calls a tie, and what the votes then mean.

In: votes. Out: a `RaterModel`, a table of raters with intervals, and p(better) for each pair of candidates. The likelihood
is in `likelihood.py`; here it is maximised together with priors that pull each rater towards the others as far as the
data do not say otherwise (maximum a posteriori, with the spread of the priors from the data: empirical Bayes).
Nobody is dropped: a rater in doubt simply has little weight in p(better). `docs/judgements.md` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from guerdon.data.likelihood import LOG_MASS, NODES, Parameters, blocks
from guerdon.data.votes import Floats, Ints, Votes, votes_of
from guerdon.types import Judgement

SPREADS = (0.5, 0.3, 0.5)  # standard deviations of skill, side and log threshold between raters, before the data speak
MIDDLES = np.array([1.0, 0.0, math.log(0.3)])  # of skill, side and log threshold, each with standard deviation 1
LOG_SCALE = 0.4  # log of the spread of quality differences in nats of the typical rater, with standard deviation 1
SPREAD_WEIGHT = 4.0  # raters' worth of evidence that `SPREADS` counts for
ROUNDS = 4  # of fitting and of estimating the spreads
MIN_SHARED = 20  # pairs judged by others too, below which a rater's skill is mostly his prior
MIN_REPEATED = 20  # pairs with two votes or more, below which skills are not fitted at all
Z95 = 1.959964


class Interval(NamedTuple):
    """An estimate with its 95 % limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RaterRow:
    """One rater. Probabilities, not nats, but for `slope`.

    votes     pairs of candidates that the rater ordered (or tied)
    shared    those of them that somebody else judged too: what the skill is known from
    slope     a: 1 is the typical rater, 0 is guessing, below 0 is the opposite of the others
    accuracy  probability that a decided vote names the better candidate, sides being even, over pairs of this data
    side      how much more often than not the first shown wins on an even pair: (P(first) - P(second)) / 2
    ties      probability of calling an even pair a tie
    known     False where fewer than `MIN_SHARED` votes are shared: slope and accuracy are then little but the prior
    """

    rater: str
    votes: int
    shared: int
    slope: Interval
    accuracy: Interval
    side: Interval
    ties: float
    known: bool


@dataclass(frozen=True, eq=False)
class RaterModel:
    """A fitted model.

    p           the parameters
    deviations  (R, 3) standard errors of skill, side and log threshold
    spreads     standard deviations of the three between raters, as estimated
    identified  False when too few pairs have two votes for skills to be told apart; all skills are then 1
    note        what could not be identified, and what to do; "" when all could
    """

    votes: Votes
    p: Parameters
    deviations: Floats
    spreads: tuple[float, float, float]
    identified: bool
    note: str

    def table(self) -> list[RaterRow]:
        """One row per rater, the most active first."""
        votes, p = self.votes, self.p
        counts = np.bincount(votes.rater, minlength=len(votes.raters))
        shared = np.bincount(votes.rater[_is_shared(votes)], minlength=len(votes.raters))
        rows = []
        for r, name in enumerate(votes.raters):
            slope = _interval(p.skill[r], self.deviations[r, 0])
            side = _interval(p.side[r], self.deviations[r, 1])
            c = float(p.threshold[r])
            known = self.identified and bool(shared[r] >= MIN_SHARED)
            rows.append(
                RaterRow(
                    name, int(counts[r]), int(shared[r]), slope,
                    Interval(*(_accuracy(a, p.scale) for a in slope)),
                    Interval(*(_lean(b, c) for b in side)),
                    1 - _sigmoid(side.value - c) - _sigmoid(-side.value - c), known,
                )
            )  # fmt: skip
        return sorted(rows, key=lambda row: -row.votes)


def fit_raters(judgements: Iterable[Judgement] | Votes, *, skill_spread: float | None = None) -> RaterModel:
    """Fit the model to ranked judgements. Deterministic: the same judgements give the same numbers.

    `skill_spread` fixes how far skills lie apart, which is otherwise learnt.

    Of a ranking of K candidates each of the C(K,2) pairs counts 2/K, in all K - 1 (a composite likelihood, see Varin,
    Reid and Firth 2011), and standard errors allow for the pairs of one ranking going together. Without two votes on at
    least `MIN_REPEATED` pairs skills stay at 1 and `note` says so; without a recorded order sides stay at 0.
    """
    votes = judgements if isinstance(judgements, Votes) else votes_of(judgements)
    count = len(votes.raters)
    repeated = int((np.diff(votes.starts) > 1).sum())
    ties = bool((votes.outcome == 0).any())
    p = Parameters(np.ones(count), np.zeros(count), np.full(count, math.log(0.3)), 1.5, ties)
    fits = (repeated >= MIN_REPEATED and count > 1, bool(votes.side.any()), ties)
    spreads, deviations = np.array(SPREADS), np.tile(SPREADS, (count, 1))
    rounds = 0 if not len(votes) else ROUNDS if skill_spread is None else 2
    for number in range(rounds):
        if skill_spread is not None:
            spreads[0] = skill_spread
        p, middle = _maximise(votes, p, spreads, deviations, fits, 1e-11 if number == rounds - 1 else 1e-7)
        deviations = _deviations(votes, p, spreads, fits)
        found = np.stack([p.skill, p.side, p.tie], axis=1) - middle
        evidence = (np.square(found) + np.square(deviations)).sum(axis=0) + SPREAD_WEIGHT * np.square(SPREADS)
        spreads = np.where(fits, np.sqrt(evidence / (count + SPREAD_WEIGHT)), SPREADS)
    p, deviations = _typical(p, deviations)
    if not fits[1]:
        deviations[:, 1] = math.nan
    s = spreads.tolist()
    return RaterModel(votes, p, deviations, (s[0], s[1], s[2]), fits[0], _note(votes, repeated, fits))


def _maximise(
    votes: Votes, start: Parameters, spreads: Floats, steps: Floats, fits: tuple[bool, bool, bool], tolerance: float
) -> tuple[Parameters, Floats]:
    """The parameters at the maximum of likelihood times prior, and the (3,) middles of the priors.

    `steps`, (R, 3), are lengths in which the search moves as easily in each direction: its condition, not its result.
    """
    count, free = len(votes.raters), np.array(fits, dtype=np.float64)
    weight = 2 / votes.size
    size = max(1.0, float(weight.sum()))

    unit = np.concatenate([steps.T.ravel(), spreads[1:] / math.sqrt(count), [0.1]])

    def loss(z: Floats) -> tuple[float, Floats]:
        p, middle = _unpacked(z * unit, count, start.ties)
        value, gradient, by_scale = 0.0, np.zeros((count, 3)), 0.0
        for block in blocks(votes, p):
            of, share = votes.rater[block.rows], weight[block.pairs]
            w = block.weight[block.local] * share[block.local][:, None]
            eta = w * block.eta
            by_difference = eta @ NODES
            gradient[:, 0] += np.bincount(of, by_difference * p.scale, count)
            gradient[:, 1] += np.bincount(of, eta.sum(axis=1) * votes.side[block.rows], count)
            gradient[:, 2] += np.bincount(of, (w * block.tau).sum(axis=1), count)
            by_scale += float(by_difference @ p.skill[of]) * p.scale
            value += float(share @ block.total)
        gradient[:, 2] *= p.threshold
        away = (np.stack([p.skill, p.side, p.tie], axis=1) - middle) / spreads
        odd = np.append(middle - MIDDLES, math.log(p.scale) - LOG_SCALE)  # the weak priors of the middles and the scale
        value -= float(np.square(away).sum() + np.square(odd).sum()) / 2
        gradient = (gradient - away / spreads) * free
        pull = ((away / spreads).sum(axis=0) - odd[:3]) * free
        full = np.concatenate([gradient.T.ravel(), pull[1:], [(by_scale - odd[3]) * free[0]]])
        return -value / size, -full * unit / size

    x = np.concatenate(
        [start.skill, start.side, start.tie, [start.side.mean(), start.tie.mean(), math.log(start.scale)]]
    )
    limits = np.array([(-5, 10)] * count + [(-8, 8)] * count + [(-8, 3)] * count + [(-8, 8), (-8, 3), (-3, 3)])
    options = {"maxiter": 300, "ftol": tolerance, "gtol": 1e-9, "maxcor": 20}
    done = minimize(loss, x / unit, jac=True, method="L-BFGS-B", bounds=limits / unit[:, None], options=options)
    return _unpacked(done.x * unit, count, start.ties)


def _unpacked(x: Floats, count: int, ties: bool) -> tuple[Parameters, Floats]:
    a, b, c = x[: 3 * count].reshape(3, count)
    return Parameters(a, b, c, math.exp(x[-1]), ties), np.array([1.0, x[-3], x[-2]])


def _deviations(votes: Votes, p: Parameters, spreads: Floats, fits: tuple[bool, bool, bool]) -> Floats:
    """(R, 3) standard errors from each rater's own block of the observed information (Louis 1982), the others held fixed.

    With more than two candidates the pairs of a ranking go together: the sandwich of Godambe (1960) allows for it.
    """
    count = len(votes.raters)
    information, spread = np.zeros((count, 3, 3)), np.zeros((count, 3, 3))
    scores, owners, events = [], [], []
    for block in blocks(votes, p, curvature=True):
        rows = block.rows
        of, w = votes.rater[rows], block.weight[block.local]
        weight = (2 / votes.size)[block.pairs][block.local]
        c = p.threshold[of][:, None] if p.ties else np.zeros((len(of), 1))
        d, s = np.broadcast_to(p.scale * NODES, w.shape), votes.side[rows][:, None].astype(np.float64)
        score = np.stack([block.eta * d, block.eta * s, block.tau * c], axis=1)  # (v, 3, M)
        assert block.curve is not None
        hh, hc, cc = block.curve
        bends = {(0, 0): hh * d * d, (0, 1): hh * d * s, (1, 1): hh * s * s, (0, 2): hc * d * c, (1, 2): hc * s * c,
                 (2, 2): cc * c * c - block.tau * c}  # fmt: skip
        for (i, j), bend in bends.items():
            total = np.bincount(of, (w * bend).sum(axis=1) * weight, count)
            information[:, i, j] += total
            information[:, j, i] += total if i != j else 0
        first = np.flatnonzero(np.concatenate([[True], (np.diff(block.local) != 0) | (np.diff(of) != 0)]))
        joined = np.add.reduceat(score, first, axis=0)  # votes of one rater on one pair share its quality
        mean = np.einsum("cim,cm->ci", joined, w[first])
        missing = np.einsum("cim,cjm,cm->cij", joined, joined, w[first]) - mean[:, :, None] * mean[:, None, :]
        np.subtract.at(information, of[first], missing * weight[first][:, None, None])
        scores.append(mean * weight[first][:, None])
        owners.append(of[first])
        events.append(votes.judgement[rows][first])
    prior = np.diag(1 / np.square(spreads))
    information += prior
    for k in (k for k, is_free in enumerate(fits) if not is_free):
        information[:, k, :] = information[:, :, k] = 0
        information[:, k, k] = prior[k, k]
    covariance = np.linalg.inv(_made_definite(information, prior))
    if (votes.size > 2).any():
        spread = _spread(np.concatenate(scores), np.concatenate(owners), np.concatenate(events), count) + prior
        covariance = covariance @ spread @ covariance
    deviations: Floats = np.sqrt(np.maximum(np.einsum("rii->ri", covariance), 0.0))
    return deviations


def _typical(p: Parameters, deviations: Floats) -> tuple[Parameters, Floats]:
    """Skills with mean 1: the unit of the quality differences is free, and this makes it that of the typical rater."""
    mean = float(p.skill.mean()) if len(p.skill) else 1.0
    if mean <= 0.1:  # raters who contradict each other have no typical one
        return p, deviations
    return replace(p, skill=p.skill / mean, scale=p.scale * mean), deviations / np.array([mean, 1, 1])


def _spread(scores: Floats, owners: Ints, events: Ints, count: int) -> Floats:
    """(R, 3, 3) sum over judgements of the outer product of their scores."""
    order = np.argsort(events, kind="stable")
    first = np.flatnonzero(np.concatenate([[True], np.diff(events[order]) != 0]))
    sums = np.add.reduceat(scores[order], first, axis=0)
    found = np.zeros((count, 3, 3))
    np.add.at(found, owners[order][first], sums[:, :, None] * sums[:, None, :])
    return found


def _made_definite(information: Floats, prior: Floats) -> Floats:
    """Few votes can leave a block that is not positive definite; such a rater is known by the prior alone."""
    lowest = np.linalg.eigvalsh(information)[:, :1, None]
    found: Floats = np.where(lowest > 1e-6, information, prior)
    return found


def _note(votes: Votes, repeated: int, fits: tuple[bool, bool, bool]) -> str:
    parts = []
    if not fits[0]:
        parts.append(
            f"skills cannot be told apart: {repeated} pairs have two votes or more and {len(votes.raters)} raters voted, "
            f"{MIN_REPEATED} pairs and 2 raters are needed; raise the overlap of the study"
        )
    if not fits[1]:
        parts.append("side bias is unknown: no judgement records the order shown")
    return "; ".join(parts)


def _is_shared(votes: Votes) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(V,) True where somebody else voted on the same pair; rows are sorted by pair, then rater."""
    low = np.full(len(votes.question), len(votes.raters))
    high = np.full(len(votes.question), -1)
    np.minimum.at(low, votes.pair, votes.rater)
    np.maximum.at(high, votes.pair, votes.rater)
    is_shared: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (low != high)[votes.pair]
    return is_shared


def without_skills(model: RaterModel) -> RaterModel:
    """The same model with every rater typical: what p(better) would be without weighing raters."""
    count = len(model.votes.raters)
    return replace(model, p=replace(model.p, skill=np.ones(count), side=np.zeros(count)))


def _interval(value: float, deviation: float) -> Interval:
    return Interval(float(value), float(value - Z95 * deviation), float(value + Z95 * deviation))


def _accuracy(slope: float, scale: float) -> float:
    """Mean over the quality differences of the data of S(slope x difference)."""
    x = slope * scale * np.abs(NODES)
    return float((np.exp(LOG_MASS) / (1 + np.exp(-x))).sum())


def _lean(side: float, threshold: float) -> float:
    return (_sigmoid(side - threshold) - _sigmoid(-side - threshold)) / 2


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
