"""One runner for all benchmarks: items through any `Scorer`, or a file of scores, into the benchmark's own rule.

Beside every row stand trivial ones, measured by the same code: longer, shorter, constant, and random scores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from guerdon.evaluate.benchmarks import (
    hhh,
    judgebench,
    llmbar,
    ppe,
    preferences,
    rewardbench,
    rewardbench2,
    rewardmath,
    rm_bench,
)
from guerdon.evaluate.benchmarks.estimate import Estimate, Result
from guerdon.evaluate.benchmarks.item import Item, matrix
from guerdon.evaluate.benchmarks.protocol import Protocol, record
from guerdon.evaluate.benchmarks.ranks import rank_groups
from guerdon.evaluate.benchmarks.score_table import is_score_table, read_score_table
from guerdon.evaluate.columns import Floats
from guerdon.types import ConfigError, Conversation, DataError, Score, Scorer

BLOCK = 256  # conversations handed over at once
DRAWS = 20  # random scores, each also with its order reversed

Imported = tuple[list[Item], dict[str, Floats | Result]]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: where its data are, how they are read, its rule, and how published score files are read.

    hub          hub set that is read when no data are named; None where there is none
    load         file, folder or hub set -> items
    measure      items and scores (items, candidates) -> result
    read_scores  score file, and items if at hand -> items, and scores or a finished result per model; None where no
                 published format is known
    """

    name: str
    title: str
    hub: str | None
    load: Callable[[str], list[Item]]
    measure: Callable[..., Result]
    read_scores: Callable[[str, Sequence[Item] | None], Imported] | None = None


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("rewardbench", "RewardBench", rewardbench.HUB, rewardbench.load, rewardbench.measure, rewardbench.read_scores),
        Benchmark("rewardbench2", "RewardBench 2", rewardbench2.HUB, rewardbench2.load, rewardbench2.measure, rewardbench2.read_scores),
        Benchmark("rm-bench", "RM-Bench", rm_bench.HUB, rm_bench.load, rm_bench.measure, rm_bench.read_scores),
        Benchmark("judgebench", "JudgeBench", judgebench.HUB, judgebench.load, judgebench.measure, judgebench.read_scores),
        Benchmark("llmbar", "LLMBar", None, llmbar.load, llmbar.measure, llmbar.read_scores),
        Benchmark("rewardmath", "RewardMATH", None, rewardmath.load, rewardmath.measure, rewardmath.read_scores),
        Benchmark("hhh", "HHH", hhh.HUB, hhh.load, hhh.measure),
        Benchmark("hh", "preferences", preferences.HUB, preferences.load, preferences.measure),
        Benchmark("ppe", "PPE-style best of K", None, ppe.load, ppe.measure, ppe.read_scores),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a run says: `rows` per model, `trivial` rows by the same rule, and how the scores came about.

    `groups` holds the rank groups of two or more models: those that share a letter cannot be told apart.
    """

    benchmark: str
    rows: Mapping[str, Result]
    trivial: Mapping[str, Result]
    protocol: Protocol
    groups: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {
            "benchmark": self.benchmark,
            "rows": {name: result.to_dict() for name, result in self.rows.items()},
            "trivial": {name: result.to_dict() for name, result in self.trivial.items()},
            "groups": dict(self.groups),
            "protocol": self.protocol.to_dict(),
        }


def find(name: str) -> Benchmark:
    """The benchmark of that name. Raises ConfigError when there is none."""
    if name not in BENCHMARKS:
        raise ConfigError(f"there is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def run(
    benchmark: Benchmark,
    items: Sequence[Item],
    scorer: Scorer,
    *,
    model: str = "model",
    facts: Mapping[str, Any] | None = None,
    advance: Callable[[int], None] = lambda count: None,
    seed: int = 0,
) -> tuple[Report, Floats]:
    """Score every candidate and measure: the report, and the scores (items, candidates) it rests on.

    facts    see `protocol.record`
    advance  is told how many more conversations are scored
    """
    conversations = [conversation for item in items for conversation in item.conversations()]
    if not conversations:
        raise DataError(f"{benchmark.title}: the data hold no texts to score; give the benchmark's own files")
    flat = _score(scorer, conversations, advance)
    rest = iter(flat)
    scores = matrix(items, [[float(next(rest)) for _ in item.correct] for item in items])
    result = benchmark.measure(items, scores, seed=seed)
    protocol = record(scorer, conversations, flat, model=model, facts=facts)
    return Report(benchmark.name, {model: result}, trivial(benchmark, items, seed=seed), protocol), scores


def _score(scorer: Scorer, conversations: Sequence[Conversation], advance: Callable[[int], None]) -> list[Score]:
    flat: list[Score] = []
    for start in range(0, len(conversations), BLOCK):
        flat += scorer.score(conversations[start : start + BLOCK])
        advance(len(flat) - start)
    return flat


def run_scores(
    benchmark: Benchmark, path: str | os.PathLike[str], items: Sequence[Item] | None = None, *, seed: int = 0
) -> Report:
    """Measure a file of scores: a table that `guerdon benchmark --table` wrote, or the benchmark's published format.

    Raises DataError when the file is of neither shape, or needs the items and they are not given.
    """
    name = os.fspath(path)
    if is_score_table(name):
        imported: Imported = read_score_table(name, benchmark.name)
    elif benchmark.read_scores is None:
        raise DataError(
            f"{name}: not a table that guerdon benchmark --table wrote; {benchmark.title} has no other format"
        )
    else:
        imported = benchmark.read_scores(name, items)
    kept, found = imported
    rows = {
        model: value if isinstance(value, Result) else benchmark.measure(kept, value, seed=seed)
        for model, value in found.items()
    }
    baselines = trivial(benchmark, kept, seed=seed) if kept else {}
    groups = rank_groups(kept, {model: value for model, value in found.items() if not isinstance(value, Result)})
    return Report(benchmark.name, rows, baselines, Protocol(scores=name), groups)


def trivial(benchmark: Benchmark, items: Sequence[Item], *, seed: int = 0) -> dict[str, Result]:
    """Rows that any reward must beat, by the benchmark's own rule; those of length only where all lengths are known.

    `random` is the mean over uniform scores, each drawn once and used in both directions, so that for pairs it is
    exactly one half; its interval is left out, because it is an expectation and not a measurement.
    """
    found = {}
    if items and all(len(item.chars) == len(item.correct) for item in items):
        lengths = matrix(items, [item.chars for item in items])
        found["longer"] = benchmark.measure(items, lengths, seed=seed)
        found["shorter"] = benchmark.measure(items, -lengths, seed=seed)
    zeros = matrix(items, [[0.0] * len(item.correct) for item in items])
    found["constant"] = benchmark.measure(items, zeros, seed=seed)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        drawn = zeros + rng.random(zeros.shape)
        draws += [benchmark.measure(items, values, resamples=0) for values in (drawn, 1 - drawn)]
    found["random"] = _mean_result(draws)
    return found


def _mean_result(draws: Sequence[Result]) -> Result:
    return replace(
        draws[0],
        overall=_average([draw.overall for draw in draws]),
        categories={name: _average([draw.categories[name] for draw in draws]) for name in draws[0].categories},
        details={name: _average([draw.details[name] for draw in draws]) for name in draws[0].details},
        curves={
            name: tuple(np.mean([draw.curves[name] for draw in draws], axis=0).tolist()) for name in draws[0].curves
        },
    )


def _average(estimates: Sequence[Estimate]) -> Estimate:
    return Estimate(float(np.mean([estimate.value for estimate in estimates])), n=estimates[0].n)
