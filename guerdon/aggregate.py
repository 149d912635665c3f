"""From the rewards of an ensemble to the one reward that leaves it: the mean, the worst case, or something between.

A policy that is optimised against a single reward model finds its mistakes; where the members of an ensemble disagree,
a cautious rule pays less (Coste et al. 2023, arXiv 2310.02743; Eisenstein et al. 2023, arXiv 2312.09244).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guerdon.types import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMS = "mean, min, mean-std:K, mean-var:K or quantile:Q"


@dataclass(frozen=True)
class Rule:
    """How the rewards of M members become one. `amount` is K or Q, 0 where the rule takes none.

    mean        the average: the ensemble's best guess
    min         worst-case optimisation: what the most pessimistic member pays
    mean-std:K  mean - K * standard deviation over members (population form, in reward units)
    mean-var:K  mean - K * variance over members: uncertainty-weighted optimisation (Coste et al.)
    quantile:Q  the Q-quantile over members, 0 <= Q <= 1, linear between members; 0 is `min`
    """

    name: str = "mean"
    amount: float = 0.0

    def __str__(self) -> str:
        return self.name if self.name in ("mean", "min") else f"{self.name}:{self.amount:g}"

    def __call__(self, members: Any) -> NDArray[np.float64]:
        """(..., M) rewards of the members -> (...) rewards; the order of the members does not matter to the last bit."""
        import numpy as np

        rewards = np.sort(np.asarray(members, dtype=np.float64), axis=-1)
        if self.name == "min":
            return rewards[..., 0]
        if self.name == "quantile":
            return np.quantile(rewards, self.amount, axis=-1)
        mean: NDArray[np.float64] = rewards.mean(axis=-1)
        if self.name == "mean-std":
            return mean - self.amount * rewards.std(axis=-1)  # type: ignore[no-any-return]
        if self.name == "mean-var":
            return mean - self.amount * rewards.var(axis=-1)  # type: ignore[no-any-return]
        return mean


def parse_rule(text: str) -> Rule:
    """A rule from its spelling, such as `mean`, `min`, `mean-std:1` or `quantile:0.25`. Raises ConfigError for any other."""
    name, colon, number = text.strip().partition(":")
    if name in ("mean", "min") and not colon:
        return Rule(name)
    if name not in ("mean-std", "mean-var", "quantile") or not colon:
        raise ConfigError(f"'{text}' is not a rule for the reward of an ensemble; write {FORMS}")
    try:
        amount = float(number)
    except ValueError:
        raise ConfigError(
            f"'{text}': '{number}' is not a number; write {name} followed by one, as in {name}:0.5"
        ) from None
    if name == "quantile" and not 0 <= amount <= 1:
        raise ConfigError(f"'{text}': a quantile lies between 0 and 1")
    if not 0 <= amount < float("inf"):
        raise ConfigError(f"'{text}': the weight of the uncertainty must be 0 or greater")
    return Rule(name, amount)
