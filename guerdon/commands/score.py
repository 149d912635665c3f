"""guerdon score: rewards for a file of prompts and answers."""

from __future__ import annotations

from pathlib import Path

from guerdon.terminal import load_scorer
from guerdon.types import ConfigError


def score(
    model: str,
    data: str,
    output: str,
    batch: int = 256,
    device: str | None = None,
    reward: str = "mean",
    overwrite: bool = False,
) -> None:
    """Score a file of prompts with one or N answers each: one output row per input row, in order, resumable.

    Args:
        model: Folder or hub id of a reward model; several, separated by commas, score as an ensemble.
        data: Rows with `prompt` and `completion` or `completions`, or `messages`, or `chosen` and `rejected`.
        output: File to write (.jsonl or .parquet); each row has `scores`, `status`, `tokens`, `truncated`, from an ensemble also
            `members`.
        batch: Conversations scored at once; no effect on the scores.
        device: cpu, cuda, cuda:1, ... Default: CUDA when there is one.
        reward: What leaves an ensemble: mean, min, mean-std:K, mean-var:K or quantile:Q.
        overwrite: Replace an output that is already there.
    """
    from guerdon.data.rows import stream_conversations
    from guerdon.evaluate.score_file import input_identity, score_file

    if Path(output).exists() and not overwrite:
        raise ConfigError(f"{output} exists; remove it, choose another name, or overwrite it (--overwrite)")
    identity = input_identity(data)
    rows = stream_conversations(data)
    summary = score_file(
        load_scorer(model, device, reward), rows, output, source=identity, batch=batch, overwrite=overwrite
    )
    statuses = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
    print(
        f"{summary.output}: {summary.rows} rows ({statuses or 'none'}), {summary.completions} scores, "
        f"{summary.truncated} cut to the context, {summary.resumed} from an earlier run, {summary.rows_per_second:.1f} rows/s"
    )
