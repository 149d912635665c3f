"""What a score table says about a reward model, in one frozen record.

In: a `ScoreTable`. Out: an `Evaluation`, whose `to_dict()` is JSON. `docs/evaluate.md` defines every number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.evaluate.calibration import brier, credit, ece, equal_mass_bins, nll, reliability
from guerdon.evaluate.columns import Floats, plain
from guerdon.evaluate.intervals import ceiling, prompt_bootstrap
from guerdon.evaluate.paired import prompt_effect, smallest_difference
from guerdon.evaluate.table import PairTable, ScoreTable
from guerdon.evaluate.trivial import Baseline, LengthControl, baselines, length_control

__all__ = ["Evaluation", "Slice", "ceiling", "evaluate", "reliability", "warn_of_leakage"]

QUANTILES = (5, 25, 50, 75, 95)
STRENGTHS = ("weak", "middle", "strong")
DISCORDANCE = 0.25  # share of pairs that just one of two good models gets right, as a rule
COLLAPSE_NLL = 1e-3  # nats from ln 2
FEWEST_TO_COLLAPSE = 20  # pairs; a few small margins are no pattern
COLLAPSE_MARGIN = 0.02  # below this 95 % of the margins say "I do not know": p stays between .495 and .505


@dataclass(frozen=True)
class Slice:
    """Accuracy on part of the pairs, with its interval over prompts and the longer-answer baseline on the same pairs.

    `strength_min` and `strength_max` are set for slices by strength, in the units of the label.
    """

    accuracy: float
    low: float
    high: float
    n: int
    longer_wins: float
    strength_min: float | None = None
    strength_max: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Every metric of one model on one set. Shares lie in 0..1; an undefined number is NaN (null in `to_dict`).

    The unit is the pair: a ranking of K contributes all its C(K,2) pairs. A pair is decided unless its label is a tie.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    n: int
    ties: int
    score_ties: int
    unscored: int
    prompts: int
    nll: float
    brier: float
    ece: float
    margin_quantiles: Mapping[str, float]
    reward_mean: float
    reward_std: float
    longer_wins: float
    longer_wins_low: float
    longer_wins_high: float
    shorter_wins: float
    design_effect: float
    smallest_difference: float
    baselines: Mapping[str, Baseline]
    by_source: Mapping[str, Slice]
    by_strength: Mapping[str, Slice]
    collapsed: bool
    warnings: tuple[str, ...]
    length: LengthControl | None = None
    kendall_tau: float | None = None
    gold_accuracy: float | None = None
    gold_accuracy_low: float | None = None
    gold_accuracy_high: float | None = None
    gold_n: int | None = None
    gold_agreement: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types; a number that is not finite becomes None, what does not apply is left out."""
        record: dict[str, Any] = plain({name: value for name, value in asdict(self).items() if value is not None})
        return record


def evaluate(
    table: ScoreTable, *, without_prompt: ScoreTable | None = None, seed: int = 0, resamples: int = 2000
) -> Evaluation:
    """Measure how well the scores order the completions as the labels (and the gold reward, if any) do.

    Accuracy and calibration use decided pairs with two scored completions; tied and unscored pairs are counted apart.
    `without_prompt` holds the scores of the same rows with the prompt removed, see `trivial.score_without_prompt`.
    """
    every = table.pairs()
    pairs = every.where(every.is_decided & every.is_scored)
    right = credit(pairs.margin)
    low, high = prompt_bootstrap(right, pairs.group, seed=seed, resamples=resamples)
    trivial = baselines(table, pairs, without_prompt=without_prompt, seed=seed, resamples=resamples)
    longer = trivial["longer"]
    effect = prompt_effect(right, pairs.group)
    likelihood = _mean(nll(pairs.margin))
    collapsed = _is_collapsed(pairs.margin, likelihood)
    rewards = table.score[np.isfinite(table.score)]
    unscored = int((~every.is_scored).sum())
    score_ties = int((pairs.margin == 0).sum())
    gold = _gold(every, pairs, seed, resamples) if table.gold is not None else {}
    return Evaluation(
        accuracy=_mean(right),
        accuracy_low=low,
        accuracy_high=high,
        n=len(pairs),
        ties=int((~every.is_decided).sum()),
        score_ties=score_ties,
        unscored=unscored,
        prompts=len(np.unique(pairs.group)),
        nll=likelihood,
        brier=_mean(brier(pairs.margin)),
        ece=ece(reliability(pairs)),
        margin_quantiles=_quantiles(pairs.margin),
        reward_mean=_mean(rewards),
        reward_std=float(rewards.std()) if len(rewards) else math.nan,
        longer_wins=longer.accuracy,
        longer_wins_low=longer.low,
        longer_wins_high=longer.high,
        shorter_wins=1 - longer.accuracy,
        design_effect=effect,
        smallest_difference=smallest_difference(DISCORDANCE, len(pairs), effect=effect),
        baselines=trivial,
        by_source={
            str(name) or "unnamed": _slice(pairs, pairs.source == name, seed, resamples)
            for name in np.unique(pairs.source)
        },
        by_strength=_by_strength(pairs, seed, resamples),
        collapsed=collapsed,
        warnings=_warnings(collapsed, len(pairs), unscored, len(every), score_ties),
        length=length_control(table, pairs, seed=seed, resamples=resamples),
        kendall_tau=_kendall_tau(every),
        **gold,
    )


def warn_of_leakage(evaluation: Evaluation, highest: float) -> Evaluation:
    """The same record, with a warning when even the lower end of its accuracy lies above `highest`, the largest
    accuracy that the noise of the labels allows.
    """
    if not evaluation.accuracy_low > highest:
        return evaluation
    line = (
        f"Accuracy lies above the ceiling: at least {100 * evaluation.accuracy_low:.1f} %, where labels this noisy allow "
        f"{100 * highest:.1f} %. Suspect leakage: look for these prompts in the training data, and for copied rows."
    )
    return replace(evaluation, warnings=(*evaluation.warnings, line))


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _quantiles(margin: Floats) -> dict[str, float]:
    values = np.quantile(margin, np.array(QUANTILES) / 100) if len(margin) else np.full(len(QUANTILES), math.nan)
    return {str(q): float(value) for q, value in zip(QUANTILES, values, strict=True)}


def _slice(pairs: PairTable, keep: NDArray[np.bool_], seed: int, resamples: int) -> Slice:
    part = pairs.where(keep)
    right = credit(part.margin)
    low, high = prompt_bootstrap(right, part.group, seed=seed, resamples=resamples)
    return Slice(_mean(right), low, high, len(part), _mean(credit(part.chars[np.isfinite(part.chars)])))


def _by_strength(pairs: PairTable, seed: int, resamples: int) -> dict[str, Slice]:
    """Thirds of equal mass by the label's strength; the units differ between sets, so read it set by set."""
    strong = pairs.where(np.isfinite(pairs.strength))
    third = equal_mass_bins(strong.strength, 3)
    slices = {}
    for index, name in enumerate(STRENGTHS):
        inside = third == index
        if inside.any():
            part = _slice(strong, inside, seed, resamples)
            low, high = float(strong.strength[inside].min()), float(strong.strength[inside].max())
            slices[name] = Slice(part.accuracy, part.low, part.high, part.n, part.longer_wins, low, high)
    return slices


def _kendall_tau(pairs: PairTable) -> float | None:
    """Mean of Kendall's tau-b (1945) over rankings of K > 2, None without any; unscored or wholly tied ones are out."""
    sizes = np.bincount(pairs.comparison)
    is_long, is_whole = sizes > 1, np.bincount(pairs.comparison, weights=~pairs.is_scored) == 0
    if not is_long.any():
        return None
    signs = np.where(pairs.is_decided, np.sign(pairs.margin), 0.0)
    agreement = np.bincount(pairs.comparison, weights=signs)
    by_label = np.bincount(pairs.comparison, weights=pairs.is_decided)
    by_score = np.bincount(pairs.comparison, weights=pairs.margin != 0)
    used = is_long & is_whole & (by_label > 0) & (by_score > 0)
    return _mean(agreement[used] / np.sqrt(by_label[used] * by_score[used]))


def _gold(every: PairTable, decided: PairTable, seed: int, resamples: int) -> dict[str, Any]:
    """Accuracy against the gold order, also where raters tied; and the accuracy of gold itself against the raters."""
    pairs = every.where(every.is_scored & np.isfinite(every.gold) & (every.gold != 0))
    right = credit(pairs.margin * np.sign(pairs.gold))
    low, high = prompt_bootstrap(right, pairs.group, seed=seed, resamples=resamples)
    return {
        "gold_accuracy": _mean(right),
        "gold_accuracy_low": low,
        "gold_accuracy_high": high,
        "gold_n": len(pairs),
        "gold_agreement": _mean(credit(decided.gold[np.isfinite(decided.gold)])),
    }


def _is_collapsed(margin: Floats, likelihood: float) -> bool:
    if len(margin) < FEWEST_TO_COLLAPSE:
        return False
    return abs(likelihood - math.log(2)) < COLLAPSE_NLL and float(np.quantile(np.abs(margin), 0.95)) < COLLAPSE_MARGIN


def _warnings(collapsed: bool, n: int, unscored: int, pairs: int, score_ties: int) -> tuple[str, ...]:
    lines = []
    if not n:
        lines.append("No pair could be measured: every pair is tied or was not scored.")
    if collapsed:
        lines.append(
            "The model is collapsed: margins are close to 0 and the loss is ln 2, that of a coin, so accuracy counts "
            "rounding noise. Check that the head is trained, the learning rate is not 0, and answers differ as tokens."
        )
    if unscored:
        lines.append(f"{unscored:,} of {pairs:,} pairs were not scored and are left out; the score table says why.")
    if n and score_ties > 0.05 * n:
        lines.append(
            f"{score_ties:,} of {n:,} decided pairs have equal scores and count one half each; "
            "see whether truncation makes their answers the same."
        )
    return tuple(lines)
