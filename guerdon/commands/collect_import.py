"""guerdon collect import: questions into a study."""

from __future__ import annotations

from typing import Literal

from tyro.conf import Positional


def collect_import(
    study: Positional[str],
    path: Positional[str],
    database: str = "study.db",
    kind: Literal["normal", "gold", "attention", "training"] = "normal",
    format: str | None = None,
) -> None:
    """Add prompts with candidate answers to a study. What it has already is left out and counted, so it can be run again.

    Args:
        study: Name of the study.
        path: File (.jsonl, .json, .parquet, .csv, each also .gz), folder, or hub dataset id: `prompt` and `completions`, or any
            format of docs/data.md.
        database: SQLite file, or postgresql://USER:PASSWORD@HOST/NAME.
        kind: normal (ranks in the rows are dropped), or items whose ranks are the known answer: gold (look like all others),
            attention (do raters read?), training (with feedback, before the first ordinary one).
        format: Format of the rows, when it is not to be recognised.
    """
    from guerdon.collect.access import Access
    from guerdon.collect.bring import bring
    from guerdon.collect.store import Store
    from guerdon.terminal import spinner

    with Store.open(database, make=False) as store, spinner(f"reading {path}"):
        found, added = bring(store, study, path, kind, format)
        Access(store).note("command line", "questions imported", study, rows=found.rows, added=added.added, kind=kind)
    reasons = "".join(f", {count} with {reason}" for reason, count in sorted(found.dropped.items()))
    wrong = f", {added.wrong_size} with another number of candidates than the settings say" if added.wrong_size else ""
    print(
        f"{found.rows} rows: {added.added} {kind} questions added, {added.duplicates} in the study already{wrong}{reasons}"
    )
