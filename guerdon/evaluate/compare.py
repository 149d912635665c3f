"""Several models on the same pairs: which differences are real, which could have been seen, and who shares a rank.

In: score tables of the same comparisons. Out: a `ModelComparison`, whose `to_dict()` is JSON. `docs/compare.md` defines
every number.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from guerdon.evaluate.calibration import credit
from guerdon.evaluate.columns import Floats, plain
from guerdon.evaluate.intervals import bootstrap_means, effective_groups, expanded_tail, standard_error
from guerdon.evaluate.paired import holm, letter, letter_groups, mcnemar, prompt_effect, sign_flip, smallest_difference
from guerdon.evaluate.table import ScoreTable
from guerdon.evaluate.trivial import Baseline, baselines
from guerdon.types import ConfigError, DataError


@dataclass(frozen=True)
class Standing:
    """One model among the others; shares in 0..1.

    accuracy, low, high  on the common pairs, with the interval over prompts
    half_width           t quantile times its standard error, prompts clustered: its own uncertainty, unpaired
    score_ties           pairs with equal scores; each counts one half
    groups               letters; two models share one exactly when their difference is not significant
    best_rank            1 + the models that are significantly better
    worst_rank           the number of models less those that are significantly worse
    """

    name: str
    accuracy: float
    low: float
    high: float
    half_width: float
    score_ties: int
    groups: str
    best_rank: int
    worst_rank: int


@dataclass(frozen=True)
class Difference:
    """Two models on the same pairs, the more accurate one first; shares in 0..1.

    difference, low, high  of their accuracies, with the paired interval over prompts
    only_first             pairs that only the first gets right (an equal score is not right)
    only_second            pairs that only the second gets right
    mcnemar, mcnemar_mid   exact two-sided p and mid-p from these two counts, as if pairs were independent
    p                      exact sign-flip test on whole prompts
    p_holm                 p corrected for all pairs of models
    is_significant         p_holm < 1 - level
    discordance            mean square of the difference per pair
    design_effect          how much prompts widen the variance of the difference, at least 1
    smallest               difference that a paired comparison like this finds with 80 % power, uncorrected
    smallest_unpaired      the same for two models measured on separate sets of this size
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    mcnemar: float
    mcnemar_mid: float
    p: float
    p_holm: float
    is_significant: bool
    discordance: float
    design_effect: float
    smallest: float
    smallest_unpaired: float


@dataclass(frozen=True)
class ModelComparison:
    """Models, best first, and every pair of them.

    n           decided pairs that all models scored; everything here is measured on these
    left_out    comparisons that are not in every table
    unscored    decided pairs without a score from at least one model
    baselines   trivial rules on the same pairs, see `trivial.baselines`
    level       of the intervals and, as 1 - level, of the tests
    """

    models: tuple[Standing, ...]
    differences: tuple[Difference, ...]
    n: int
    prompts: int
    left_out: int
    unscored: int
    baselines: Mapping[str, Baseline]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types; a number that is not finite becomes None."""
        record: dict[str, Any] = plain(asdict(self))
        return record


def compare(
    tables: Mapping[str, ScoreTable], *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> ModelComparison:
    """Compare two or more models, by name, on the pairs that all of them scored.

    Raises ConfigError for fewer than two tables, DataError when they share no pair or disagree about a label.
    """
    if len(tables) < 2:
        raise ConfigError(f"{len(tables)} score table is nothing to compare; give at least two")
    aligned, left_out = align(tables)
    every = [table.pairs() for table in aligned.values()]
    scored = np.all([pairs.is_scored for pairs in every], axis=0)
    common = [pairs.where(pairs.is_decided & scored) for pairs in every]
    pairs = common[0]
    if not len(pairs):
        raise DataError(f"{', '.join(tables)}: no decided pair was scored in all; compare tables of the same data")
    rights = np.stack([credit(one.margin) for one in common], axis=1)
    order = np.argsort(-rights.mean(axis=0), kind="stable")
    names = [list(tables)[i] for i in order]
    rights, margins = rights[:, order], [common[i].margin for i in order]
    means = bootstrap_means(rights, pairs.group, seed=seed, resamples=resamples)
    couples = list(itertools.combinations(range(len(names)), 2))
    tail = expanded_tail(pairs.group, level)
    p = [sign_flip(rights[:, i] - rights[:, j], pairs.group) for i, j in couples]
    differences = tuple(
        _difference((names[i], names[j]), rights[:, [i, j]], means[:, i] - means[:, j], pairs.group, tail, level, *ps)
        for (i, j), *ps in zip(couples, p, holm(np.array(p)).tolist(), strict=True)
    )
    distinct = [couple for couple, one in zip(couples, differences, strict=True) if one.is_significant]
    return ModelComparison(
        models=_standings(names, rights, margins, means, pairs.group, tail, distinct, level),
        differences=differences,
        n=len(pairs),
        prompts=len(np.unique(pairs.group)),
        left_out=left_out,
        unscored=int((every[0].is_decided & ~scored).sum()),
        baselines=baselines(next(iter(aligned.values())), pairs, seed=seed, resamples=resamples),
        level=level,
    )


def align(tables: Mapping[str, ScoreTable]) -> tuple[dict[str, ScoreTable], int]:
    """The comparisons that are in all tables, row by row in the order of the first; and how many others there are.

    Comparisons are the same when their ids are, and have the same completions; an id that occurs more than once is
    told apart by its turn. Prompts, lengths and sources are those of the first table.
    Raises DataError when tables rank the completions of a comparison differently.
    """
    places = {name: _places(table) for name, table in tables.items()}
    first, *others = places.values()
    known = set().union(*places.values())
    shared = [key for key in first if all(key in other for other in others)]
    rows = {
        name: np.concatenate([np.arange(*found[key]) for key in shared]) if shared else np.zeros(0, dtype=np.int64)
        for name, found in places.items()
    }
    aligned = {name: _rows(table, rows[name]) for name, table in tables.items()}
    lead_name, lead = next(iter(aligned.items()))
    for name, table in aligned.items():
        for what in ("completion", "rank"):
            differs = np.flatnonzero(getattr(table, what) != getattr(lead, what))
            if len(differs):
                raise DataError(
                    f"{name}: comparison '{lead.comparison[differs[0]]}' has other {what}s than in {lead_name}; "
                    "score the same file of comparisons with every model"
                )
        same = {column: getattr(lead, column) for column in ("prompt", "chars", "source", "strength", "weight")}
        aligned[name] = replace(table, **same)
    return aligned, len(known) - len(shared)


def _places(table: ScoreTable) -> dict[tuple[str, int, int], tuple[int, int]]:
    """First row and end of each comparison, by its id, its number among equal ids, and its number of completions."""
    starts = table.starts().tolist()
    seen: Counter[str] = Counter()
    places = {}
    for start, end in itertools.pairwise(starts):
        name = table.comparison[start]
        places[name, seen[name], end - start] = (start, end)
        seen[name] += 1
    return places


def _rows(table: ScoreTable, rows: NDArray[np.int64]) -> ScoreTable:
    columns = {name: getattr(table, name) for name in ScoreTable.__dataclass_fields__}
    chosen: dict[str, Any] = {name: column[rows] for name, column in columns.items() if column is not None}
    return ScoreTable(**chosen)


def _difference(
    names: tuple[str, str],
    rights: Floats,
    resampled: Floats,
    group: NDArray[np.int64],
    tail: float,
    level: float,
    p: float,
    p_holm: float,
) -> Difference:
    delta = rights[:, 0] - rights[:, 1]
    low, high = _limits(resampled, tail)
    is_right = rights == 1
    only_first = int((is_right[:, 0] & ~is_right[:, 1]).sum())
    only_second = int((is_right[:, 1] & ~is_right[:, 0]).sum())
    exact, mid = mcnemar(only_first, only_second)
    discordance, effect = float(np.mean(delta**2)), prompt_effect(delta, group)
    alone = [float(column.var()) * prompt_effect(column, group) for column in rights.T]
    return Difference(
        first=names[0],
        second=names[1],
        difference=float(delta.mean()),
        low=low,
        high=high,
        only_first=only_first,
        only_second=only_second,
        mcnemar=exact,
        mcnemar_mid=mid,
        p=p,
        p_holm=p_holm,
        is_significant=p_holm < 1 - level,
        discordance=discordance,
        design_effect=effect,
        smallest=smallest_difference(discordance, len(delta), effect=effect, level=level),
        smallest_unpaired=smallest_difference(sum(alone), len(delta), level=level),
    )


def _standings(
    names: Sequence[str],
    rights: Floats,
    margins: Sequence[Floats],
    means: Floats,
    group: NDArray[np.int64],
    tail: float,
    distinct: Sequence[tuple[int, int]],
    level: float,
) -> tuple[Standing, ...]:
    groups = letter_groups(distinct, len(names))
    worse_than, better_than = Counter(j for _, j in distinct), Counter(i for i, _ in distinct)
    width = float(stats.t.ppf((1 + level) / 2, effective_groups(group) - 1))
    found = []
    for k, name in enumerate(names):
        low, high = _limits(means[:, k], tail)
        found.append(
            Standing(
                name=name,
                accuracy=float(rights[:, k].mean()),
                low=low,
                high=high,
                half_width=width * standard_error(rights[:, k], group),
                score_ties=int((margins[k] == 0).sum()),
                groups=" ".join(letter(number) for number, members in enumerate(groups) if k in members),
                best_rank=1 + worse_than[k],
                worst_rank=len(names) - better_than[k],
            )
        )
    return tuple(found)


def _limits(resampled: Floats, tail: float) -> tuple[float, float]:
    if not len(resampled):
        return math.nan, math.nan
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)
