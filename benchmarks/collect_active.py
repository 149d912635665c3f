"""Does choosing which pairs to label make a better reward model than chance, at equal numbers of labels?

    OMP_NUM_THREADS=1 python benchmarks/collect_active.py --output benchmarks/collect_active.md

For every seed: a pool of lab pairs, one rater's judgement for each label (five raters of `guerdon.lab.raters`, drawn at
random), a first batch by chance, then batch after batch by an arm, a fifth of each by chance as in a study. The reward model is
Bradley-Terry on 112 features; it is fitted anew after each batch and measured on gold-labelled pairs about other prompts.
Arms: uncertain (entropy of its prediction), disagreement (of five bootstrap fits), D-optimal without and with prompt diversity.
Questions are drawn by the softrank weights and the floor that `collect` uses. `weighted` trains on labels weighted by
1 / (n P), with which an actively drawn label speaks for the whole pool.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from collect_lab import WIDTH, Pool, interval, measure, pools, provenance, spread, train

from guerdon.collect.choose import FLOOR, WINDOW, draw, probability, softrank
from guerdon.collect.design import d_optimal, information, uncertainty
from guerdon.lab.raters import RATERS

ARMS = ("random", "uncertain", "disagreement", "d-optimal", "d-optimal, diverse")
RANDOM_SHARE = 0.2
COMMITTEE = 5


def judged(pool: Pool, i: int, rng: random.Random) -> float:
    """P(first better) as one rater says: 1, 0, or 0.5 for a tie; sides are drawn."""
    rater, swap = rng.choice(RATERS), rng.random() < 0.5
    a, b = pool.texts[i]
    ranks = rater.judge(pool.prompts[i], *((b, a) if swap else (a, b)), rng).ranks
    first, second = (ranks[1], ranks[0]) if swap else (ranks[0], ranks[1])
    return 0.5 if first == second else float(first < second)


def preferred(
    pool: Pool, arm: str, free: list[int], taken: list[int], target: list[float], batch: int, seed: int
) -> list[float]:
    """The stored weight of each free question in this arm, by a model fitted to the labels so far."""
    rows, said = np.array(taken), np.array(target)
    rewards = pool.features @ train(pool, rows, said)
    if arm == "uncertain":
        return softrank([uncertainty(rewards[i]) for i in free])
    if arm == "disagreement":
        rng, committee = np.random.default_rng(seed), []
        for _ in range(COMMITTEE):
            again = rng.integers(0, len(rows), len(rows))
            committee.append(pool.features @ train(pool, rows[again], said[again]))
        members = np.stack(committee)
        return softrank([uncertainty(rewards[i], members[:, i]) for i in free])
    about = pool.features.mean(axis=1)
    order = d_optimal(
        [information(pool.features[i], rewards[i]) for i in free],
        about[free],
        batch,
        labelled=[information(pool.features[i], rewards[i]) for i in taken],
        labelled_prompts=about[taken],
        diversity=1.0 if arm.endswith("diverse") else 0.0,
    )
    weights = dict(zip(order, softrank([-float(place) for place in range(len(order))]), strict=True))
    return [weights[position] for position in range(len(free))]


def course(
    pool: Pool, held_out: Pool, arm: str, seed: int, options: argparse.Namespace
) -> dict[tuple[int, bool], dict[str, float]]:
    """Measurements by (number of labels, weighted) of one arm."""
    rng = random.Random(f"active {seed}")  # the same first batch for every arm
    taken = rng.sample(range(len(pool.prompts)), options.first)
    target, importance = [judged(pool, i, rng) for i in taken], [1.0] * len(taken)
    found = {}
    for labels in range(options.first, options.budget + 1, options.batch):
        rows, said = np.array(taken), np.array(target)
        for weighted in (False, True) if arm != "random" else (False,):
            theta = train(pool, rows, said, np.array(importance) if weighted else None)
            found[labels, weighted] = measure(held_out, theta)
        if labels == options.budget:
            break
        free = sorted(set(range(len(pool.prompts))) - set(taken))
        weights = [] if arm == "random" else preferred(pool, arm, free, taken, target, options.batch, seed)
        for _ in range(options.batch):
            chosen, weight = _next(free, weights, rng)
            taken.append(chosen)
            target.append(judged(pool, chosen, rng))
            importance.append(weight)
    return found


def _next(free: list[int], weights: list[float], rng: random.Random) -> tuple[int, float]:
    """The next question and 1 / (n P); takes it out of `free`, and its weight out of `weights`."""
    n, importance = len(free), 1.0
    if not weights or rng.random() < RANDOM_SHARE:
        position = rng.randrange(n)
    else:
        best = sorted(range(n), key=lambda i: -weights[i])[:WINDOW]
        position = rng.randrange(n) if rng.random() < FLOOR else best[draw([weights[i] for i in best], rng)]
        inside = weights[position] if position in set(best) else 0.0
        importance = 1 / (n * probability(inside, sum(weights[i] for i in best), n))
    if weights:
        weights.pop(position)
    return free.pop(position), importance


def page(results: list[dict[str, dict[tuple[int, bool], dict[str, float]]]], options: argparse.Namespace) -> str:
    """The tables: accuracy at each budget, and what each arm gains over chance."""
    budgets = [b for b in options.shown if b <= options.budget]
    lines = [
        "# Active or random pairs, at equal numbers of labels",
        "",
        f"Made by `benchmarks/collect_active.py`. {provenance()}",
        f"{len(results)} seeds; a pool of {options.pool:,} pairs, {options.first} labels by chance, then batches of {options.batch}, a",
        f"fifth of each by chance; {options.held_out:,} gold-labelled pairs about other prompts; Bradley-Terry on {WIDTH} features.",
        "",
        "Accuracy against gold, median (smallest to largest) over seeds:",
        "",
        "| arm | " + " | ".join(f"{b:,} labels" for b in budgets) + " |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    rows = [(arm, weighted) for arm in ARMS for weighted in ((False, True) if arm != "random" else (False,))]
    for arm, weighted in rows:
        cells = [spread([r[arm][b, weighted]["accuracy"] for r in results]) for b in budgets]
        lines.append(f"| {arm}{', weighted' if weighted else ''} | {' | '.join(cells)} |")
    lines += [
        "",
        "Gain over chance in points of accuracy, mean and 95 % interval over seeds (paired, Student's t):",
        "",
    ]
    lines += ["| arm | " + " | ".join(f"{b:,} labels" for b in budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
    verdicts = []
    for arm, weighted in rows[1:]:
        cells = []
        for b in budgets:
            mean, low, high = interval(
                [100 * (r[arm][b, weighted]["accuracy"] - r["random"][b, False]["accuracy"]) for r in results]
            )
            cells.append(f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
        says = "better" if low > 0 else "worse" if high < 0 else "not different"
        verdicts.append(f"{arm}{', weighted' if weighted else ''}: {says}")
        lines.append(f"| {arm}{', weighted' if weighted else ''} | {' | '.join(cells)} |")
    lines += ["", f"Verdict at {budgets[-1]:,} labels, by whether the interval holds 0: {'; '.join(verdicts)}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the tables to this page")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pool", type=int, default=2000, help="pairs that could be labelled")
    parser.add_argument("--held-out", type=int, default=1500, help="gold-labelled pairs to measure on")
    parser.add_argument("--first", type=int, default=100, help="labels by chance before the first choice")
    parser.add_argument("--batch", type=int, default=100, help="labels between two fits")
    parser.add_argument("--budget", type=int, default=1000, help="labels at the end")
    parser.add_argument(
        "--shown", type=int, nargs="+", default=[200, 400, 700, 1000], help="numbers of labels in the tables"
    )
    options = parser.parse_args()

    results = []
    for seed in range(options.seeds):
        pool, held_out = pools(options.pool, options.held_out, seed)
        results.append({arm: course(pool, held_out, arm, seed, options) for arm in ARMS})
        last = {arm: f"{results[-1][arm][options.budget, False]['accuracy']:.3f}" for arm in ARMS}
        print(f"seed {seed}: {last}", flush=True)
    text = page(results, options)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
