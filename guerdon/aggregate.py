"""One reward from the rewards of an ensemble's members, by a rule that is written as a word: `min`, `mean-std:1`, ...

In: member rewards (..., M). Out: (...). The order of the members never changes a bit of the result. A policy that is
optimised against a single reward model finds its mistakes; where members disagree, a cautious rule pays less (Coste et
al. 2023, arXiv 2310.02743; Eisenstein et al. 2023, arXiv 2312.09244).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guerdon.types import ConfigError

RULES = "mean, min, lcb:K, mean-std:K, mean-var:K, quantile:Q"


class Rule(NamedTuple):
    """`name` is mean, min, mean-std, mean-var or quantile; `value` its K or Q, 0 for the first two."""

    name: str
    value: float

    def __str__(self) -> str:
        return self.name if self.name in ("mean", "min") else f"{self.name}:{self.value:g}"


def parse_rule(text: str) -> Rule:
    """A rule from its name: `mean`, `min`, `mean-std:K`, `mean-var:K` (K >= 0) or `quantile:Q` (0 <= Q <= 1).

    `lcb:K`, the lower confidence bound, is another name for `mean-std:K`; `lcb` alone has K = 1.
    Raises ConfigError naming what is wrong.
    """
    name, colon, number = text.strip().partition(":")
    if name in ("mean", "min"):
        if colon:
            raise ConfigError(f"ensemble rule '{text}': {name} takes no number; write {name}")
        return Rule(name, 0.0)
    if name == "lcb":
        name, number = "mean-std", number if colon else "1"
    if name not in ("mean-std", "mean-var", "quantile"):
        raise ConfigError(f"ensemble rule '{text}' is not known; choose one of {RULES}")
    try:
        value = float(number)
    except ValueError:
        raise ConfigError(f"ensemble rule '{text}': needs a number, as in {name}:0.5") from None
    highest = 1.0 if name == "quantile" else np.inf
    if not 0 <= value <= highest or value == np.inf:
        limits = "between 0 and 1" if name == "quantile" else "0 or more"
        raise ConfigError(f"ensemble rule '{text}': the number must be {limits}")
    return Rule(name, value)


def combine(members: NDArray[np.float64], rule: Rule) -> NDArray[np.float64]:
    """The reward of each row, (...), from (..., M); NaN where a member is NaN.

    mean        average of the members
    min         worst case, WCO of Coste et al. (arXiv 2310.02743)
    mean-std:K  mean - K sd: a lower bound in the members' units
    mean-var:K  mean - K variance, UWO of Coste et al., who use 0.5 for best-of-n; depends on the scale of the rewards
    quantile:Q  Q-quantile with linear interpolation: 0 is min, 0.5 the median

    Spread is the population's (divided by M). Members are sorted first, so that rounding does not depend on their order.
    """
    ordered = np.sort(members, axis=-1)
    if rule.name == "quantile":
        return np.asarray(np.quantile(ordered, rule.value, axis=-1))
    if rule.name == "min":
        return np.asarray(ordered.min(axis=-1))
    reward = ordered.mean(axis=-1)
    if rule.name == "mean-std":
        reward = reward - rule.value * ordered.std(axis=-1)
    elif rule.name == "mean-var":
        reward = reward - rule.value * ordered.var(axis=-1)
    return np.asarray(reward)


def standardise(members: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each member's rewards as z within each prompt's pool (rows starts[i]:starts[i+1]); 0 where a pool is constant.

    Members trained apart differ in scale; without this the widest of them decides the minimum and the spread.
    """
    sizes = np.diff(starts)[:, None]
    mean = np.add.reduceat(members, starts[:-1]) / sizes
    centred = members - np.repeat(mean, sizes[:, 0], axis=0)
    spread = np.sqrt(np.add.reduceat(centred**2, starts[:-1]) / sizes)
    spread[spread <= 1e-12 * np.abs(mean)] = np.inf
    return np.asarray(centred / np.repeat(spread, sizes[:, 0], axis=0))
