"""Soft labels of the rater model against the majority vote, for training a reward model, at three levels of noise.

    OMP_NUM_THREADS=1 python benchmarks/collect_labels.py --output benchmarks/collect_labels.md

For every seed: lab pairs, each judged by three of twelve raters of very different skill, half of them with a side they
prefer, all with a tie threshold. Three ways to turn the same votes into labels: `raw` (every vote a label of its own),
`majority` (an even vote is a tie) and `soft` (p(better) by the rater model of `guerdon.data.raters`). The same Bradley-Terry model
on 112 features is fitted to each and measured on gold-labelled pairs about other prompts: accuracy, and how well its
probabilities fit those labels.
"""

from __future__ import annotations

import argparse
import random
from itertools import combinations
from pathlib import Path

import numpy as np
from collect_lab import WIDTH, Pool, against_votes, interval, measure, pools, provenance, spread, train

from guerdon.data.labels import labels_of
from guerdon.lab.raters import Rater
from guerdon.lab.simulate import win_probability
from guerdon.types import Judgement, Question

NOISE = {"low": 1.0, "middle": 0.4, "high": 0.15}  # what the skill of every rater is multiplied by
SKILLS = (24.0, 20.0, 16.0, 12.0, 12.0, 9.0, 9.0, 6.0, 6.0, 3.0, 1.5, 0.0)  # nats per unit of gold, at low noise
HOW = ("raw", "majority", "soft")
OVERLAP = 3
MEASURES = {
    "accuracy": (100, 1),
    "log loss": (1, 3),
    "ECE": (1, 3),
    "refitted": (1, 3),
    "votes": (1, 3),
}  # scale, digits


def raters(noise: str) -> list[Rater]:
    """Twelve raters; every other one leans to the left or the right by up to 1 nat."""
    return [
        Rater(f"r{i}", skill=NOISE[noise] * skill, side_bias=(0.0, 1.0, 0.0, -0.5)[i % 4], tie_threshold=0.15)
        for i, skill in enumerate(SKILLS)
    ]


def judgements(pool: Pool, crew: list[Rater], seed: int) -> list[Judgement]:
    """`OVERLAP` judgements of each pair by different raters, sides counterbalanced at random."""
    rng, found = random.Random(f"labels {seed}"), []
    for i, (prompt, texts) in enumerate(zip(pool.prompts, pool.texts, strict=True)):
        question = Question(
            ({"role": "user", "content": prompt},),
            tuple(({"role": "assistant", "content": text},) for text in texts),
            id=str(i),
        )
        for rater in rng.sample(crew, OVERLAP):
            order = (0, 1) if rng.random() < 0.5 else (1, 0)
            shown = rater.judge(prompt, texts[order[0]], texts[order[1]], rng).ranks
            ranks = tuple(float(shown[order.index(candidate)]) for candidate in (0, 1))
            found.append(
                Judgement(f"{i}-{rater.name}", rater.name, "human", question, order, "ranked", ranks, arm="random")
            )
    return found


def fitted(pool: Pool, votes: list[Judgement], how: str) -> np.ndarray:
    """The reward model of one kind of label."""
    made = labels_of(votes, how).labels
    rows, target, weight = [], [], []
    for label in made:
        [pair] = label.comparison.pairs()
        rows.append(int(label.comparison.id) if how != "raw" else int(label.judgements[0].split("-")[0]))
        target.append(pair.target if pair.chosen == 0 else 1 - pair.target)
        weight.append(1 / OVERLAP if how == "raw" else 1.0)
    return train(pool, np.array(rows), np.array(target), np.array(weight))


def agreement(votes: list[Judgement]) -> float:
    """Share of pairs of decided votes on one question that agree."""
    by_question: dict[str, list[bool]] = {}
    for vote in votes:
        if vote.ranks[0] != vote.ranks[1]:
            by_question.setdefault(vote.question.id, []).append(vote.ranks[0] < vote.ranks[1])
    return float(np.mean([a == b for said in by_question.values() for a, b in combinations(said, 2)]))


def page(
    results: dict[str, list[dict[str, dict[str, float]]]], agreed: dict[str, list[float]], options: argparse.Namespace
) -> str:
    """The table of medians, and the differences with their intervals."""
    seeds = len(next(iter(results.values())))
    lines = [
        "# Soft labels of the rater model, or the majority vote",
        "",
        f"Made by `benchmarks/collect_labels.py`. {provenance()}",
        f"{seeds} seeds; {options.pairs:,} pairs with {OVERLAP} of {len(SKILLS)} raters each; {options.held_out:,} gold-labelled pairs about other prompts;",
        f"Bradley-Terry on {WIDTH} features. Lower is better, accuracy apart. Log loss (nats) and ECE are against the gold labels, `refitted` is",
        "the log loss after one temperature is fitted, `votes` the expected log loss on fresh votes of the same raters.",
        "",
        "Median (smallest to largest) over seeds:",
        "",
        "| noise | raters agree | labels | accuracy, % | log loss | ECE | refitted | votes |",
        "|---" * 8 + "|",
    ]
    for noise, rows in results.items():
        for how in HOW:
            cells = [spread([row[how][m] for row in rows], *MEASURES[m]) for m in MEASURES]
            lines.append(f"| {noise} | {100 * np.median(agreed[noise]):.0f} % | {how} | {' | '.join(cells)} |")
    lines += [
        "",
        "Soft less majority, mean and 95 % interval over seeds (paired, Student's t); then soft less raw:",
        "",
    ]
    lines += ["| noise | against | accuracy, points | log loss | ECE | refitted | votes |", "|---" * 7 + "|"]
    for noise, rows in results.items():
        for other in ("majority", "raw"):
            cells = []
            for name, (scale, digits) in MEASURES.items():
                mean, low, high = interval([scale * (row["soft"][name] - row[other][name]) for row in rows])
                cells.append(f"{mean:+.{digits + 1}f} ({low:+.{digits + 1}f} to {high:+.{digits + 1}f})")
            lines.append(f"| {noise} | {other} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the tables to this page")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=800, help="pairs with three votes each")
    parser.add_argument("--held-out", type=int, default=1500, help="gold-labelled pairs to measure on")
    options = parser.parse_args()

    results: dict[str, list[dict[str, dict[str, float]]]] = {noise: [] for noise in NOISE}
    agreed: dict[str, list[float]] = {noise: [] for noise in NOISE}
    for seed in range(options.seeds):
        pool, held_out = pools(options.pairs, options.held_out, seed)
        for noise in NOISE:
            crew = raters(noise)
            votes = judgements(pool, crew, seed)
            agreed[noise].append(agreement(votes))
            thetas = {how: fitted(pool, votes, how) for how in HOW}
            fresh = np.array(
                [win_probability(p, *t, crew) for p, t in zip(held_out.prompts, held_out.texts, strict=True)]
            )
            results[noise].append(
                {how: measure(held_out, t) | {"votes": against_votes(held_out, t, fresh)} for how, t in thetas.items()}
            )
            last = {how: f"{results[noise][-1][how]['accuracy']:.3f}" for how in HOW}
            print(f"seed {seed}, {noise} noise, agreement {agreed[noise][-1]:.2f}: {last}", flush=True)
    text = page(results, agreed, options)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
