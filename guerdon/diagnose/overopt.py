"""Over-optimisation without a policy: best-of-n of a pool, by the reward that would be optimised, against gold.

In: a pool of N scored candidates per prompt, gold values, perhaps the members of an ensemble. Out: `Overoptimisation`,
with curves and intervals over prompts, the peak of gold, a fit or its refusal, and what the winners have in common.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from guerdon.aggregate import combine, parse_rule, standardise
from guerdon.diagnose.kl_fits import Fit, fit_best_of_n
from guerdon.diagnose.winners import Example, Tail, Trait, tail_index, traits, within_prompt, worst_picks
from guerdon.evaluate.best_of_n import Curve, best_of_n, curve, grid, interval, kl_nats, resampled_means
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.columns import Floats, Ints, plain
from guerdon.evaluate.pools import Pool
from guerdon.types import ConfigError, DataError

RULES = ("mean", "min", "mean-std:1", "mean-var:0.5")
SPARED = 0.05  # share of prompts, those with the smallest pools, that may be left out for the sake of a larger n
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Peak:
    """Where gold is highest, and whether it falls after that.

    n, gold         the n of the grid with the highest gold, and that gold
    n_low, n_high   95 % interval of that n (bootstrap over prompts)
    fall            gold at the peak - gold at the largest n, >= 0, with its paired interval at this fixed peak
    p               chance of such a fall from a gold curve that is flat, the choice of the peak included
    """

    n: int
    n_low: int
    n_high: int
    gold: float
    fall: float
    fall_low: float
    fall_high: float
    p: float

    @property
    def is_significant(self) -> bool:
        return self.fall > 0 and self.p < SIGNIFICANT


@dataclass(frozen=True, eq=False)
class Ladder:
    """Best-of-n under one reward; gold and what follows from it are None without gold values.

    name    `score`, `member 1`, ..., or an ensemble rule
    proxy   the reward itself above a random candidate, in standard deviations within a prompt
    gold    gold of the winner, in its own units
    regret  (oracle - gold) / (oracle - base): 0 picks as well as gold itself, 1 no better than chance; NaN at n = 1
    lift    gold above that of a random answer to the same prompts, with its paired interval
    gain    gold at the largest n above that of the average single member, with interval; None without members
    """

    name: str
    proxy: Curve
    gold: Curve | None = None
    regret: Curve | None = None
    peak: Peak | None = None
    fit: Fit | None = None
    gain: tuple[float, float, float] | None = None
    lift: Curve | None = None


@dataclass(frozen=True, eq=False)
class Overoptimisation:
    """What a pool says about optimising a reward.

    n, kl       subset sizes, and log n - (n-1)/n in nats for each
    prompts     prompts with at least the largest n candidates; `candidates` of these
    left_out    answers and prompts that were left out, by reason
    base        mean gold of a random candidate, with its interval; NaN without gold
    gold_sd     standard deviation of gold within a prompt
    reward      the ladder of the pool's own score
    ensemble    one ladder per rule; `members` one per member
    oracle      gold when gold itself picks: the most that any reward can reach
    length      gold when the longest answer is picked; None when lengths are unknown
    length_gap  gold of the reward - gold of length at the largest n, with paired interval
    winners     the best of the largest n against a random candidate
    tail        tail index of the reward's error; None without gold or with too few candidates
    examples    picks with the lowest gold against what was there
    """

    n: Ints
    kl: Floats
    prompts: int
    candidates: int
    left_out: dict[str, int]
    base: tuple[float, float, float]
    gold_sd: float
    reward: Ladder
    ensemble: tuple[Ladder, ...]
    members: tuple[Ladder, ...]
    oracle: Curve | None
    length: Curve | None
    length_gap: tuple[float, float, float] | None
    winners: tuple[Trait, ...]
    tail: Tail | None
    examples: tuple[Example, ...]

    @property
    def has_gold(self) -> bool:
        return self.reward.gold is not None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values for a JSON file; undefined numbers are None."""
        record: dict[str, Any] = plain(asdict(self), keep_none=True)
        return record


class Estimate(NamedTuple):
    """A mean over prompts at each n, (len(n),), and the same resampled over prompts, (resamples, len(n))."""

    mean: Floats
    draws: Floats
    prompts: int

    def curve(self) -> Curve:
        return curve(self.mean, self.draws, self.prompts)


def overoptimisation(
    pool: Pool,
    *,
    rules: Sequence[str] = RULES,
    standardised: bool = False,
    largest: int | None = None,
    examples: int = 5,
    seed: int = 0,
    resamples: int = 2000,
) -> Overoptimisation:
    """Measure a pool.

    rules         ensemble rules to compare when the pool has members (see `parse_rule`)
    standardised  put members on one scale within each pool before a rule combines them
    largest       largest n; prompts with fewer candidates are left out. Default: the smallest pool once the 5 % of
                  prompts with the smallest pools are set aside

    Raises DataError when no n above 1 is possible, ConfigError for an unknown rule or an n that no pool has.
    """
    wanted = [parse_rule(rule) for rule in rules]
    table, left_out, n = _restricted(pool.table, dict(pool.dropped), largest)
    starts = table.starts()
    rewards = {"score": table.score}
    members = table.members
    count = members.shape[1]
    if count > 1:
        scaled = standardise(members, starts) if standardised else members
        rewards |= {str(rule): combine(scaled, rule) for rule in wanted}
        rewards |= {f"member {i + 1}": members[:, i] for i in range(count)}
    estimates = _estimates(table, starts, rewards, n, pool.has_gold, seed, resamples)
    ladders = [_ladder(name, n, estimates, count if count > 1 else 0) for name in rewards]
    first, oracle, length = ladders[0].gold, estimates.get("oracle"), estimates.get("length")
    gold = pool.has_gold
    return Overoptimisation(
        n=n,
        kl=kl_nats(n),
        prompts=len(starts) - 1,
        candidates=len(table),
        left_out=left_out,
        base=(float(first.mean[0]), float(first.low[0]), float(first.high[0])) if first else (math.nan,) * 3,
        gold_sd=float(within_prompt(table.gold, starts).std()) if gold else math.nan,
        reward=ladders[0],
        ensemble=tuple(ladder for ladder in ladders[1:] if not ladder.name.startswith("member ")),
        members=tuple(ladder for ladder in ladders[1:] if ladder.name.startswith("member ")),
        oracle=oracle.curve() if oracle else None,
        length=length.curve() if length else None,
        length_gap=_difference(estimates["gold of score"], length) if length else None,
        winners=tuple(traits(table, int(n[-1]), seed=seed, resamples=resamples)),
        tail=tail_index(table, seed=seed, resamples=resamples) if gold else None,
        examples=tuple(worst_picks(table, pool.prompts, examples)) if gold else (),
    )


def _restricted(
    table: CandidateTable, left_out: dict[str, int], largest: int | None
) -> tuple[CandidateTable, dict[str, int], Ints]:
    """The prompts whose pools are large enough, what that cost, and the grid of n."""
    sizes = np.diff(table.starts())
    top = largest if largest is not None else int(np.quantile(sizes, SPARED, method="lower"))
    if largest is None and top < 2:
        top = min(2, int(sizes.max()))
    if largest is not None and largest < 2:
        raise ConfigError(f"the largest n must be 2 or more, got {largest}")
    if top < 2:
        raise DataError(f"the largest pool holds {sizes.max()} candidate with all values; best-of-n needs 2 or more")
    if top > sizes.max():
        raise ConfigError(f"no prompt has {top} candidates; the largest pool has {sizes.max()}")
    small = sizes < top
    if small.any():
        left_out[f"prompts with fewer than {top} candidates"] = int(small.sum())
        table = table.where(np.repeat(~small, sizes))
    return table, left_out, grid(top)


def _estimates(
    table: CandidateTable,
    starts: Ints,
    rewards: dict[str, Floats],
    n: Ints,
    has_gold: bool,
    seed: int,
    resamples: int,
) -> dict[str, Estimate]:
    """Proxy and gold of each reward, oracle and length, all resampled by the same draws of prompts."""
    found: dict[str, Floats] = {}
    for name, reward in rewards.items():
        centred = within_prompt(reward, starts)
        scaled = centred / (centred.std() or 1.0)
        values = np.stack([scaled, table.gold], axis=1) if has_gold else scaled
        both = best_of_n(reward, values, starts, n)
        found[f"proxy of {name}"] = both[:, :, 0] - both[:, :1, 0]
        if has_gold:
            found[f"gold of {name}"] = both[:, :, 1]
    if has_gold:
        found["oracle"] = best_of_n(table.gold, table.gold, starts, n)[:, :, 0]
        if np.isfinite(table.chars).all():
            found["length"] = best_of_n(table.chars, table.gold, starts, n)[:, :, 0]
    per_prompt = np.concatenate(list(found.values()), axis=1)
    prompts = len(per_prompt)
    draws = resampled_means(per_prompt, seed=seed, resamples=resamples) if prompts > 1 else per_prompt[:0]
    parts = zip(found, np.split(draws, len(found), axis=1), strict=True)
    return {name: Estimate(found[name].mean(axis=0), part, prompts) for name, part in parts}


def _ladder(name: str, n: Ints, estimates: dict[str, Estimate], members: int) -> Ladder:
    proxy, gold = estimates[f"proxy of {name}"].curve(), estimates.get(f"gold of {name}")
    if gold is None:
        return Ladder(name, proxy)
    oracle = estimates["oracle"]
    regret = Estimate(_regret(gold.mean, oracle.mean), _regret(gold.draws, oracle.draws), gold.prompts)
    gain = None
    if members:
        singles = [estimates[f"gold of member {i + 1}"] for i in range(members)]
        mean, draws = (np.mean(parts, axis=0) for parts in ([s.mean for s in singles], [s.draws for s in singles]))
        gain = _difference(gold, Estimate(mean, draws, gold.prompts))
    fit = fit_best_of_n(n, gold.mean, gold.draws)
    lift = Estimate(gold.mean - gold.mean[:1], gold.draws - gold.draws[:, :1], gold.prompts)
    return Ladder(name, proxy, gold.curve(), regret.curve(), _peak(n, gold), fit, gain, lift.curve())


def _regret(gold: Floats, oracle: Floats) -> Floats:
    """Share of what the oracle gains that the reward misses; NaN where the oracle gains nothing."""
    room = oracle - oracle[..., :1]
    share: Floats = np.divide(oracle - gold, room, out=np.full_like(gold, math.nan), where=room > 0)
    return share


def _peak(n: Ints, estimate: Estimate) -> Peak:
    """The highest gold, and how far chance alone would make the last point lie below the highest.

    p is that of a one-sided max test: resampled curves are centred on the estimate, so that under a flat truth each
    would show a fall from its own highest point, and the fall that was found is compared with those.
    """
    gold, draws, prompts = estimate
    at, last = int(np.argmax(gold)), len(n) - 1
    fall = float(gold[at] - gold[last])
    if not len(draws):
        return Peak(int(n[at]), int(n[at]), int(n[at]), float(gold[at]), fall, math.nan, math.nan, math.nan)
    low, high = interval(draws[:, at] - draws[:, last], prompts)
    noise = draws - gold
    chance = (noise - noise[:, -1:]).max(axis=1)
    p = float((1 + np.sum(chance >= fall)) / (1 + len(draws)))
    ends = np.quantile(n[np.argmax(draws, axis=1)], [0.025, 0.975], method="nearest")
    return Peak(int(n[at]), int(ends[0]), int(ends[1]), float(gold[at]), fall, float(low), float(high), p)


def _difference(one: Estimate, other: Estimate) -> tuple[float, float, float]:
    """Difference of two curves at the largest n, with its paired interval."""
    found = Estimate(one.mean - other.mean, one.draws - other.draws, one.prompts).curve()
    return float(found.mean[-1]), float(found.low[-1]), float(found.high[-1])
