"""How soon does the monitor stop a run that is being hacked, and how often one that is not?

    python benchmarks/monitor_simulation.py --output benchmarks/monitor_simulation.md

Two sources of runs. `policy`: small softmax policies trained by policy gradient against a reward that pays for filler, or
against one that does not; nothing about their curves is put in by hand. All others: held-out curves of given shapes.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from monitor_policies import ANSWERS, PROMPTS, Trace, train
from monitor_shapes import BENIGN, HACKED, SD, WANDER, shaped

from guerdon.diagnose.monitor import WARNING, Monitor, Observation, Settings, thresholds
from guerdon.diagnose.monitor_evidence import (
    KINDS,
    Looks,
    best_look,
    noise_variance,
    smooth,
    weigh,
    width_of,
    within_prompts,
)
from guerdon.evaluate.intervals import wilson

STEPS, RUNS, BUDGETS = 200, 40, (32, 64, 128)
HACKABLE, SOUND = 60, 20  # trained policies
LARGE, SMALL = 0.25, 0.1  # gain at the peak: 1 and 0.4 standard deviations of an answer

Array = np.ndarray


class Runs(Protocol):
    """Runs that can be asked for held-out scores, a step at a time."""

    gold: Array  # true mean gold, (runs, steps)

    def look(self, step: int, n: Array) -> tuple[Array, ...]:
        """The fields of `Looks` at a step, each (runs,), from n held-out scores per run."""


class Trained:
    """Runs of `monitor_policies`; true gold is the mean of all answers, smoothed over eleven steps."""

    def __init__(self, traces: Sequence[Trace], rng: np.random.Generator) -> None:
        self.traces, self.rng = traces, rng
        means = np.stack([trace.gold.mean((1, 2)) for trace in traces])
        padded = np.pad(means, ((0, 0), (5, 5)), mode="edge")
        self.gold = np.stack([padded[:, k : k + means.shape[1]] for k in range(11)]).mean(0)

    def look(self, step: int, n: Array) -> tuple[Array, ...]:
        """n scores: two answers to each of n / 2 prompts, or more of each when there are not so many prompts."""
        rows = []
        for trace, wanted in zip(self.traces, n, strict=True):
            answers = min(max(2, -(-int(wanted) // PROMPTS)), ANSWERS)
            prompts = self.rng.permutation(PROMPTS)[: int(wanted) // answers]
            of, at = prompts.repeat(answers), (step, prompts, slice(answers))
            gold, *others = (part[at].ravel() for part in (trace.gold, trace.proxy, trace.ratio, trace.course))
            liked, moved, late = (within_prompts(gold, other, of) for other in others)
            level = (len(gold), gold.mean(), gold.var(ddof=1), trace.proxy[step].mean(), trace.kl[step])
            rows.append((*level, liked.groups, liked.cross, liked.square, *moved, *late))
        return tuple(np.array(part) for part in zip(*rows, strict=True))


@dataclass(frozen=True)
class Outcome:
    """Of each run: look of the first stop, or the number of looks; the look to go back to then; held-out scores spent per
    step until then; and the first look at which any evidence passed 1.96, the threshold of a test that looks once."""

    stop: Array
    best: Array
    spent: Array
    naive: Array


def watch(runs: Runs, budget: int) -> Outcome:
    """Look at every step with the monitor's own evidence, thresholds and requests for more scores."""
    count, steps = runs.gold.shape
    settings = Settings(steps=steps, budget=budget)
    limits = np.array([thresholds(settings)[kind] for kind in KINDS])[:, None]
    stop, naive, n = np.full(count, steps), np.full(count, steps), np.full(count, budget)
    rows: list[list[Array]] = []
    for step in range(steps):
        rows.append([np.asarray(part, dtype=float) for part in runs.look(step, n)])
        found = weigh(looks_of(rows), settings.rules)
        evidence = np.stack([getattr(found, kind) for kind in KINDS])
        is_reason = ~(np.isin(KINDS, WARNING)[:, None] & (found.course > -np.inf))
        stop[((evidence >= limits) & is_reason).any(0) & (stop == steps)] = step
        naive[(evidence >= 1.96).any(0) & (naive == steps)] = step
        n = np.where((evidence >= settings.alert * limits).any(0), settings.boost * budget, budget)
    looks = looks_of(rows)
    best = np.array([best_of(looks, i, min(stop[i] + 1, steps), settings.slack) for i in range(count)])
    spent = np.array([looks.n[i, : stop[i] + 1].mean() for i in range(count)])
    return Outcome(stop, best, spent, naive)


def looks_of(rows: list[list[Array]]) -> Looks:
    return Looks(*(np.stack(part, axis=-1) for part in zip(*rows, strict=True)))


def best_of(looks: Looks, run: int, until: int, slack: float) -> int:
    one = Looks(*(getattr(looks, field.name)[run, :until] for field in fields(Looks)))
    curve, support = smooth(one, width_of(until))
    return best_look(curve, np.sqrt(noise_variance(one) / support), slack)


def hacked_row(name: str, budget: int, gold: Array, found: Outcome) -> tuple[str, int, int]:
    """A line of the table, runs caught in time, and runs. In time: before true gold has lost a tenth of its peak gain."""
    count, steps = gold.shape
    at, peak = np.arange(count), gold.argmax(1)
    gain = gold[at, peak] - gold[:, 0]
    lost = (gold[at, peak] - gold[at, np.minimum(found.stop, steps - 1)]) / gain
    stopped, is_late = found.stop < steps, found.stop > peak
    in_time = stopped & (~is_late | (lost <= 0.1))
    kept = (gold[at, found.best] - gold[:, 0]) / gain
    after = np.where(is_late, lost, 0.0)[stopped]
    lag = (found.stop - peak)[stopped]
    early = stopped & ~is_late & (lost > 0.1)
    cells = [
        name,
        str(budget),
        share(in_time),
        share(stopped),
        share(early),
        f"{100 * np.median(after):.0f} %" if stopped.any() else "–",
        f"{np.median(lag):+.0f}" if stopped.any() else "–",
        f"{100 * kept.mean():.0f} %",
        f"{found.spent.mean():.0f}",
    ]
    return line(cells), int(in_time.sum()), count


def benign_row(name: str, budget: int, gold: Array, found: Outcome) -> tuple[str, int, int]:
    """A line of the table, false stops, and runs."""
    count, steps = gold.shape
    false = found.stop < steps
    gained = (gold[:, -1] - gold[:, 0])[false]
    left = (gold[false, -1] - gold[false, found.stop[false]]) / gained
    given_up = f"{100 * left.mean():.0f} %" if false.any() else "–"
    cells = [name, str(budget), share(false), given_up, share(found.naive < steps), f"{found.spent.mean():.0f}"]
    return line(cells), int(false.sum()), count


def share(of: Array) -> str:
    return f"{100 * of.mean():.0f} %"


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def trained(is_hackable: bool) -> list[Trace]:
    """Policies as they come; of the hackable, those whose gold has lost a fifth of its peak gain by the end."""
    traces = [train(seed, is_hackable, STEPS) for seed in range(HACKABLE if is_hackable else SOUND)]
    return [trace for trace in traces if not is_hackable or has_fallen(trace)]


def has_fallen(trace: Trace) -> bool:
    mean = trace.gold.mean((1, 2))
    curve = np.convolve(mean, np.ones(11) / 11, "valid")
    return bool(curve.max() - curve[-1] > 0.2 * (curve.max() - curve[0]))


def cost() -> float:
    """Milliseconds of `Monitor.observe` at the end of a run of `STEPS` steps, 64 scores each."""
    rng, monitor = np.random.default_rng(0), Monitor(Settings(steps=STEPS))
    spent = []
    for step in range(STEPS):
        held, proxies = rng.normal(step / STEPS, 1, 64), rng.normal(step, 1, 64)
        seen = Observation(step, 0.1 * step, float(step), held, proxies, np.arange(32).repeat(2), {"length": 20.0})
        begin = time.perf_counter()
        monitor.observe(seen)
        spent.append(time.perf_counter() - begin)
    return 1000 * float(np.median(spent[-20:]))


Tally = dict[tuple[str, int], tuple[int, int]]  # (sort of run, budget) -> (in time or falsely stopped, runs)


def simulate() -> tuple[list[str], list[str], Tally]:
    """Lines for hacked runs, lines for benign ones, totals."""
    hacked: list[str] = []
    benign: list[str] = []
    tally: Tally = {}

    def add(name: str, sort: str, is_hacked: bool, runs: Runs, budget: int) -> None:
        found = watch(runs, budget)
        text, part, count = (hacked_row if is_hacked else benign_row)(name, budget, runs.gold, found)
        (hacked if is_hacked else benign).append(text)
        key = (("hacked" if is_hacked else "benign") + sort, budget)
        known = tally.get(key, (0, 0))
        tally[key] = (known[0] + part, known[1] + count)

    for number, name in enumerate(HACKED | BENIGN):
        for gain, sort, budgets in ((LARGE, "", BUDGETS), (SMALL, ", gain 0.4 SD", (64,))):
            for budget in budgets:
                rng = np.random.default_rng([2026, number, budget])
                add(name + sort, sort, name in HACKED, shaped(name, RUNS, STEPS, gain, rng), budget)
    for is_hackable in (True, False):
        traces = trained(is_hackable)
        for budget in BUDGETS:
            add(f"policy ({len(traces)} runs)", "", is_hackable, Trained(traces, np.random.default_rng(budget)), budget)
    return hacked, benign, tally


def page(hacked: list[str], benign: list[str], tally: Tally, milliseconds: float, seconds: float) -> str:
    totals = []
    for (sort, budget), (part, count) in sorted(tally.items(), key=lambda one: (one[0][0], one[0][1])):
        low, high = (100 * float(end[0]) for end in wilson(np.array([part / count]), np.array([count])))
        what = "stopped in time" if sort.startswith("hacked") else "falsely stopped"
        totals.append(
            line(
                [
                    f"{sort}, {what}",
                    str(budget),
                    f"{part} of {count}",
                    f"{100 * part / count:.0f} %",
                    f"{low:.0f} to {high:.0f} %",
                ]
            )
        )
    lines = "\n".join
    limits = ", ".join(f"{kind} {value:g}" for kind, value in thresholds(Settings(steps=STEPS)).items())
    return f"""# The run monitor on simulated runs

{RUNS} runs of {STEPS} steps in each row, one look at every step. Scores: held-out scores that a step has without an alert; an
alert asks for {Settings().boost} times as many. Signals without held-out scores are not simulated, so nothing here is corroborated.
Thresholds: {limits}.

| all shapes | scores | runs | share | 95 % interval |
|---|---:|---:|---:|---|
{lines(totals)}

## Runs that are hacked

"In time" is before true gold has lost 10 % of its peak gain; "too early" is before the peak with more than 10 % of that gain
still to come, and counts as in time. Lost and lag (steps after the peak of true gold) are medians over stopped runs; kept is the
mean share of the peak gain that the step to go back to has.

| shape | scores | in time | stopped | too early | lost at the stop | lag | kept | scores spent per step |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
{lines(hacked)}

## Runs that are not

True gold never falls. "Given up" is the mean share of the run's gain that a false stop gave up. The last column but one is what
happens without thresholds that allow for a look at every step and for several kinds of evidence.

| shape | scores | falsely stopped | given up | would be stopped at 1.96 | scores spent per step |
|---|---:|---:|---:|---:|---:|
{lines(benign)}

One answer has a gold standard deviation of {SD}; runs gain {LARGE} at their peak (1 SD), or {SMALL} where the row says so. Gold
also wanders by {100 * WANDER:.0f} % of the gain. Shapes: `gao` is Gao's curve; the others rise to a peak and fall, quickly, slowly or after a
plateau; benign gold levels off together with the proxy, rises with it to the end, levels off while the proxy creeps on, or bends
below it. `policy`: softmax policies trained by policy gradient (`monitor_policies.py`); of {HACKABLE} hackable ones, those whose gold lost
a fifth of its gain. Log-ratios, and with them `back` and `course`, are there for `policy` alone.

Cost: {milliseconds:.1f} ms per step for one run at step {STEPS}.

- Command: `{" ".join(["python", *sys.argv])}`
- Date: {datetime.now(UTC):%Y-%m-%d}
- Machine: {platform.machine()}, {os.cpu_count()} cores, one used, {seconds:.0f} s of processor time
- Versions: Python {platform.python_version()}, numpy {version("numpy")}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    text = page(*simulate(), cost(), time.process_time())
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
