"""Bradley-Terry strengths of players (models, checkpoints) from who beat whom; a tie is half a win for each."""

from __future__ import annotations

import numpy as np

from guerdon.data.votes import Floats, Ints


def bradley_terry(
    first: Ints, second: Ints, outcome: Floats, players: int, tolerance: float = 1e-12, limit: int = 100_000
) -> Floats:
    """(players,) strengths at the maximum of likelihood, with sum 1; P(i beats j) = s_i / (s_i + s_j).

    `outcome` is 1 where the first won, -1 where the second did, 0 for a tie. Newman's iteration (2023, JMLR 24, eq. 26),
    which converges where every player is linked to every other by wins and losses. A player who never won has strength 0.
    """
    share = (np.asarray(outcome, dtype=np.float64) + 1) / 2
    wins = np.zeros((players, players))
    np.add.at(wins, (first, second), share)
    np.add.at(wins, (second, first), 1 - share)
    s = np.full(players, 1 / players)
    for _ in range(limit):
        total = np.maximum(s[:, None] + s[None, :], 1e-300)
        upper, lower = (wins * s[None, :] / total).sum(axis=1), (wins.T / total).sum(axis=1)
        new = np.where(lower > 0, upper / np.maximum(lower, 1e-300), s)
        new /= new.sum()
        if np.abs(new - s).max() < tolerance:
            return new
        s = new
    return s
