"""guerdon evaluate: how good a reward model is on held-out comparisons."""

from __future__ import annotations

from guerdon.terminal import counting_bar, load_scorer, require_writable, show, write_json


def evaluate(
    model: str,
    data: tuple[str, ...],
    json: str | None = None,
    table: str | None = None,
    format: str | None = None,
    ceiling: float | None = None,
    device: str | None = None,
    reward: str = "mean",
    seed: int = 0,
) -> None:
    """Measure a reward model: accuracy with a 95 % interval over prompts, calibration, baselines, by source.

    Args:
        model: Folder or hub id of a reward model; several, separated by commas, score as an ensemble.
        data: Comparisons to evaluate on.
        json: Write the metrics to this file, as JSON.
        table: Write the scores to this file (.jsonl or .parquet), one row per completion.
        format: Format of the rows, when it is not to be recognised.
        ceiling: Best accuracy that the noise of these labels allows, if known; shown beside the accuracy.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        reward: What leaves an ensemble: mean, min, mean-std:K, mean-var:K or quantile:Q.
        seed: Of the bootstrap.
    """
    from guerdon.data.read import load
    from guerdon.evaluate.metrics import evaluate as measure
    from guerdon.evaluate.render import render
    from guerdon.evaluate.score import score_comparisons

    require_writable(json, table)
    comparisons = load(data, format=format)
    reward_model = load_scorer(model, device, reward)
    with counting_bar("scoring", len(comparisons.comparisons)) as advance:
        scores = score_comparisons(reward_model, comparisons.comparisons, advance=advance)
    result = measure(scores, seed=seed)
    show(render(result, ceiling=ceiling, title=f"{model} on {', '.join(data)}"))
    kept_out = ", ".join(f"{count} {reason}" for reason, count in comparisons.dropped.items())
    if kept_out:
        print(f"kept out of {comparisons.rows} rows: {kept_out}")
    if table:
        scores.write(table)
    dropped = {"rows": comparisons.rows, "dropped": comparisons.dropped}
    write_json(
        json, result.to_dict() | dropped | {"model": model, "data": list(data), "scorer": reward_model.fingerprint}
    )
