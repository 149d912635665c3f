"""From a seed to human-looking comparisons: prompts, completions by random writers, judgements by random raters.

`simulate` gives what a team would have collected, with the truth beside it; `gold_comparisons` gives fresh comparisons
ordered by gold, for measuring a reward model against the truth. Both are the same for the same arguments, everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

from guerdon.lab.gold import gold
from guerdon.lab.raters import RATERS, Rater
from guerdon.lab.world import prompts as draw_prompts
from guerdon.lab.writers import WRITERS, Writer
from guerdon.types import Comparison, ConfigError

MAX_K = 6


@dataclass(frozen=True)
class Simulation:
    """Simulated comparisons and the truth about them; row i of every list belongs to `comparisons[i]`.

    comparisons     ranked by raters
    golds           gold of each completion
    writers         name of the writer of each completion
    shown           indices of the completions in the order in which the rater saw them
    ceiling         the best expected accuracy on decided pairs that any scorer of texts can reach: the mean of max(p, 1 - p),
                    p being the probability that the first wins given a decision, over raters and orders shown
    gold_agreement  share of decided pairs that the raters ordered as gold does, equal golds counting half
    """

    comparisons: list[Comparison]
    golds: list[tuple[float, ...]]
    writers: list[tuple[str, ...]]
    shown: list[tuple[int, ...]]
    ceiling: float
    gold_agreement: float


def simulate(
    n: int,
    *,
    k: int = 2,
    seed: int,
    raters: Sequence[Rater] = RATERS,
    writers: Sequence[Writer] = WRITERS,
    prompts: Sequence[str] | None = None,
    exclude: Collection[str] = (),
) -> Simulation:
    """`n` comparisons of `k` completions (2 to 6), each by one rater drawn at random.

    Writers are drawn at random for every completion and raters see completions in random order. Prompts are all different
    and not in `exclude`; a caller who wants some of them twice gives `prompts`, one per comparison.
    Raises ConfigError when `k`, `raters`, `writers` or `prompts` cannot be used.
    """
    if not raters:
        raise ConfigError("simulate: no raters given; pass at least one, or use gold_comparisons for labels by gold")
    rng = random.Random(f"simulate {seed} {k}")
    drafts = _drafts(n, k, seed, writers, prompts, exclude, rng)
    comparisons, golds, shown = [], [], []
    ceiling = agreed = decided = 0.0
    for i, (prompt, texts, _) in enumerate(drafts):
        order = tuple(rng.sample(range(k), k))
        judgement = rng.choice(raters).rank(prompt, [texts[j] for j in order], rng)
        ranks = tuple(judgement.ranks[order.index(j)] for j in range(k))
        values = tuple(gold(prompt, text) for text in texts)
        for a, b in combinations(range(k), 2):
            if ranks[a] != ranks[b]:
                p = win_probability(prompt, texts[a], texts[b], raters, k)
                ceiling += max(p, 1 - p)
                decided += 1
                agreed += 0.5 if values[a] == values[b] else (values[a] > values[b]) == (ranks[a] < ranks[b])
        comparisons.append(_comparison(prompt, texts, ranks, judgement.rater, f"lab-{seed}-{i}"))
        golds.append(values)
        shown.append(order)
    names = [writer_names for _, _, writer_names in drafts]
    return Simulation(comparisons, golds, names, shown, ceiling / max(decided, 1), agreed / max(decided, 1))


def gold_comparisons(
    n: int,
    *,
    k: int = 2,
    seed: int,
    writers: Sequence[Writer] = WRITERS,
    prompts: Sequence[str] | None = None,
    exclude: Collection[str] = (),
) -> list[Comparison]:
    """`n` comparisons ranked by gold itself, with the annotator `gold`; equal golds share a rank.

    `strength` is the gold of the best less that of the worst. Pass the training prompts as `exclude`.
    Raises ConfigError when `k`, `writers` or `prompts` cannot be used.
    """
    rng = random.Random(f"gold {seed} {k}")
    found = []
    for i, (prompt, texts, _) in enumerate(_drafts(n, k, seed, writers, prompts, exclude, rng)):
        golds = [gold(prompt, text) for text in texts]
        ranks = tuple(sorted(set(golds), reverse=True).index(g) for g in golds)
        found.append(_comparison(prompt, texts, ranks, "gold", f"gold-{seed}-{i}", max(golds) - min(golds)))
    return found


def win_probability(prompt: str, a: str, b: str, raters: Sequence[Rater] = RATERS, k: int = 2) -> float:
    """Probability that `a` beats `b`, given that a rater drawn at random decides, over both orders shown.

    Exact for k = 2. Among k > 2 shown, the pair's places are averaged; ties that join into runs are not accounted for.
    """
    wins = losses = 0.0
    for rater in raters:
        difference = rater.utility(prompt, a) - rater.utility(prompt, b)
        for gap in range(1, k):  # places between the two, in (k - gap) of the pairs of places
            for side in (gap, -gap):
                odds = rater.odds(difference + rater.side_bias * side / (k - 1))
                wins += odds.left * (k - gap)
                losses += odds.right * (k - gap)
    return wins / (wins + losses)


def _drafts(
    n: int,
    k: int,
    seed: int,
    writers: Sequence[Writer],
    prompts: Sequence[str] | None,
    exclude: Collection[str],
    rng: random.Random,
) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Prompt, k completions and the names of their writers, `n` times."""
    if not 2 <= k <= MAX_K:
        raise ConfigError(f"simulate: k = {k} completions per prompt; choose 2 to {MAX_K}")
    if not writers:
        raise ConfigError("simulate: no writers given; pass at least one")
    if prompts is not None and len(prompts) != n:
        raise ConfigError(f"simulate: {len(prompts)} prompts for {n} comparisons; give one each or leave them out")
    drafts = []
    for prompt in draw_prompts(n, seed, exclude) if prompts is None else prompts:
        chosen = [rng.choice(writers) for _ in range(k)]
        drafts.append((prompt, tuple(w.write(prompt, rng) for w in chosen), tuple(w.name for w in chosen)))
    return drafts


def _comparison(
    prompt: str, texts: Sequence[str], ranks: Sequence[float], annotator: str, id: str, strength: float | None = None
) -> Comparison:
    return Comparison(
        prompt=({"role": "user", "content": prompt},),
        completions=tuple(({"role": "assistant", "content": text},) for text in texts),
        ranks=tuple(map(float, ranks)),
        strength=strength,
        annotator=annotator,
        source="lab",
        id=id,
    )
