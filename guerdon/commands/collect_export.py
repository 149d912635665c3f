"""guerdon collect export: judgements and labels out, in our own and other formats."""

from __future__ import annotations

from typing import Literal

from tyro.conf import Positional

from guerdon.terminal import require_writable, spinner


def collect_export(
    study: Positional[str],
    output: str,
    format: str = "judgements",
    labels: Literal["raw", "majority", "soft"] = "raw",
    raters: Literal["human", "model", "both"] = "human",
    skip_unsupported: bool = False,
    pairs: bool = False,
    drop: tuple[str, ...] = (),
    round_strength: bool = False,
) -> None:
    """Write the judgements of a study, or the labels made of them, to a file; exactly, or refused with the reason.

    Args:
        study: Database URL (`sqlite:///study.db?study=NAME`) or a file of judgements.
        output: The file; gzipped when its name ends in .gz.
        format: judgements, lmarena, label-studio, argilla (judgements); guerdon, trl, hh, helpsteer3, openai (labels).
        labels: One label per judgement (raw), or per question by majority or by the rater model (soft).
        raters: Whose judgements become labels: human, model or both.
        skip_unsupported: Leave out, and count, what the format cannot hold.
        pairs: Write a ranking of K answers as its pairs.
        drop: strength or annotator: leave it behind where the format has no place for it.
        round_strength: Round a mean strength to 1, 2 or 3, as HelpSteer3 needs.
    """
    from guerdon.data.database import is_database
    from guerdon.data.export import export
    from guerdon.data.read import read_judgements

    require_writable(output)
    if is_database(study) and format == "judgements" and "all=" not in study:
        study += ("&" if "?" in study else "?") + "all=1"  # our own file keeps what was taken back, too
    with spinner(f"writing {output}"):
        done = export(
            read_judgements(study), output, format, labels=labels, raters=raters, skip_unsupported=skip_unsupported,
            pairs=pairs, drop=drop, round_strength=round_strength,
        )  # fmt: skip
    print(f"{done.rows} rows of {done.format}: {done.path}")
    for reason, count in done.left_out.items():
        print(f"left out: {count} {reason}")
    for reason, count in done.skipped.items():
        print(f"skipped, {done.format} cannot hold it: {count} rows: {reason}")
