"""What needs no reward model: the longer answer, a random score, the answer without its question. Rows to stand beside one.

In: a score table and its pairs. Out: one `Baseline` per trivial rule, and accuracy with the part that length explains
taken away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from guerdon.evaluate.calibration import credit
from guerdon.evaluate.columns import Floats
from guerdon.evaluate.intervals import Z95, prompt_bootstrap
from guerdon.evaluate.score import score_comparisons
from guerdon.evaluate.table import PairTable, ScoreTable
from guerdon.types import Comparison, ConfigError, Message, Scorer

BLANK = (Message(role="user", content=""),)


@dataclass(frozen=True)
class Baseline:
    """Accuracy of a trivial rule on the same pairs, with its 95 % interval, and how often the rule cannot choose.

    For `random` the interval is where 95 % of random scorers fall, so an accuracy inside it is what luck can give.
    """

    accuracy: float
    low: float
    high: float
    ties: int
    n: int


@dataclass(frozen=True)
class LengthControl:
    """Accuracy when length does not help.

    when_longer    accuracy on pairs whose preferred answer has more characters; NaN without such pairs
    when_shorter   the same where it has fewer
    residual       accuracy of the margin less what length explains: m - b d, d = log((1 + chars of chosen) /
                   (1 + chars of rejected)), b = sum(m d) / sum(d^2) over all pairs, which no label enters
    low, high      its 95 % interval over prompts
    per_doubling   b log 2: what the reward gives for twice the length, in the units of the reward
    """

    when_longer: float
    when_shorter: float
    residual: float
    low: float
    high: float
    per_doubling: float


def baselines(
    table: ScoreTable,
    pairs: PairTable,
    *,
    without_prompt: ScoreTable | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Baseline]:
    """Trivial rules on `pairs`, decided and scored pairs of `table`: longer, shorter, random, constant, prompt removed.

    Longer and shorter use pairs whose lengths are known; `prompt removed` is there when `without_prompt` is, the same
    rows scored as `score_without_prompt` does. Raises ConfigError when its rows are others.
    """
    known = pairs.where(np.isfinite(pairs.chars))
    rows = {
        "longer": _baseline(known, known.chars, seed, resamples),
        "shorter": _baseline(known, -known.chars, seed, resamples),
        "random": _random(pairs, len(table)),
        "constant": _baseline(pairs, np.zeros(len(pairs)), seed, resamples),
    }
    if without_prompt is not None:
        if len(without_prompt) != len(table) or (without_prompt.comparison != table.comparison).any():
            raise ConfigError("the scores without prompts are for other rows; score the same comparisons both times")
        margin = without_prompt.score[pairs.chosen] - without_prompt.score[pairs.rejected]
        scored = np.isfinite(margin)
        rows["prompt removed"] = _baseline(pairs.where(scored), margin[scored], seed, resamples)
    return rows


def length_control(
    table: ScoreTable, pairs: PairTable, *, seed: int = 0, resamples: int = 2000
) -> LengthControl | None:
    """Accuracy with the help of length taken away, on decided, scored pairs; None when no length is known."""
    known = pairs.where(np.isfinite(pairs.chars))
    if not len(known):
        return None
    size = np.log1p(table.chars)
    ratio = size[known.chosen] - size[known.rejected]
    square = float(ratio @ ratio)
    slope = float(known.margin @ ratio) / square if square else 0.0
    right, residual = credit(known.margin), credit(known.margin - slope * ratio)
    low, high = prompt_bootstrap(residual, known.group, seed=seed, resamples=resamples)
    return LengthControl(
        when_longer=_mean(right[known.chars > 0]),
        when_shorter=_mean(right[known.chars < 0]),
        residual=_mean(residual),
        low=low,
        high=high,
        per_doubling=slope * math.log(2),
    )


def score_without_prompt(
    scorer: Scorer, comparisons: Sequence[Comparison], *, advance: Callable[[int], None] = lambda count: None
) -> ScoreTable:
    """Score the same completions after an empty user turn: what the model knows without reading the question.

    Everything before the completions is replaced, system prompt and earlier turns included. The rows are those of
    `score_comparisons`; only the column `prompt` is of no use.
    """
    return score_comparisons(scorer, [replace(row, prompt=BLANK) for row in comparisons], advance=advance)


def _baseline(pairs: PairTable, margin: Floats, seed: int, resamples: int) -> Baseline:
    values = credit(margin)
    low, high = prompt_bootstrap(values, pairs.group, seed=seed, resamples=resamples)
    return Baseline(_mean(values), low, high, int((margin == 0).sum()), len(pairs))


def _random(pairs: PairTable, rows: int) -> Baseline:
    """One half, and the normal range of the accuracy of independent random scores.

    A pair has variance 1/4; two pairs that share an answer on the same side have covariance 1/12, on different sides
    -1/12. With w wins and l losses of an answer the variance of the count is n/4 + sum((w - l)^2 - (w + l)) / 12.
    """
    n = len(pairs)
    if not n:
        return Baseline(math.nan, math.nan, math.nan, 0, 0)
    wins, losses = np.bincount(pairs.chosen, minlength=rows), np.bincount(pairs.rejected, minlength=rows)
    variance = n / 4 + float(((wins - losses) ** 2 - (wins + losses)).sum()) / 12
    half = Z95 * math.sqrt(variance) / n
    return Baseline(0.5, max(0.0, 0.5 - half), min(1.0, 0.5 + half), 0, n)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan
