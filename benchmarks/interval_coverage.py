"""Do 95 % intervals hold the truth 95 times in 100? The bar: 93 to 97 % over at least 1,000 simulated sets each.

    python benchmarks/interval_coverage.py [--repetitions 2000] [--output benchmarks/interval_coverage.md]

Each set has prompts of unequal size and difficulty: the chance that a model is right on a prompt is drawn from a beta
distribution, so pairs of one prompt go together. Two models share part of their luck, as real ones do. The true
accuracies and their difference are the parameters of the simulation. Intervals come from the public functions.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from guerdon.evaluate.intervals import prompt_bootstrap, wilson

LOW, HIGH = 0.93, 0.97
RESAMPLES = 1000
Simulation = Callable[[np.random.Generator, int], bool]


def sizes_of(rng: np.random.Generator, prompts: int, largest: int) -> np.ndarray:
    """Pairs per prompt, 1 to `largest`, the same chance for each."""
    return rng.integers(1, largest + 1, size=prompts)


def accuracy(prompts: int, largest: int, truth: float, spread: float) -> Simulation:
    """Does the interval hold `truth`? Difficulty is Beta(truth * spread, (1 - truth) * spread): small is clustered."""

    def covers(rng: np.random.Generator, seed: int) -> bool:
        rate = rng.beta(truth * spread, (1 - truth) * spread, size=prompts)
        groups = np.repeat(np.arange(prompts), sizes_of(rng, prompts, largest))
        right = (rng.random(len(groups)) < rate[groups]).astype(np.float64)
        low, high = prompt_bootstrap(right, groups, seed=seed, resamples=RESAMPLES)
        return low <= truth <= high

    return covers


def difference(prompts: int, largest: int, first: float, second: float, shared: float) -> Simulation:
    """Two models on the same pairs; with chance `shared` they see the same luck. Does the interval hold the gap?"""

    def covers(rng: np.random.Generator, seed: int) -> bool:
        shift = rng.uniform(-0.15, 0.15, size=prompts)  # some prompts are harder, for both alike
        tilt = rng.uniform(-0.1, 0.1, size=prompts)  # and some favour one of the models
        groups = np.repeat(np.arange(prompts), sizes_of(rng, prompts, largest))
        luck = rng.random(len(groups))
        other = np.where(rng.random(len(groups)) < shared, luck, rng.random(len(groups)))
        one = luck < (first + shift + tilt)[groups]
        two = other < (second + shift - tilt)[groups]
        low, high = prompt_bootstrap(one.astype(np.float64) - two, groups, seed=seed, resamples=RESAMPLES)
        return low <= first - second <= high

    return covers


def share(n: int, truth: float) -> Simulation:
    """Wilson's interval of a share of independent trials, the band of a bin of the reliability curve."""

    def covers(rng: np.random.Generator, seed: int) -> bool:
        low, high = wilson(np.array([rng.binomial(n, truth) / n]), np.array([n]))
        return bool(low[0] <= truth <= high[0])

    return covers


CASES: dict[str, Simulation] = {
    "accuracy 0.55, 40 prompts of 1 to 4 pairs": accuracy(40, 4, 0.55, 4),
    "accuracy 0.65, 100 prompts of 1 to 4 pairs": accuracy(100, 4, 0.65, 4),
    "accuracy 0.65, 350 prompts of 1 pair": accuracy(350, 1, 0.65, 4),
    "accuracy 0.75, 30 prompts of 1 to 20 pairs": accuracy(30, 20, 0.75, 2),
    "accuracy 0.75, 300 prompts of 1 to 10 pairs": accuracy(300, 10, 0.75, 2),
    "accuracy 0.90, 200 prompts of 1 to 4 pairs": accuracy(200, 4, 0.90, 4),
    "difference 0, 60 prompts of 1 to 4 pairs": difference(60, 4, 0.65, 0.65, 0.5),
    "difference 0.02, 200 prompts of 1 to 4 pairs": difference(200, 4, 0.67, 0.65, 0.5),
    "difference 0.05, 350 prompts of 1 pair": difference(350, 1, 0.70, 0.65, 0.7),
    "difference 0.10, 40 prompts of 1 to 10 pairs": difference(40, 10, 0.70, 0.60, 0.3),
    "difference 0.10, 500 prompts of 1 to 4 pairs": difference(500, 4, 0.70, 0.60, 0.7),
    "share 0.55 of 35 trials (Wilson)": share(35, 0.55),
    "share 0.65 of 100 trials (Wilson)": share(100, 0.65),
    "share 0.80 of 300 trials (Wilson)": share(300, 0.80),
    "share 0.95 of 1,000 trials (Wilson)": share(1000, 0.95),
}


def coverage(simulation: Simulation, repetitions: int, number: int) -> float:
    rng = np.random.default_rng([2026, number])
    return sum(simulation(rng, seed) for seed in range(repetitions)) / repetitions


def table(found: dict[str, float], repetitions: int, seconds: float) -> str:
    rows = "\n".join(f"| {name} | {100 * value:.1f} % |" for name, value in found.items())
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    return f"""# Coverage of 95 % intervals

| truth and data | intervals that hold the truth |
|---|---:|
{rows}

{repetitions:,} simulated sets in each row, so that a row is known to about {196 * (0.95 * 0.05 / repetitions) ** 0.5:.1f} points; \
bar: {100 * LOW:.0f} to {100 * HIGH:.0f} %. Accuracies and differences by `prompt_bootstrap` with {RESAMPLES:,} resamples.

- Command: `{" ".join(["python", *sys.argv])}`
- Date: {datetime.now(UTC):%Y-%m-%d}
- Machine: {platform.machine()}, {os.cpu_count()} cores, one used, {seconds:.0f} s
- Versions: Python {platform.python_version()}, {versions}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    found = {name: coverage(case, options.repetitions, number) for number, (name, case) in enumerate(CASES.items())}
    text = table(found, options.repetitions, time.perf_counter() - start)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    outside = [name for name, value in found.items() if not LOW <= value <= HIGH]
    if outside:
        sys.exit(f"outside {LOW} to {HIGH}: {'; '.join(outside)}")


if __name__ == "__main__":
    main()
