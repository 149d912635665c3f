"""Is a policy's output still where the reward model was trained? Two samples of answers in, a verdict with advice out.

In: a `Sample` of the data that the reward model is known to be good on (held-out comparisons), one of the current
policy's answers, perhaps one of fresh comparisons of such answers. Out: `Drift`. Arrays only: no model is needed here.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from guerdon.diagnose import surface
from guerdon.diagnose.accuracy_lost import AccuracyLost, Labelled, measured, weighted
from guerdon.diagnose.advice import Advice
from guerdon.diagnose.drift_measures import (
    Measure,
    answers,
    classifier,
    column,
    disagreement,
    discrepancy,
    outliers,
    rewards,
)
from guerdon.diagnose.drift_verdict import Verdict, advise, decide
from guerdon.diagnose.resample import Mask, TwoSamples, thin
from guerdon.diagnose.twosample import Ellipsoid, Space, folds_by_prompt, log_ratios
from guerdon.evaluate.calibration import credit
from guerdon.evaluate.columns import Floats, Ints, Texts
from guerdon.evaluate.intervals import wilson
from guerdon.evaluate.paired import holm
from guerdon.evaluate.table import PairTable
from guerdon.types import DataError

FEWEST = 20  # prompts per side; below, an interval over prompts means nothing
BINS = 6  # of the curve of accuracy by distance
MODEL, SURFACE, LENGTH = "what the head reads", "words and characters", "length"


@dataclass(frozen=True, eq=False)
class Sample:
    """Answers of one side, one row each.

    features  (n, d), a row of NaN where an answer could not be encoded; d = 0 when there is no model
    reward    (n,), NaN where it could not be scored
    prompt    key of the prompt; rows that share it are relabelled and resampled together
    text      the answers, or "" throughout when unknown
    chars     length in characters, NaN when unknown
    members   rewards of ensemble members, (n, M); M = 0 for a single reward
    pairs     labelled pairs of these rows, or None
    dropped   what was left out while reading, by reason
    """

    features: Floats
    reward: Floats
    prompt: Texts
    text: Texts
    chars: Floats
    members: Floats
    pairs: PairTable | None = None
    dropped: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.reward)

    def where(self, keep: Mask) -> Sample:
        """Some of the answers, without labels."""
        return Sample(
            self.features[keep],
            self.reward[keep],
            self.prompt[keep],
            self.text[keep],
            self.chars[keep],
            self.members[keep],
        )


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy by distance from the reference: one entry per bin of equal mass, with Wilson bands."""

    distance: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    n: Ints


@dataclass(frozen=True, eq=False)
class Drift:
    """The whole result. `compared` says what the features were; counts come as (reference, current)."""

    verdict: Verdict
    advice: tuple[Advice, ...]
    measures: tuple[Measure, ...]
    accuracy: tuple[AccuracyLost, ...]
    compared: str
    answers: tuple[int, int]
    prompts: tuple[int, int]
    shared_prompts: int
    per_prompt: int
    unscored: tuple[int, int]
    dropped: dict[str, dict[str, int]]
    rewards: tuple[Floats, Floats]
    curve: Curve | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what is undefined is null."""
        plain: dict[str, Any] = {"verdict": self.verdict, "advice": [advice.text for advice in self.advice]}
        plain |= {"measures": [asdict(m) for m in self.measures], "accuracy": [asdict(a) for a in self.accuracy]}
        names = ("compared", "answers", "prompts", "shared_prompts", "per_prompt", "unscored", "dropped")
        cleaned: dict[str, Any] = _null_for_nan(plain | {name: getattr(self, name) for name in names})
        return cleaned


def measure_drift(
    reference: Sample, current: Sample, fresh: Sample | None = None, *, times: int = 999, seed: int = 0
) -> Drift:
    """Compare two samples; `times` relabellings and bootstrap samples each.

    Prompts with more answers than usual on the other side are thinned by the seed to the smaller median, so that
    neither side counts its prompts more often. Raises DataError when a side has fewer than 20 prompts.
    """
    reference, current, compared = _with_features(reference, current)
    both = _joined(reference, current)
    usable = _is_whole(both.features)
    is_current = np.arange(len(both)) >= len(reference)
    group = np.unique(both.prompt.astype(str), return_inverse=True)[1].reshape(-1).astype(np.int64)
    _require_prompts(group, is_current, usable)
    per_prompt = _usual(group, is_current, usable)
    kept = usable.copy()
    kept[usable] = thin((2 * group + is_current)[usable], per_prompt, seed)
    space = Space.fit(both.features[kept])
    points = space(both.features)
    rows = TwoSamples.draw(group[kept], is_current[kept], times, seed)
    fit_half = np.random.default_rng(seed).random(group.max() + 1) < 0.5
    is_fitted = fit_half[group] & ~is_current
    ellipsoid = Ellipsoid.fit(points[kept & is_fitted])
    found = _measures(both.where(kept), points[kept], rows, ellipsoid, ~is_fitted[kept], seed)

    ratios = _log_ratios(points, group, is_current, usable, kept, seed)
    lost = _accuracy_lost(reference, fresh, ratios[: len(reference)], times, seed)
    found, lost = _corrected(found, lost)
    held_out = np.where(is_fitted, np.nan, ellipsoid.distances(points))[: len(reference)]
    verdict = decide(found, lost)
    sides = kept & ~is_current, kept & is_current
    prompts = [set(group[side].tolist()) for side in sides]
    return Drift(
        verdict=verdict,
        advice=tuple(advise(verdict, found, lost, compared == MODEL)),
        measures=tuple(found),
        accuracy=tuple(lost),
        compared=compared,
        answers=(int(sides[0].sum()), int(sides[1].sum())),
        prompts=(len(prompts[0]), len(prompts[1])),
        shared_prompts=len(prompts[0] & prompts[1]),
        per_prompt=per_prompt,
        unscored=(int((~np.isfinite(reference.reward)).sum()), int((~np.isfinite(current.reward)).sum())),
        dropped={"reference": dict(reference.dropped), "current": dict(current.dropped)},
        rewards=(_finite(both.reward[sides[0]]), _finite(both.reward[sides[1]])),
        curve=_curve(reference, held_out, fresh, space, ellipsoid),
    )


def labelled(sample: Sample) -> Labelled | None:
    """The decided, scored pairs of a sample; None when it has no labels."""
    if sample.pairs is None:
        return None
    pairs = sample.pairs.where(sample.pairs.is_decided & sample.pairs.is_scored)
    return Labelled(credit(pairs.margin), sample.prompt[pairs.chosen], pairs.chosen, pairs.rejected)


def _with_features(reference: Sample, current: Sample) -> tuple[Sample, Sample, str]:
    """Both samples with features of one kind: the model's, else of the texts, else of their lengths.

    Raises DataError when neither side can be described.
    """
    sides = (reference, current)
    if all(side.features.shape[1] for side in sides):
        return reference, current, MODEL
    if all(any(side.text) for side in sides):
        first, second = (replace(side, features=surface.features(list(side.text))) for side in sides)
        return first, second, SURFACE
    if all(np.isfinite(side.chars).any() for side in sides):
        first, second = (replace(side, features=np.log1p(side.chars)[:, None]) for side in sides)
        return first, second, LENGTH
    raise DataError(
        "nothing to compare: the tables hold no texts and no lengths; add 'text' or 'chars', or give --model"
    )


def _joined(reference: Sample, current: Sample) -> Sample:
    """The rows of both, the reference first; members only where both have as many."""
    has_members = reference.members.shape[1] == current.members.shape[1]
    return Sample(
        features=np.concatenate([reference.features, current.features]),
        reward=np.concatenate([reference.reward, current.reward]),
        prompt=np.concatenate([reference.prompt, current.prompt]),
        text=np.concatenate([reference.text, current.text]),
        chars=np.concatenate([reference.chars, current.chars]),
        members=np.concatenate([reference.members, current.members])
        if has_members
        else np.zeros((len(reference) + len(current), 0)),
    )


def _require_prompts(group: Ints, is_current: Mask, usable: Mask) -> None:
    for name, side in (("reference", ~is_current), ("current", is_current)):
        prompts = len(set(group[side & usable]))
        if prompts < FEWEST:
            raise DataError(
                f"the {name} sample has {prompts} prompts with usable answers; give at least {FEWEST}, better hundreds"
            )


def _usual(group: Ints, is_current: Mask, usable: Mask) -> int:
    """Answers per prompt that both sides can offer: the smaller of their medians."""
    sizes = [np.unique(group[side & usable], return_counts=True)[1] for side in (is_current, ~is_current)]
    return max(1, int(min(np.median(size) for size in sizes)))


def _measures(
    both: Sample, points: Floats, rows: TwoSamples, ellipsoid: Ellipsoid, held_out: Mask, seed: int
) -> list[Measure]:
    """All measures that these samples allow, in the order in which they are shown."""
    found = [classifier(points, rows, seed), discrepancy(points, rows)]
    found.append(outliers(points[held_out], rows.where(held_out), ellipsoid))
    scored = np.isfinite(both.reward)
    if _enough(scored, rows):
        found += rewards(both.reward[scored], rows.where(scored))
    judged = _is_whole(both.members)
    if both.members.shape[1] > 1 and _enough(judged, rows):
        found.append(disagreement(both.members[judged], rows.where(judged)))
    if all(any(both.text[side]) for side in (rows.is_current, ~rows.is_current)):
        found += answers(list(both.text), rows)
    elif _enough(np.isfinite(both.chars), rows):
        sized = np.isfinite(both.chars)
        found.append(column("characters", both.chars[sized], rows.where(sized)))
    return found


def _enough(known: Mask, rows: TwoSamples) -> bool:
    return all(len(set(rows.group[known & side])) >= FEWEST for side in (rows.is_current, ~rows.is_current))


def _log_ratios(points: Floats, group: Ints, is_current: Mask, usable: Mask, kept: Mask, seed: int) -> Floats:
    """Log density ratios of all usable rows, NaN for the others."""
    found = np.full(len(points), np.nan)
    numbers = np.unique(group[usable], return_inverse=True)[1].reshape(-1).astype(np.int64)
    fold = folds_by_prompt(numbers, is_current[usable], seed)
    found[usable] = log_ratios(points[usable], is_current[usable], fold, kept[usable])
    return found


def _accuracy_lost(
    reference: Sample, fresh: Sample | None, ratios: Floats, times: int, seed: int
) -> list[AccuracyLost]:
    """What labels say, then what weights say, as far as there are labels."""
    held, new = labelled(reference), labelled(fresh) if fresh is not None else None
    if held is None:
        return []
    of_pairs = ratios[held.chosen] + ratios[held.rejected]
    known = np.isfinite(of_pairs)
    estimate = weighted(_select(held, known), of_pairs[known], _finite(ratios), times=times, seed=seed)
    return [estimate] if new is None else [measured(held, new, times=times, seed=seed), estimate]


def _select(pairs: Labelled, keep: Mask) -> Labelled:
    return Labelled(pairs.credit[keep], pairs.prompt[keep], pairs.chosen[keep], pairs.rejected[keep])


def _corrected(found: list[Measure], lost: list[AccuracyLost]) -> tuple[list[Measure], list[AccuracyLost]]:
    """Holm's correction over all tests of the check, the one on fresh labels among them."""
    adjusted = holm(np.array([m.p for m in found] + [a.p for a in lost]))
    measures = [replace(m, p_holm=float(p)) for m, p in zip(found, adjusted[: len(found)], strict=True)]
    accuracy = [replace(a, p_holm=float(p)) for a, p in zip(lost, adjusted[len(found) :], strict=True)]
    return measures, accuracy


def _curve(
    reference: Sample, distance: Floats, fresh: Sample | None, space: Space, ellipsoid: Ellipsoid
) -> Curve | None:
    """Accuracy by the mean distance of a pair's two answers, reference and fresh pairs together."""
    held = labelled(reference)
    parts = [(held.credit, (distance[held.chosen] + distance[held.rejected]) / 2)] if held is not None else []
    new = labelled(fresh) if fresh is not None else None
    if new is not None and fresh is not None and fresh.features.shape[1] == len(space.mean):
        far = ellipsoid.distances(space(fresh.features))
        parts.append((new.credit, (far[new.chosen] + far[new.rejected]) / 2))
    if not parts:
        return None
    right, far = (np.concatenate(column) for column in zip(*parts, strict=True))
    right, far = right[np.isfinite(far)], far[np.isfinite(far)]
    if len(far) < 20 * BINS:
        return None
    bins = np.array_split(np.argsort(far, kind="stable"), BINS)
    accuracy, n = np.array([right[b].mean() for b in bins]), np.array([len(b) for b in bins], dtype=np.int64)
    return Curve(np.array([far[b].mean() for b in bins]), accuracy, *wilson(accuracy, n), n)


def _is_whole(rows: Floats) -> Mask:
    return np.asarray(np.isfinite(rows).all(axis=1), dtype=np.bool_)


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_null_for_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
