"""Do 95 % intervals of best-of-n curves hold the truth 95 times in 100? The bar: 93 to 97 % over 1,000 repetitions.

    python benchmarks/best_of_n_coverage.py [--repetitions 1000] [--output benchmarks/best_of_n_coverage.md]

Each repetition draws prompts with N candidates. Gold is normal; the proxy is gold plus noise, except that a share of the
answers fools it, as in over-optimised rewards. The truth is the same estimator on a very large pool of prompts. The last
column is how often a reward that knows nothing (flat gold) is said to fall, with p < 0.05; it should be about 5 %.
"""

from __future__ import annotations

import argparse
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from guerdon.diagnose.overopt import overoptimisation
from guerdon.evaluate.best_of_n import best_of_n, grid
from guerdon.evaluate.candidates import CandidateTable
from guerdon.evaluate.columns import Floats
from guerdon.evaluate.pools import Pool

CASES = ((50, 16), (200, 16), (200, 64))


def draw(rng: np.random.Generator, prompts: int, candidates: int) -> tuple[Floats, Floats]:
    """Scores and gold; prompts differ in how good their answers are and how far these lie apart."""
    spread = rng.gamma(4, 0.25, size=(prompts, 1))
    gold = rng.normal(size=(prompts, 1)) + spread * rng.normal(size=(prompts, candidates))
    score = gold + 0.5 * rng.normal(size=gold.shape)
    fools = rng.random(gold.shape) < 0.02
    return np.where(fools, score + 5, score), np.where(fools, gold - 1, gold)


def pool(score: Floats, gold: Floats) -> Pool:
    names = np.repeat(np.arange(len(score)), score.shape[1])
    return Pool(CandidateTable.build(names, score.ravel(), gold=gold.ravel()), {}, True, {})


def truth(candidates: int, n: np.ndarray) -> tuple[Floats, Floats]:
    """Gold and oracle at each n over 200,000 prompts."""
    rng = np.random.default_rng(999)
    sums = np.zeros((2, len(n)))
    for _ in range(20):
        score, gold = draw(rng, 10_000, candidates)
        starts = np.arange(0, gold.size + 1, candidates)
        for i, select in enumerate((score, gold)):
            sums[i] += best_of_n(select.ravel(), gold.ravel(), starts, n)[:, :, 0].mean(axis=0) / 20
    return sums[0], sums[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = ["# Coverage of best-of-n intervals", "", f"{options.repetitions:,} repetitions, 2,000 resamples each.", ""]
    lines += [
        "| prompts | candidates | gold, lowest n | gold, middle n | gold, largest n | regret, largest n | flat gold called falling |"
    ]
    lines += ["|---:|---:|---:|---:|---:|---:|---:|"]
    for prompts, candidates in CASES:
        gold_truth, oracle_truth = truth(candidates, grid(candidates))
        regret_truth = (oracle_truth[-1] - gold_truth[-1]) / (oracle_truth[-1] - oracle_truth[0])
        held = np.zeros(len(gold_truth))
        regret = alarms = 0
        for seed in range(options.repetitions):
            rng = np.random.default_rng(seed)
            found = overoptimisation(pool(*draw(rng, prompts, candidates)), seed=seed)
            assert found.reward.gold is not None
            assert found.reward.regret is not None
            held += (found.reward.gold.low <= gold_truth) & (gold_truth <= found.reward.gold.high)
            regret += found.reward.regret.low[-1] <= regret_truth <= found.reward.regret.high[-1]
            flat = overoptimisation(pool(*rng.normal(size=(2, prompts, candidates))), seed=seed)
            assert flat.reward.peak is not None
            alarms += flat.reward.peak.is_significant
        shares = [held[0], held[len(held) // 2], held[-1], regret, alarms]
        cells = [prompts, candidates, *(f"{100 * share / options.repetitions:.1f} %" for share in shares)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
        print(lines[-1], flush=True)
    lines += [
        "",
        "- Command: `python benchmarks/best_of_n_coverage.py --output benchmarks/best_of_n_coverage.md`",
        f"- Date: {datetime.now(UTC):%Y-%m-%d}",
        f"- Versions: Python {platform.python_version()}, numpy {version('numpy')}",
    ]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
