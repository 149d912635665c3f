"""Labels and judgements out, in the formats of other projects: exactly, or refused with the reason.

In: judgements. Out: a file, written whole or not at all, and what it holds. Every row is read back through the reader of its
format before it is kept; a row that would come back different is refused, so no loss can be silent. `docs/exports.md` says
what each format can hold.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from guerdon.data import write
from guerdon.data.foreign import argilla, helpsteer3, hh, label_studio, lmarena, openai, trl
from guerdon.data.foreign.limits import Unsupported
from guerdon.data.formats import FORMATS
from guerdon.data.judgements import to_row
from guerdon.data.labels import How, Label, Raters, current, labels_of
from guerdon.data.messages import Unusable
from guerdon.data.votes import question_key
from guerdon.files import replacing
from guerdon.types import Comparison, ConfigError, DataError, Judgement

LABELLED = ("guerdon", "trl", "hh", "helpsteer3", "openai")  # a row per comparison
JUDGED = (
    "judgements",
    "lmarena",
    "label-studio",
    "argilla",
)  # a row per judgement, or per question with its judgements
_HOLDS = {"guerdon": frozenset({"strength", "annotator", "weight"}), "trl": trl.HOLDS, "hh": hh.HOLDS,
          "helpsteer3": helpsteer3.HOLDS, "openai": openai.HOLDS}  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """What a file holds: `rows` written, `judgements` left out by reason before, `skipped` rows by reason of the format."""

    path: str
    format: str
    rows: int
    left_out: dict[str, int]
    skipped: dict[str, int]


def export(
    judgements: Iterable[Judgement],
    path: str | Path,
    format: str = "judgements",
    *,
    labels: How = "raw",
    raters: Raters = "human",
    skip_unsupported: bool = False,
    pairs: bool = False,
    drop: Sequence[str] = (),
    round_strength: bool = False,
) -> Exported:
    """Write judgements, or the labels made of them, to a file (gzipped when its name ends in .gz).

    `pairs` writes a ranking of K as its C(K,2) pairs; `drop` names what may be left behind (strength, annotator) where a
    format has no place for it; `round_strength` rounds a mean strength to 1, 2 or 3. Raises ConfigError for an unknown
    format or a combination that makes no sense, DataError for the first row that the format cannot hold, unless
    `skip_unsupported`, which counts them.
    """
    _check(format, labels, drop)
    skipped: Counter[str] = Counter()
    every = list(judgements)
    left_out: dict[str, int] = {}
    if format in JUDGED:
        rows = _judged_rows(every, format)
    else:
        made = labels_of(every, labels, raters)
        left_out = made.left_out
        behind = {judgement.id: judgement for judgement in every}
        rows = (
            _task(_labelled_row, label, behind, format, drop, round_strength) for label in _split(made.labels, pairs)
        )
    target, count = Path(path), 0
    with replacing(target) as temporary, write.opened(temporary, target.suffix == ".gz") as file:
        for name, make in rows:
            try:
                file.write(_bytes(make(), name))
            except Unsupported as reason:
                if not skip_unsupported:
                    raise DataError(f"{name} {reason}") from None
                skipped[str(reason).partition(",")[0].partition(";")[0]] += 1
            else:
                count += 1
    return Exported(str(path), format, count, left_out, dict(skipped))


def _check(format: str, labels: How, drop: Sequence[str]) -> None:
    if format not in (*LABELLED, *JUDGED):
        raise ConfigError(f"unknown format {format!r}; choose one of {', '.join((*JUDGED, *LABELLED))}")
    if format in JUDGED and labels != "raw":
        raise ConfigError(
            f"--format {format} holds judgements, not labels; leave --labels {labels} out or use one of {', '.join(LABELLED)}"
        )
    unknown = sorted(set(drop) - {"strength", "annotator"})
    if unknown:
        raise ConfigError(f"--drop {unknown[0]}: only strength and annotator can be left behind")


Make = tuple[str, Callable[[], dict[str, Any]]]


def _task(function: Callable[..., dict[str, Any]], label: Label, *rest: Any) -> Make:
    return label.comparison.id or "comparison", lambda: function(label, *rest)


def _split(labels: Sequence[Label], pairs: bool) -> Iterator[Label]:
    """The labels, rankings taken apart into pairs when asked for; a pair of a ranking counts 1/C(K,2) in no format but ours."""
    for label in labels:
        comparison, k = label.comparison, len(label.comparison.completions)
        if not pairs or k == 2:
            yield label
            continue
        soft = comparison.probabilities or (None,) * (k * (k - 1) // 2)
        for (i, j), p in zip(combinations(range(k), 2), soft, strict=True):
            part = replace(
                comparison, completions=(comparison.completions[i], comparison.completions[j]), strength=None,
                ranks=(comparison.ranks[i], comparison.ranks[j]), probabilities=() if p is None else (p,),
                id=f"{comparison.id} {i}:{j}",
            )  # fmt: skip
            yield Label(part, label.judgements)


def _labelled_row(
    label: Label, behind: dict[str, Judgement], format: str, drop: Sequence[str], round_strength: bool
) -> dict[str, Any]:
    comparison = label.comparison
    for name in ("strength", "annotator"):
        if getattr(comparison, name) is not None and name not in _HOLDS[format]:
            if name not in drop:
                raise Unsupported(
                    f"has a {name}, and {format} has no place for one; leave it behind with --drop {name}"
                )
            comparison = replace(comparison, **{name: None})  # type: ignore[arg-type]
    if round_strength and comparison.strength is not None and len(set(comparison.ranks)) > 1:
        comparison = replace(comparison, strength=float(min(3, max(1, math.floor(comparison.strength + 0.5)))))
    row = _row(comparison, format, [behind[id] for id in label.judgements])
    _require_same(comparison, row, format)
    if format != "openai":  # which may refuse columns that it does not know
        row |= {"source": comparison.source, "id": comparison.id, "judgements": list(label.judgements)}
        if comparison.annotator is not None:
            row["annotator"] = comparison.annotator
    return row


def _row(comparison: Comparison, format: str, judgements: Sequence[Judgement]) -> dict[str, Any]:
    if format == "helpsteer3":
        return helpsteer3.to_row(comparison, judgements)
    makers: dict[str, Callable[[Comparison], dict[str, Any]]] = {
        "guerdon": write.to_row, "trl": trl.to_row, "hh": hh.to_row, "openai": openai.to_row,
    }  # fmt: skip
    return makers[format](comparison)


def _require_same(comparison: Comparison, row: dict[str, Any], format: str) -> None:
    """Raise Unsupported when the row would be read as something else."""
    try:
        back = FORMATS[format].convert(row)
    except (DataError, Unusable) as reason:
        raise Unsupported(f"would not be read back from {format} ({reason}); use --format guerdon") from None
    for name, ours, theirs in zip(
        ("prompt or answers", "ranks", "strength", "probabilities"), _normal(comparison), _normal(back), strict=True
    ):
        if ours != theirs:
            raise Unsupported(f"would come back from {format} with other {name}; use --format guerdon or --format trl")


def _normal(comparison: Comparison) -> tuple[Any, ...]:
    """What a comparison says, whatever the order of its completions and the numbers of its ranks."""
    by = sorted(
        range(len(comparison.ranks)), key=lambda i: (comparison.ranks[i], json.dumps(comparison.completions[i]))
    )
    values = sorted(set(comparison.ranks))
    chats = [[*comparison.prompt, *comparison.completions[i]] for i in by], len(comparison.prompt)
    strength = comparison.strength if len(values) > 1 or comparison.strength else None  # a tie has no strength, or 0
    soft = None if not comparison.probabilities else (comparison.completions, comparison.probabilities)
    return chats, [values.index(comparison.ranks[i]) for i in by], strength, soft


def _judged_rows(judgements: Sequence[Judgement], format: str) -> Iterator[Make]:
    if format in ("judgements", "lmarena"):
        make = to_row if format == "judgements" else lmarena.to_row
        for judgement in judgements if format == "judgements" else current(judgements):
            yield f"judgement {judgement.id}", _checked(make, [judgement], format)
        return
    groups: dict[bytes, list[Judgement]] = {}
    for judgement in current(judgements):
        groups.setdefault(question_key(judgement.question) + judgement.question.id.encode(), []).append(judgement)
    join = label_studio.to_task if format == "label-studio" else argilla.to_record
    for group in groups.values():
        yield (
            f"question {group[0].question.id}",
            _checked(lambda first, g=group: join(first.question, g), group, format),
        )


def _checked(
    make: Callable[..., dict[str, Any]], group: Sequence[Judgement], format: str
) -> Callable[[], dict[str, Any]]:
    def checked() -> dict[str, Any]:
        row = make(group[0])
        judge = FORMATS[format].judge
        assert judge is not None
        try:
            back = judge(json.loads(json.dumps(row)))
        except (DataError, Unusable) as reason:
            raise Unsupported(f"would not be read back from {format} ({reason}); use --format judgements") from None
        if [repr(judgement) for judgement in back] != [repr(judgement) for judgement in group]:  # repr: NaN equals NaN
            raise Unsupported(f"would come back different from {format}; use --format judgements")
        return row

    return checked


def _bytes(row: dict[str, Any], name: str) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError:
        raise DataError(
            f"{name}: holds a number that is not finite or half a surrogate pair; it cannot be written"
        ) from None
