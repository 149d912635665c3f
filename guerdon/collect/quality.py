"""How good the labels of a study are: speed, agreement, consistency, leanings, and the raters somebody should look at.

In: judgements. Out: a `Quality`. Agreement is computed on the random arm alone: pairs that were chosen because they are hard
(or easy) say nothing about the study (Bramley 2015). `docs/judgements.md` defines every number.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from guerdon.data.collusion import Couple, couples
from guerdon.data.krippendorff import alpha_of, unit_sums
from guerdon.data.labels import Raters, current, labels_of
from guerdon.data.raters import Interval, RaterRow, fit_raters
from guerdon.data.votes import Votes, question_key, votes_of
from guerdon.evaluate.agreement import Agreement, rater_agreement
from guerdon.evaluate.intervals import bootstrap_means, ceiling, expanded_tail, wilson
from guerdon.types import Judgement

SAMPLE = 30_000  # judgements beyond which whole questions are left out of what is fitted or resampled
FAST = 0.2  # of the study's median time
MIN_GOLD, LOW_GOLD = 10, 0.7
MIN_RATE, SIDE_LIMIT, FAST_LIMIT, LOW_SKILL = 30, 0.1, 0.2, 0.5
KNOWN = ("gold", "attention", "training")  # arms whose answers were known before
_FORMATTED = re.compile(r"^\s*(?:[-*+] |\d+\. |#+ |```)|\*\*", re.MULTILINE)


@dataclass(frozen=True)
class Share:
    """A share of n trials with its 95 % Wilson interval; NaN without any."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class RaterQuality:
    """One rater; `seconds` is the median from shown to sent, `model` the row of the rater model."""

    rater: str
    judgements: int
    seconds: float
    left: Share
    longer: Share
    formatted: Share
    fast: Share
    gold: Share
    attention_failures: int
    consistent: Share
    model: RaterRow | None

    @property
    def skill(self) -> Interval | None:
        """The slope of the rater model; None where too few votes are shared with others."""
        return self.model.slope if self.model and self.model.known else None

    @property
    def side(self) -> Interval | None:
        """The side bias of the rater model, which needs nobody else; None where no order was recorded."""
        return self.model.side if self.model and self.left.n else None


@dataclass(frozen=True)
class Review:
    """A rater, or one and another, whom a person should look at, and one reason why. Nobody is dropped."""

    rater: str
    reason: str
    other: str = ""

    @property
    def names(self) -> str:
        return f"{self.rater} and {self.other}" if self.other else self.rater


@dataclass(frozen=True)
class Quality:
    """Everything known about the labels of a study.

    share_not_random  judgements that agreement leaves out because another arm chose their question, as a share
    sampled           share of the questions that fits and intervals were computed on; 1.0 is all
    note              what the rater model could not identify
    """

    judgements: int
    answers: dict[str, int]
    raters: int
    per_hour: float
    per_day: float
    seconds: float
    share_not_random: float
    sampled: float
    alpha: Interval
    agreement: Agreement | None
    consistency: Share
    swapped_side_bias: float
    ceiling: tuple[float, float] | None
    gold: Share
    attention_failures: int
    guidelines: dict[int, dict[str, float]]
    table: list[RaterQuality]
    couples: list[Couple]
    review: list[Review]
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN as None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def quality(
    judgements: Iterable[Judgement], *, gold: Mapping[str, Sequence[float]] | None = None, raters: Raters = "human"
) -> Quality:
    """The quality of the judgements that stand. `gold` maps ids of questions to their known ranks.

    Deterministic. Above SAMPLE judgements, fits and intervals use whole questions, drawn by their text.
    """
    every = [j for j in current(judgements) if raters in ("both", j.kind)]
    sample, sampled = _sample([j for j in every if j.arm not in KNOWN])
    # a repeat is a second look at a question that any arm may have chosen, so it is no evidence on other raters
    random = [j for j in sample if j.arm in ("random", "given")]
    times = [s for j in every if math.isfinite(s := j.submitted_at - j.shown_at)]
    sent = [j.submitted_at for j in every if math.isfinite(j.submitted_at)]
    typical = median(times) if times else math.nan
    model, chance = fit_raters(sample), votes_of(random)
    agreement = rater_agreement(labels_of(random, raters="both").comparisons, resamples=500)
    consistency, by_rater, lean = _repeats(model.votes)
    table = _table(every, {row.rater: row for row in model.table()}, by_rater, typical, gold or {})
    suspects = [couple for couple in couples(chance) if couple.flagged]
    return Quality(
        judgements=len(every),
        answers=dict(Counter(j.answer for j in every)),
        raters=len(table),
        per_hour=3600 * len(times) / sum(times) if sum(times) > 0 else math.nan,
        per_day=len(sent) / len({int(t // 86400) for t in sent}) if sent else math.nan,
        seconds=typical,
        share_not_random=1 - len(random) / len(sample) if sample else 0.0,
        sampled=sampled,
        alpha=_alpha(chance),
        agreement=agreement,
        consistency=consistency,
        swapped_side_bias=lean,
        ceiling=_ceiling(agreement, consistency),
        gold=_sum([row.gold for row in table]),
        attention_failures=sum(row.attention_failures for row in table),
        guidelines=_guidelines(every),
        table=table,
        couples=suspects,
        review=_review(table, suspects, typical),
        note=model.note,
    )


def _sample(judgements: Sequence[Judgement]) -> tuple[list[Judgement], float]:
    share = min(1.0, SAMPLE / max(1, len(judgements)))
    if share == 1:
        return list(judgements), 1.0
    limit = int(share * 2**32)
    known: dict[int, bool] = {}
    kept = []
    for judgement in judgements:
        mark = id(judgement.question)
        if mark not in known:
            known[mark] = int.from_bytes(question_key(judgement.question)[:4], "big") < limit
        if known[mark]:
            kept.append(judgement)
    return kept, share


def _table(
    judgements: Sequence[Judgement], rows: Mapping[str, RaterRow], consistent: Mapping[str, Share], typical: float,
    gold: Mapping[str, Sequence[float]],
) -> list[RaterQuality]:  # fmt: skip
    own: defaultdict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        own[judgement.rater].append(judgement)
    found = []
    for rater, mine in own.items():
        seconds = [s for j in mine if math.isfinite(s := j.submitted_at - j.shown_at)]
        gaps = [j.ranks[j.order[0]] - j.ranks[j.order[-1]] for j in mine if j.ranks and j.order]
        known = [(j.arm, _same(j.ranks, gold[j.question.id])) for j in mine if j.arm in KNOWN and j.question.id in gold]
        found.append(
            RaterQuality(
                rater=rater,
                judgements=len(mine),
                seconds=median(seconds) if seconds else math.nan,
                left=_share([gap < 0 for gap in gaps if gap != 0]),
                longer=_leaning(mine, lambda text: float(len(text))),
                formatted=_leaning(mine, lambda text: float(bool(_FORMATTED.search(text)))),
                fast=_share([s < FAST * typical for s in seconds]),
                gold=_share([right for arm, right in known if arm == "gold"]),
                attention_failures=sum(not right for arm, right in known if arm == "attention"),
                consistent=consistent.get(rater, _share([])),
                model=rows.get(rater),
            )
        )
    return sorted(found, key=lambda row: -row.judgements)


def _leaning(judgements: Iterable[Judgement], measure: Callable[[str], float]) -> Share:
    """How often the winner of a decided pair has more of something than the loser; equal pairs do not count."""
    won = []
    for judgement in judgements:
        if len(judgement.ranks) == 2 and judgement.ranks[0] != judgement.ranks[1]:
            a, b = (measure("\n\n".join(m["content"] for m in answer)) for answer in judgement.question.completions)
            if a != b:
                won.append((a > b) == (judgement.ranks[0] < judgement.ranks[1]))
    return _share(won)


def _same(ranks: Sequence[float], gold: Sequence[float]) -> bool:
    """Everything that gold decides is ranked the same way; an answer without ranks is not right."""
    k = range(len(gold))
    return len(ranks) == len(gold) and all(ranks[i] < ranks[j] for i in k for j in k if gold[i] < gold[j])


def _repeats(votes: Votes) -> tuple[Share, dict[str, Share], float]:
    """Share of swapped repeats with the same outcome, in all and by rater, and the side bias that they show.

    A repeated question is one value, the mean over its pairs: what one look says of several pairs is not independent.
    """
    twice = (np.diff(votes.pair) == 0) & (np.diff(votes.rater) == 0) & (votes.side[1:] * votes.side[:-1] < 0)
    a, b, who = votes.outcome[:-1][twice], votes.outcome[1:][twice], votes.rater[1:][twice]
    if not len(a):
        return _share([]), {}, math.nan
    shown_first = a * np.sign(votes.side[:-1][twice]) + b * np.sign(votes.side[1:][twice])
    looked = np.stack([who, votes.question[votes.pair[1:][twice]]])
    (raters, _), of, pairs = np.unique(looked, axis=1, return_inverse=True, return_counts=True)
    same, lean = (np.bincount(of.ravel(), values) / pairs for values in (a == b, shown_first))
    by_rater = {votes.raters[r]: _share(same[raters == r].tolist()) for r in np.unique(raters)}
    return _share(same.tolist()), by_rater, float(lean.mean()) / 4


def _alpha(votes: Votes) -> Interval:
    """Nominal alpha of better, worse and tie on pairs of candidates; interval by bootstrap over questions.

    Alpha is about different raters: several votes of one on a pair, as of a model asked in both orders, are one value, the side
    they favour on balance.
    """
    first = np.flatnonzero(np.diff(votes.pair, prepend=-1) | np.diff(votes.rater, prepend=-1))  # sorted by both
    pair, value = votes.pair[first], np.sign(np.add.reduceat(votes.outcome, first)) if len(first) else votes.outcome
    rows, values = unit_sums(pair, value.astype(np.float64))
    if len(rows) < 2:
        return Interval(math.nan, math.nan, math.nan)
    judged, times = np.unique(pair, return_counts=True)
    groups = np.unique(votes.question[judged[times > 1]], return_inverse=True)[1].astype(np.int64)
    drawn = alpha_of(bootstrap_means(rows, groups, resamples=500) * len(rows), values)
    tail = expanded_tail(groups)
    low, high = np.nanquantile(drawn, [tail, 1 - tail]) if np.isfinite(drawn).any() else (math.nan, math.nan)
    return Interval(float(alpha_of(rows.sum(axis=0)[None], values)[0]), float(low), float(high))


def _ceiling(agreement: Agreement | None, consistency: Share) -> tuple[float, float] | None:
    """From agreement between raters; without it from self-consistency, which knows nothing of taste and is too high."""
    if agreement:
        return agreement.ceiling
    return ceiling(max(0.5, consistency.value)) if consistency.n >= MIN_RATE else None


def _guidelines(judgements: Iterable[Judgement]) -> dict[int, dict[str, float]]:
    """Per version: judgements, share of ties among rankings, share of answers that rank nothing, and median seconds."""
    groups: defaultdict[int, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        groups[judgement.guideline].append(judgement)
    found = {}
    for version, mine in sorted(groups.items()):
        ranked = [j for j in mine if j.ranks]
        seconds = [s for j in mine if math.isfinite(s := j.submitted_at - j.shown_at)]
        found[version] = {
            "judgements": len(mine),
            "ties": sum(len(set(j.ranks)) == 1 for j in ranked) / max(1, len(ranked)),
            "unranked": 1 - len(ranked) / len(mine),
            "seconds": median(seconds) if seconds else math.nan,
        }
    return found


def _review(table: Sequence[RaterQuality], suspects: Sequence[Couple], typical: float) -> list[Review]:
    found = []
    for row in table:
        if row.skill and row.skill.high < LOW_SKILL:
            found.append(Review(row.rater, f"votes say little: skill {row.skill.value:.2f} of a typical rater's 1"))
        if row.side and max(row.side.low, -row.side.high) > SIDE_LIMIT:
            found.append(Review(row.rater, f"leans to one side by {row.side.value:+.2f} on even pairs"))
        if row.gold.n >= MIN_GOLD and row.gold.high < LOW_GOLD:
            found.append(Review(row.rater, f"{row.gold.value:.0%} of {row.gold.n} gold items right"))
        if row.attention_failures > 1:
            found.append(Review(row.rater, f"failed {row.attention_failures} attention checks"))
        if row.fast.n >= MIN_RATE and row.fast.low > FAST_LIMIT:
            found.append(Review(row.rater, f"{row.fast.value:.0%} of the answers came within {FAST * typical:.1f} s"))
    for c in suspects:
        what = f"agree on {c.agreement:.0%} of {c.common:.0f} common pairs where {c.expected:.0%} is expected (z {c.z:.1f})"
        found.append(Review(c.first, what, c.second))
    return found


def _share(values: Sequence[float]) -> Share:
    if not len(values):
        return Share(math.nan, math.nan, math.nan, 0)
    value = sum(values) / len(values)
    low, high = wilson(np.array([value]), np.array([len(values)]))
    return Share(value, float(low[0]), float(high[0]), len(values))


def _sum(shares: Sequence[Share]) -> Share:
    right, n = sum(round(s.value * s.n) for s in shares if s.n), sum(s.n for s in shares)
    return _share([True] * right + [False] * (n - right))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
