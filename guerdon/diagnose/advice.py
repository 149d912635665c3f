"""What the numbers ask for, in sentences: each says what was found and what to do about it.

In: an evaluation, its reliability curve, the ceiling. Out: `Advice`, warnings first. `docs/report.md` lists the rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.evaluate.calibration import Reliability
from guerdon.evaluate.metrics import Evaluation

MISCALIBRATED = 0.05  # ECE above which probabilities should not be taken at face value
WIDE = 0.10  # width of a 95 % interval that cannot tell good from fair
OVERFITTED = 0.02  # nats by which the last held-out loss exceeds the best


@dataclass(frozen=True)
class Advice:
    """One sentence or two; `is_warning` when the model should not be used before it is heeded."""

    text: str
    is_warning: bool = False


def advise(e: Evaluation, ceiling: tuple[float, float] | None, curve: Reliability | None = None) -> list[Advice]:
    """What to make of one evaluation."""
    found = [Advice(text, True) for text in e.warnings]
    if not e.n or e.collapsed:
        return found
    found += [*_against_length(e), *_against_ceiling(e, ceiling), *_calibration(e, curve)]
    width = e.accuracy_high - e.accuracy_low
    if width > WIDE:
        found.append(
            Advice(
                f"The interval is {100 * width:.0f} points wide with {e.prompts:,} prompts; "
                f"about {math.ceil(4 * e.prompts / 10) * 10:,} prompts would halve it."
            )
        )
    return sorted(found, key=lambda advice: not advice.is_warning)


def overfitting(metrics: Sequence[Mapping[str, Any]]) -> Advice | None:
    """Where the held-out loss was best, if there are at least two evaluations; a warning when it has risen since."""
    rows = [(row["eval_nll"], row["step"]) for row in metrics if row.get("eval_nll") is not None]
    if len(rows) < 2:
        return None
    best, step = min(rows)
    last = rows[-1][0]
    if last - best > OVERFITTED:
        return Advice(
            f"Held-out loss was best at step {step:,} ({best:.3f} nats) and rose to {last:.3f}: "
            "the model overfits. Keep the weights of that step, or train for fewer epochs.",
            True,
        )
    if step == rows[-1][1]:
        return Advice(f"Held-out loss was still falling at the end ({best:.3f} nats); longer training may help.")
    return Advice(f"Held-out loss was best at step {step:,} ({best:.3f} nats) and has been level since.")


def _against_length(e: Evaluation) -> list[Advice]:
    if math.isnan(e.longer_wins):
        return []
    name, share = max((("longer", e.longer_wins), ("shorter", e.shorter_wins)), key=lambda item: item[1])
    if e.accuracy_low > share:
        gain = 100 * (e.accuracy - share)
        return [
            Advice(
                f"It knows more than length: {gain:.1f} points above picking the {name} answer ({100 * share:.1f} %)."
            )
        ]
    return [
        Advice(
            f"Always picking the {name} answer gets {100 * share:.1f} %, and the model is not shown to do better. "
            "Do not optimise against it; train longer, use more data or a larger base model.",
            True,
        )
    ]


def _against_ceiling(e: Evaluation, ceiling: tuple[float, float] | None) -> list[Advice]:
    if ceiling is None:
        return []
    low, high = ceiling
    if e.accuracy_low > high:
        return [
            Advice(
                f"Accuracy lies above the ceiling of {100 * high:.1f} % that noisy labels allow. "
                "Suspect leakage: look for test prompts in the training data.",
                True,
            )
        ]
    if e.accuracy_low <= max(0.5, e.longer_wins, e.shorter_wins):
        return []  # not shown to beat a coin or a ruler: how far it is from the ceiling says nothing yet
    if e.accuracy_high >= low:
        return [
            Advice(
                "Accuracy has reached the range of the ceiling: more labels of this kind will add little, "
                "better ones (several raters per pair, clearer instructions) may."
            )
        ]
    return [
        Advice(
            f"{100 * (low - e.accuracy):.1f} points are left to the ceiling of {100 * low:.1f} %: more data can help."
        )
    ]


def _calibration(e: Evaluation, curve: Reliability | None) -> list[Advice]:
    if e.ece <= MISCALIBRATED or curve is None:
        return []
    excess = float(np.average(curve.confidence - curve.accuracy, weights=curve.n))
    if abs(excess) < (e.accuracy_high - e.accuracy_low) / 2:
        return []  # a small sample has a large calibration error by chance alone
    if excess > 0:
        text = "It is too sure of itself: divide margins by a temperature above 1 before reading them as probabilities."
    else:
        text = "It is too timid: divide margins by a temperature below 1 before reading them as probabilities."
    return [Advice(f"{text} The order of answers, and so accuracy and best-of-N, does not change.")]
