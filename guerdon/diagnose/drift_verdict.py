"""What the drift check concludes: one of four verdicts by fixed bounds, and what to do. `docs/drift.md` gives the rule.

The bounds are claims of sameness: a whole interval must lie within, so a small sample cannot pass for lack of evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from guerdon.diagnose.accuracy_lost import AccuracyLost
from guerdon.diagnose.advice import Advice
from guerdon.diagnose.drift_measures import Measure

Verdict = Literal[
    "inside", "shifted but the reward holds", "outside: collect fresh comparisons", "too few answers to tell"
]
INSIDE: Verdict = "inside"
HOLDS: Verdict = "shifted but the reward holds"
OUTSIDE: Verdict = "outside: collect fresh comparisons"
UNKNOWN: Verdict = "too few answers to tell"

# Where the whole 95 % interval must lie for "inside".
BOUNDS = {
    "classifier AUC": (0.0, 0.60),
    "outliers": (0.0, 0.05),
    "reward mean": (-0.5, 0.5),
    "reward spread": (2 / 3, 1.5),
    "disagreement": (0.0, 1.5),
}
TOLERATED = 0.05  # accuracy that may be lost, as a share: the interval's upper end must stay below
FAR_LENGTH = 0.5  # reference SDs by which answers grow before length is named as the likely cause


def decide(measures: Sequence[Measure], accuracy: Sequence[AccuracyLost]) -> Verdict:
    """The verdict; labels outrank features, and what is not shown is not assumed."""
    if has_lost(accuracy):
        return OUTSIDE
    if is_inside(measures):
        return INSIDE
    if not any(m.is_significant for m in measures):
        return UNKNOWN
    return HOLDS if holds(accuracy) else OUTSIDE


def is_inside(measures: Sequence[Measure]) -> bool:
    """Every bounded measure has its interval within bounds, and the kernel test finds no difference."""
    if any(m.name == "MMD²" and m.is_significant for m in measures):
        return False
    bounded = [m for m in measures if m.name in BOUNDS]
    return all(BOUNDS[m.name][0] <= m.low and m.high <= BOUNDS[m.name][1] for m in bounded)


def has_lost(accuracy: Sequence[AccuracyLost]) -> bool:
    """Fresh labels show a loss."""
    return any(a.p_holm < 0.05 and a.loss > 0 for a in accuracy)


def holds(accuracy: Sequence[AccuracyLost]) -> bool:
    """The best evidence at hand, fresh labels before weights, puts the loss below what is tolerated."""
    known = [a for a in accuracy if not a.refused]
    return bool(known) and known[0].high <= TOLERATED


def advise(
    verdict: Verdict, measures: Sequence[Measure], accuracy: Sequence[AccuracyLost], with_model: bool
) -> list[Advice]:
    """Sentences that follow from the numbers, what to do first."""
    named = {m.name: m for m in measures}
    return [_do(verdict, accuracy), *_evidence(accuracy), *_causes(named), *_limits(named, with_model)]


def _do(verdict: Verdict, accuracy: Sequence[AccuracyLost]) -> Advice:
    if verdict == INSIDE:
        return Advice("Go on: the answers lie where the reward model was measured. Check again at the next checkpoint.")
    if verdict == HOLDS:
        return Advice(
            "The answers have moved, but accuracy is shown to fall by less than "
            f"{100 * TOLERATED:.0f} points. Go on, check more often, and have some fresh comparisons judged."
        )
    if verdict == UNKNOWN:
        return Advice("No shift was found, but the intervals are too wide to rule one out: give more prompts.", True)
    if has_lost(accuracy):
        return Advice(
            "Accuracy has fallen on the policy's own answers. Stop optimising against this reward, collect comparisons "
            "of current answers, and train on them.",
            True,
        )
    return Advice(
        "The answers have left what the reward model is known to judge well, and nothing shows that it still does. "
        "Collect comparisons of current answers before optimising further.",
        True,
    )


def _evidence(accuracy: Sequence[AccuracyLost]) -> list[Advice]:
    found = []
    for a in accuracy:
        if a.refused:
            found.append(Advice(f"Accuracy could not be told from {a.road}: {a.refused}."))
        else:
            how = "Measured on fresh labels" if math.isfinite(a.p) else "Estimated by importance weights"
            found.append(
                Advice(
                    f"{how}, accuracy goes from {100 * a.reference:.1f} % to {100 * a.current:.1f} %: a loss of "
                    f"{100 * a.loss:.1f} points ({100 * a.low:.1f} to {100 * a.high:.1f})."
                )
            )
    return found or [Advice("Neither side has labels, so accuracy can only be guessed at: give --labels.")]


def _causes(named: dict[str, Measure]) -> list[Advice]:
    found = []
    length = named.get("characters")
    if length is not None and length.is_significant and abs(length.value) > FAR_LENGTH:
        word = "longer" if length.value > 0 else "shorter"
        found.append(
            Advice(
                f"Answers became {word} ({length.reference:.0f} to {length.current:.0f} characters). "
                "See whether the reward pays for length alone."
            )
        )
    mean, outside = named.get("reward mean"), named.get("classifier AUC")
    if mean is not None and outside is not None and mean.low > 0.5 and outside.is_significant:
        found.append(
            Advice(
                f"Rewards rose by {mean.value:.1f} reference SDs while the answers moved away: "
                "read the highest rewarded ones before believing them.",
                True,
            )
        )
    reuse = named.get("opener reuse")
    if reuse is not None and reuse.is_significant and reuse.value > 0.1:
        found.append(Advice(f"{100 * reuse.current:.0f} % of the answers begin with the same three words."))
    return found


def _limits(named: dict[str, Measure], with_model: bool) -> list[Advice]:
    found = []
    if not with_model:
        found.append(
            Advice("No model was given, so texts were compared by their surface; --model compares what it reads.")
        )
    if "reward mean" not in named:
        found.append(Advice("Too few rewards are known on both sides to compare them.", True))
    return found
