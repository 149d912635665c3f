"""guerdon check: what is in a set of comparisons."""

from __future__ import annotations

from tyro.conf import Positional

from guerdon.terminal import require_writable, show, spinner, write_json


def check(
    data: Positional[str],
    json: str | None = None,
    format: str | None = None,
    model: str | None = None,
    max_length: int | None = None,
) -> None:
    """Say what is in a set of comparisons: rows, prompts, lengths, ties, duplicates, empty answers, what would be cut.

    Args:
        data: File (.jsonl, .json, .parquet, .csv, each also .gz), folder, or hub dataset id.
        json: Also write the report to this file, as JSON.
        format: Format of the rows, when it is not to be recognised (see docs/data.md).
        model: Count tokens with this model's tokenizer and template; without it lengths are estimates.
        max_length: Context in tokens, to report what it would cut. Default with a model: what the model allows.
    """
    from guerdon.data.check import check as check_data

    require_writable(json)
    measure = None
    if model:
        from guerdon.model.load import load_encoder, require_context

        encoder = load_encoder(model, max_length)
        require_context(model, encoder.max_length)
        measure, max_length = encoder.lengths, encoder.max_length
    with spinner(f"reading {data}"):
        report = check_data(data, format=format, lengths=measure, max_length=max_length)
    show(report.render())
    write_json(json, report.to_dict())
