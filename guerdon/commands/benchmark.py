"""guerdon benchmark: a published benchmark by its own rule, on a model or on a file of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from guerdon.terminal import counting_bar, load_model, require_writable, show, write_json
from guerdon.types import ConfigError

if TYPE_CHECKING:
    from guerdon.model.reward import RewardModel


def benchmark(
    name: Positional[str],
    data: str | None = None,
    model: str | None = None,
    scores: str | None = None,
    json: str | None = None,
    table: str | None = None,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Run a benchmark by its official rule, with intervals, trivial rows, and a record of how the scores came about.

    Args:
        name: rewardbench, rewardbench2, rm-bench, judgebench, llmbar, rewardmath, hhh, hh (any preference file) or ppe.
        data: File, folder or hub set of the benchmark. Default: its hub set, where it has one.
        model: Folder or hub id of a reward model to score it with.
        scores: Instead of a model, a file of scores: a published one, or one that --table wrote.
        json: Write results, trivial rows and protocol to this file.
        table: Write the scores to this file (.jsonl), one row per item, without texts.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        seed: Of the bootstrap and of the random row.
    """
    from guerdon.evaluate.benchmarks.render import render
    from guerdon.evaluate.benchmarks.run import find, run, run_scores
    from guerdon.evaluate.benchmarks.score_table import write_score_table

    if (model is None) == (scores is None):
        raise ConfigError("give either --model or --scores")
    if table and not model:
        raise ConfigError("--table writes the scores of a model; leave it out with --scores")
    chosen = find(name)
    require_writable(json, table)
    if scores is not None:
        report = run_scores(chosen, scores, chosen.load(data) if data else None, seed=seed)
    else:
        if data is None and chosen.hub is None:
            raise ConfigError(f"{chosen.title} has no hub set of its own here; name its files with --data")
        items = chosen.load(data or str(chosen.hub))
        reward_model = load_model(str(model), device)
        with counting_bar("scoring", sum(len(item.completions) for item in items)) as advance:
            facts = facts_of(reward_model)
            report, found = run(chosen, items, reward_model, model=str(model), facts=facts, advance=advance, seed=seed)
        if table:
            write_score_table(table, chosen.name, items, {str(model): found})
    show(render(report))
    write_json(json, report.to_dict() | {"data": data or chosen.hub})


def facts_of(model: RewardModel) -> dict[str, Any]:
    """What a reward model knows of itself, for the protocol record."""
    from guerdon.model.encode import template_hash

    return {
        "template_hash": template_hash(model.encoder.tokenizer),
        "max_length": model.encoder.max_length,
        "truncation": model.encoder.truncation,
        "dtype": model.dtype,
        "device": str(model.device),
        "contract": model.contract.hash if model.contract else None,
    }
