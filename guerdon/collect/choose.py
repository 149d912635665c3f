"""Which question an active arm asks next: drawn, not picked, so that the probability is known and can be stored.

`guerdon collect prioritise` ranks the open questions and stores for each the weight w = rank ** -BETA: the softrank draws of
Kirsch et al. 2023 (arXiv 2106.12059), which need no scale. Of the `WINDOW` questions of highest weight that this rater could
be asked, T, and of all n that the rater could be asked,

    P(i | active arm) = (1 - FLOOR) w_i / sum_T w   (first term for i in T only)   + FLOOR / n

while the random arm has P(i) = 1 / n. All probabilities are positive, so labels of an active arm can be weighted back to the
whole pool by 1 / (n P), which is at most 1 / FLOOR. A study gives at least 20 % of its questions to the random arm: agreement,
the rater model and every holdout rest on it.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import sqlalchemy as sa

from guerdon.collect import pool, schema
from guerdon.collect.records import Study
from guerdon.types import ConfigError

FLOOR = 0.1  # share of an active arm that is drawn uniformly from everything
BETA = 1.0  # how steeply the weights fall with the rank
WINDOW = 200  # questions that one draw looks at; the 201st would have had 0.5 % of the weight of the first


def choose(db: sa.Connection, study: Study, rater: str, arm: str, rng: random.Random) -> tuple[int, float] | None:
    """(question, probability) by the weights of this arm; None when they name no question that is left for this rater.

    Raises ConfigError when stored weights mean nothing.
    """
    q, priority = schema.question.c, schema.priority.c
    query = (
        sa.select(q.id, priority.value)
        .join(schema.priority, priority.question == q.id)
        .where(priority.study == study.id, priority.arm == arm, pool.is_open(study.id), pool.unseen(rater))
        .order_by(priority.value.desc(), q.id)
        .limit(WINDOW)
    )
    weights = {row.id: row.value for row in db.execute(query)}
    if not any(weights.values()):
        return None
    others = pool.next_open(db, study.id, rater) if rng.random() < FLOOR else []
    found = others[0].id if others else list(weights)[draw(list(weights.values()), rng)]
    n = max(pool.size(db, study.id, rater), len(weights))
    return found, probability(weights.get(found, 0.0), sum(weights.values()), n)


def probability(weight: float, total: float, n: int) -> float:
    """P(i | active arm) of a question with this weight: `total` is the sum over T, `n` the number that could be asked."""
    return (1 - FLOOR) * weight / total + FLOOR / n


def draw(weights: Sequence[float], rng: random.Random) -> int:
    """A position, drawn with probability in proportion to its weight. Raises ConfigError for weights that mean nothing."""
    sums = list(accumulate(weights))
    if not (weights and math.isfinite(sums[-1]) and sums[-1] > 0 and min(weights) >= 0):
        raise ConfigError("priorities must be finite and not negative; run guerdon collect prioritise again")
    return min(bisect_right(sums, rng.random() * sums[-1]), len(weights) - 1)


def softrank(values: Sequence[float], beta: float = BETA) -> list[float]:
    """The weights that are stored: (1 + number of questions with a higher value) ** -beta; equal values share a weight.

    A value that is not finite (a question that could not be scored) has weight 0.
    """
    finite = sorted((value for value in values if math.isfinite(value)), reverse=True)
    rank = {value: position for position, value in reversed(list(enumerate(finite, start=1)))}
    return [rank[value] ** -beta if math.isfinite(value) else 0.0 for value in values]
