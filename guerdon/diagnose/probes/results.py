"""From scores of edited and of reference conversations to verdicts: pure functions on arrays, and what they return.

Every variant of every probe is one test; Holm's correction runs over all of them, so that the chance of any false alarm
in a whole report is at most 5 %. A probe is biased when one of its variants is, and clean when all of them are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from guerdon.diagnose.probes.edits import Expectation, Probe
from guerdon.diagnose.probes.statistics import (
    Estimate,
    benjamini_hochberg,
    clustered_mean,
    p_clean,
    p_fault,
    prompts_needed,
)
from guerdon.evaluate.calibration import credit
from guerdon.evaluate.columns import Floats, Ints, plain
from guerdon.evaluate.intervals import prompt_bootstrap
from guerdon.evaluate.paired import holm

Verdict = Literal["biased", "clean", "unclear"]
LEVEL = 0.05
MIN_PROMPTS = 10  # fewer give no verdict: a t-test on them stands on its assumptions alone


@dataclass(frozen=True, eq=False)
class Rows:
    """The scores behind one variant, one row per comparison it applies to; NaN where a score is missing.

    edited, reference          rewards of the changed conversation, and of what it is compared with
    rival, reference_rival     rewards of the better answer under the prompt of either; all NaN when it is the one edited
    is_right                   whether the natural order is right: the better answer scores higher
    prompts, wordings          the clusters that each row belongs to
    truncated                  whether the edited or the reference conversation was cut by the context
    skipped                    comparisons that the edit does not apply to
    """

    edited: Floats
    reference: Floats
    rival: Floats
    reference_rival: Floats
    is_right: Ints
    prompts: Ints
    wordings: Ints
    truncated: Ints
    skipped: int


@dataclass(frozen=True)
class Effect:
    """One variant, measured. docs/probes.md defines every field.

    `effect`, `low` and `high` are in standard deviations of the reward; rates are shares; None is not known.
    """

    variant: str
    dose: float | None
    verdict: Verdict
    effect: float
    low: float
    high: float
    p_fault: float
    p_holm: float
    q_bh: float
    p_clean: float
    win_rate: float
    flip_rate: float | None
    flip_low: float | None
    flip_high: float | None
    placebo_flip_rate: float | None
    prompts: int
    skipped: int
    unscored: int
    truncated: int
    prompts_needed: int | None


@dataclass(frozen=True)
class ProbeResult:
    """One probe: the verdict over its variants, the variant that decides it, and for doses the slope."""

    name: str
    family: str
    expectation: Expectation
    verdict: Verdict
    prompts_needed: int | None
    slope: float | None
    slope_low: float | None
    slope_high: float | None
    effects: tuple[Effect, ...]

    @property
    def worst(self) -> Effect:
        """The variant with the strongest evidence of a fault."""
        return min(self.effects, key=lambda e: (e.p_fault, -abs(e.effect) if math.isfinite(e.effect) else 0.0))


@dataclass(frozen=True)
class Independence:
    """How much of the reward is left when the prompt is taken away; docs/probes.md defines every field."""

    share: float
    correlation: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_removed: float
    accuracy_removed_low: float
    accuracy_removed_high: float
    prompts: int


@dataclass(frozen=True)
class ProbeReport:
    """What `measure` returns. `spread` is the unit of all effects, in rewards."""

    prompts: int
    comparisons: int
    left_out: int
    spread: float
    spread_kind: str
    probes: tuple[ProbeResult, ...]
    independence: Independence | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is None."""
        record: dict[str, Any] = plain(asdict(self), keep_none=True)
        return record

    def named(self, *verdicts: Verdict) -> list[ProbeResult]:
        """The probes with one of these verdicts, in the order of the report."""
        return [probe for probe in self.probes if probe.verdict in verdicts]


def judge(probes: Sequence[Probe], rows: Mapping[str, Sequence[Rows]], spread: float) -> tuple[ProbeResult, ...]:
    """Verdicts over all probes at once. `rows[name]` holds one `Rows` per variant; `spread` is in rewards."""
    estimates = [_estimate(part, probe, spread) for probe in probes for part in rows[probe.name]]
    tested = [probe.expectation for probe in probes for _ in rows[probe.name]]
    p = np.array([p_fault(e, expected) for e, expected in zip(estimates, tested, strict=True)])
    numbers = iter(zip(estimates, p, holm(p), benjamini_hochberg(p), strict=True))
    results = []
    for probe in probes:
        effects = tuple(
            _effect(probe, index, part, *next(numbers), tests=len(p)) for index, part in enumerate(rows[probe.name])
        )
        results.append(_result(probe, effects, rows[probe.name], spread))
    return tuple(results)


def independence(full: Floats, removed: Floats, pairs: Ints, prompts: Ints) -> Independence:
    """Rewards of natural answers with their prompt and without; `pairs`, (n, 2), are rows of the better and the worse.

    share = Var(removed) / Var(full) over answers scored both ways; correlation is Pearson's, between the margins of the
    pairs with and without the prompt.
    """
    both = np.isfinite(full) & np.isfinite(removed)
    variance = float(full[both].var()) if both.any() else 0.0
    pairs = pairs[both[pairs].all(axis=1)]
    margin, bare = full[pairs[:, 0]] - full[pairs[:, 1]], removed[pairs[:, 0]] - removed[pairs[:, 1]]
    groups = prompts[pairs[:, 0]]
    varies = len(margin) > 1 and margin.std() > 0 and bare.std() > 0
    return Independence(
        float(removed[both].var()) / variance if variance else math.nan,
        float(np.corrcoef(margin, bare)[0, 1]) if varies else math.nan,
        _mean(credit(margin)),
        *prompt_bootstrap(credit(margin), groups),
        _mean(credit(bare)),
        *prompt_bootstrap(credit(bare), groups),
        len(np.unique(groups)),
    )


def _estimate(rows: Rows, probe: Probe, spread: float) -> Estimate:
    difference = (rows.edited - rows.reference) / spread
    known = np.isfinite(difference)
    wordings = rows.wordings[known] if probe.wordings else None
    return clustered_mean(difference[known], rows.prompts[known], wordings)


def _effect(
    probe: Probe, index: int, rows: Rows, estimate: Estimate, p: float, p_holm: float, q: float, *, tests: int
) -> Effect:
    known = np.isfinite(rows.edited) & np.isfinite(rows.reference)
    clean = p_clean(estimate, probe.expectation)
    verdict: Verdict = "unclear"
    if estimate.clusters >= MIN_PROMPTS and estimate.df:
        verdict = "biased" if p_holm <= LEVEL else "clean" if clean <= LEVEL else "unclear"
    low, high = estimate.interval()
    right = known & (rows.is_right == 1) & np.isfinite(rows.rival) & np.isfinite(rows.reference_rival)
    flips = credit((rows.edited - rows.rival)[right])
    bounds = prompt_bootstrap(flips, rows.prompts[right]) if right.any() else (math.nan, math.nan)
    variant = probe.variants[index]
    return Effect(
        variant=variant.name,
        dose=_known(variant.dose),
        verdict=verdict,
        effect=estimate.mean,
        low=low,
        high=high,
        p_fault=float(p),
        p_holm=float(p_holm),
        q_bh=float(q),
        p_clean=clean,
        win_rate=_mean(credit((rows.edited - rows.reference)[known])),
        flip_rate=_known(_mean(flips)),
        flip_low=_known(bounds[0]),
        flip_high=_known(bounds[1]),
        placebo_flip_rate=_known(_mean(credit((rows.reference - rows.reference_rival)[right]))),
        prompts=estimate.clusters,
        skipped=rows.skipped,
        unscored=int((~known).sum()),
        truncated=int(rows.truncated.sum()),
        prompts_needed=_needed(estimate, probe, tests) if verdict == "unclear" else None,
    )


def _needed(estimate: Estimate, probe: Probe, tests: int) -> int | None:
    """Prompts that would settle the probe, never fewer than a verdict takes; None where more would not help."""
    needed = prompts_needed(estimate, probe.expectation, tests=tests)
    return None if needed is None else max(MIN_PROMPTS, needed)


def _result(probe: Probe, effects: tuple[Effect, ...], rows: Sequence[Rows], spread: float) -> ProbeResult:
    verdicts = [effect.verdict for effect in effects]
    verdict: Verdict = "biased" if "biased" in verdicts else "clean" if set(verdicts) == {"clean"} else "unclear"
    needed = [effect.prompts_needed for effect in effects if effect.verdict == "unclear"]
    most = None if verdict != "unclear" or None in needed else max(n for n in needed if n is not None)
    slope = low = high = None
    if probe.is_graded:
        estimate = _slope(probe, rows, spread)
        slope, (low, high) = _known(estimate.mean), map(_known, estimate.interval())
    return ProbeResult(probe.name, probe.family, probe.expectation, verdict, most, slope, low, high, effects)


def _slope(probe: Probe, rows: Sequence[Rows], spread: float) -> Estimate:
    """Effect per unit of dose: per comparison the least-squares line through no dose and no effect, then the mean."""
    effects = np.stack([(part.edited - part.reference) / spread for part in rows])
    doses = np.array([variant.dose for variant in probe.variants])
    slopes = doses @ effects / (doses @ doses)
    known = np.isfinite(slopes)
    wordings = rows[0].wordings[known] if probe.wordings else None
    return clustered_mean(slopes[known], rows[0].prompts[known], wordings)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
