"""When to trust a preference and when to ask a person: accuracy of the sure part, and a threshold with a guarantee.

In: margins of decided, scored pairs; |margin| is how sure the model is. Out: accuracy by coverage, the area under the
risk-coverage curve, and the |margin| above which errors stay rare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from guerdon.evaluate.calibration import credit
from guerdon.evaluate.columns import Floats
from guerdon.evaluate.table import PairTable
from guerdon.types import ConfigError

COVERAGES = (1.0, 0.75, 0.5, 0.25)
GRID = tuple(k / 10 for k in range(10, 0, -1))  # shares of the pairs to keep that `threshold` tries


@dataclass(frozen=True)
class Threshold:
    """Trust a pair when |margin| > `margin`, and errors among trusted pairs are rare, with a proof.

    max_error   the error allowed among trusted pairs, a share
    confidence  chance, over calibration sets, that the promise holds
    margin      the threshold, in the units of the reward; None when nothing could be promised
    coverage    share of the calibration pairs that are trusted; 0 when nothing could be promised
    error       share of these that are wrong (an equal score is wrong)
    n           pairs used: one per prompt
    """

    max_error: float
    confidence: float
    margin: float | None
    coverage: float
    error: float
    n: int


def risk_by_coverage(margin: Floats) -> Floats:
    """Mean error of the k most sure pairs, for k = 1 to n; pairs that are equally sure share their errors evenly."""
    sure = np.abs(margin)
    order = np.argsort(-sure, kind="stable")
    _, block, counts = np.unique(-sure[order], return_inverse=True, return_counts=True)
    error = np.bincount(block.reshape(-1), weights=1 - credit(margin[order])) / counts
    risks: Floats = np.cumsum(error[block.reshape(-1)]) / np.arange(1, len(margin) + 1)
    return risks


def aurc(margin: Floats) -> float:
    """Area under the risk-coverage curve, the mean of `risk_by_coverage`; NaN without pairs.

    0 is perfect; a model whose |margin| says nothing has its plain error. Geifman, Uziel and El-Yaniv 2019 (arXiv
    1805.08206, section 2).
    """
    return float(risk_by_coverage(margin).mean()) if len(margin) else math.nan


def selective_accuracy(margin: Floats) -> dict[str, float]:
    """Accuracy of the most sure 100, 75, 50 and 25 % of the pairs (rounded down); NaN where that leaves none."""
    risk = risk_by_coverage(margin)
    kept = {f"{100 * share:.0f}": int(share * len(margin)) for share in COVERAGES}
    return {name: 1 - float(risk[k - 1]) if k else math.nan for name, k in kept.items()}


def threshold(pairs: PairTable, max_error: float, *, confidence: float = 0.95, seed: int = 0) -> Threshold:
    """The |margin| above which, with this confidence, at most `max_error` of the trusted pairs are wrong.

    The promise: draw calibration prompts and later prompts from one population, one pair each. With probability at
    least `confidence` over the calibration prompts, P(wrong | |margin| > threshold) <= max_error for a later pair, for
    any model and any population, at this sample size.

    One pair of each prompt is drawn, so the pairs are independent. For each share of `GRID` the threshold t is an order
    statistic of |margin|: given t, the pairs above it are independent draws of P(. | |margin| > t), so their errors are
    binomial, and P(Binomial(kept, max_error) <= errors) is a p-value for "the error above t is larger than max_error".
    Bonferroni over the grid bounds the chance that any t which passes is false, hence that of the one with the largest
    coverage. Learn then Test (Angelopoulos et al. 2021, arXiv 2110.01052, section 2) with Bonferroni; the
    bound for order statistics is that of Geifman and El-Yaniv 2017 (arXiv 1705.08500, theorem 3.2).

    Raises ConfigError unless max_error and confidence lie strictly between 0 and 1.
    """
    require_share("the allowed error", max_error)
    require_share("the confidence", confidence)
    margin = one_per_prompt(pairs.where(pairs.is_decided & pairs.is_scored), seed).margin
    sure, wrong = np.abs(margin), margin <= 0
    falling = np.sort(sure)[::-1]
    for share in GRID:
        kept = math.floor(share * len(margin) + 1e-9)
        t = -1.0 if kept == len(margin) else float(falling[kept])  # every margin is larger than -1
        trusted = sure > t
        n, errors = int(trusted.sum()), int(wrong[trusted].sum())
        if n and stats.binom.cdf(errors, n, max_error) <= (1 - confidence) / len(GRID):
            return Threshold(max_error, confidence, max(t, 0.0), n / len(margin), errors / n, len(margin))
    return Threshold(max_error, confidence, None, 0.0, math.nan, len(margin))


def require_share(name: str, value: float) -> None:
    """Raise ConfigError unless 0 < value < 1."""
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value}; give a share between 0 and 1")


def one_per_prompt(pairs: PairTable, seed: int) -> PairTable:
    """One pair of each prompt, drawn at random: independent where the prompts are."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    _, first = np.unique(pairs.group[order], return_index=True)
    return pairs.where(order[first])
