"""Which question is asked next: which arm, and which question within it, drawn with a probability that is known.

The random arm draws uniformly and always keeps at least 20 % of the questions: agreement, the rater model and every holdout
rest on it. An active arm draws by weights that `guerdon collect prioritise` writes to the table `priority`. Over the
questions E that this rater could be asked, with weight w (0 where there is none),

    P(i | active arm) = (1 - FLOOR) w_i / sum_E w + FLOOR / |E|        P(i | random arm) = 1 / |E|

The weight of the question of rank r (1 = most wanted) is r ** -BETA: the softrank draws of Kirsch et al. 2023 (arXiv
2106.12059), which need no scale. Both probabilities are positive, so labels of an active arm can be weighted back to the whole
pool by 1 / (|E| P), at most 1 / FLOOR. Standard library only: it runs inside every request for the next question.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from guerdon.types import Arm, ConfigError

LEAST_RANDOM = 0.2  # share of the random arm below which no study goes
FLOOR = 0.1  # share of an active arm that is drawn uniformly
BETA = 1.0  # how steeply the weights of an active arm fall with the rank
ACTIVE: tuple[Arm, ...] = ("uncertain", "d-optimal")


class Draw(NamedTuple):
    """Position of the drawn question among those that could be asked, and the probability of just that one in its arm."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    probability: float


def draw_arm(random_share: float, active: Sequence[Arm], rng: random.Random) -> Arm:
    """The random arm with probability `random_share`, otherwise one of the active arms, each as likely.

    Without an active arm (nothing was prioritised yet) the random one. Raises ConfigError for a share below 20 % or above 1.
    """
    if not LEAST_RANDOM <= random_share <= 1:
        raise ConfigError(
            f"random share {random_share:g}: must lie between {LEAST_RANDOM:g} and 1, since agreement and holdouts need "
            "questions that no model chose"
        )
    if not active or rng.random() < random_share:
        return "random"
    return active[rng.randrange(len(active))]


def draw(weights: Sequence[float], rng: random.Random, floor: float = FLOOR) -> Draw:
    """One of the questions whose weights are given, one weight each, by the formula of an active arm.

    All weights 0 (or none above) gives the uniform draw of the random arm. Raises ConfigError when there is no question and
    for a weight that is negative or not finite.
    """
    if not weights:
        raise ConfigError("there is no question to choose from")
    sums = list(accumulate(weights))
    if not math.isfinite(sums[-1]) or min(weights) < 0:
        raise ConfigError("priorities must be finite and not negative; run guerdon collect prioritise again")
    n, total = len(weights), sums[-1]
    if total <= 0:
        return Draw(rng.randrange(n), 1 / n)
    chosen = rng.randrange(n) if rng.random() < floor else min(bisect_right(sums, rng.random() * total), n - 1)
    return Draw(chosen, (1 - floor) * weights[chosen] / total + floor / n)


def choose(
    arm: Arm, eligible: Sequence[str], priorities: Mapping[str, float], rng: random.Random
) -> tuple[str, Arm, float]:
    """(question id, arm, probability): one of the `eligible` questions in this arm.

    `priorities` holds the weight of this arm by question id; a question without one is reached by the floor alone. An active
    arm in which no eligible question has a weight draws uniformly, and says so by the arm `random`.
    """
    weights = [0.0 if arm == "random" else priorities.get(question, 0.0) for question in eligible]
    if not any(weights):
        arm = "random"
    index, probability = draw(weights, rng)
    return eligible[index], arm, probability


def softrank(values: Sequence[float], beta: float = BETA) -> list[float]:
    """The weights that are stored: (1 + number of questions with a higher value) ** -beta; equal values share a weight.

    A value that is not finite (a question that could not be scored) has weight 0.
    """
    finite = sorted((value for value in values if math.isfinite(value)), reverse=True)
    rank = {value: position for position, value in reversed(list(enumerate(finite, start=1)))}
    return [rank[value] ** -beta if math.isfinite(value) else 0.0 for value in values]
