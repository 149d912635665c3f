"""guerdon compare: several models on the same comparisons."""

from __future__ import annotations

import re
from pathlib import Path

from tyro.conf import Positional

from guerdon.terminal import require_writable, show, write_json


def compare(
    tables: Positional[tuple[str, ...]],
    names: tuple[str, ...] = (),
    json: str | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> None:
    """Compare models on the pairs that all of them scored: paired tests, intervals over prompts, rank groups.

    Args:
        tables: Score tables, one per model, as `guerdon evaluate --table` writes them.
        names: Name of each model, in the order of the tables. Default: the names of the files.
        json: Write the comparison to this file, as JSON.
        level: Of the intervals; a difference is significant when its corrected p is below 1 - level.
        seed: Of the bootstrap.
    """
    from guerdon.evaluate.compare import compare as compare_tables
    from guerdon.evaluate.compare_render import render_comparison
    from guerdon.evaluate.table import ScoreTable
    from guerdon.types import ConfigError

    require_writable(json)
    if names and len(names) != len(tables):
        raise ConfigError(f"{len(names)} names for {len(tables)} tables; give one name for each table, in their order")
    if not 0.5 < level < 1:
        raise ConfigError(f"the level is {level}; give a share above 0.5 and below 1, such as 0.95")
    chosen = names or _names(tables)
    if len(set(chosen)) < len(tables):
        raise ConfigError(f"two models are called the same ({', '.join(chosen)}); give different --names")
    result = compare_tables(
        {name: ScoreTable.read(path) for name, path in zip(chosen, tables, strict=True)}, seed=seed, level=level
    )
    show(render_comparison(result))
    write_json(json, result.to_dict() | {"tables": dict(zip(chosen, tables, strict=True))})


def _names(tables: tuple[str, ...]) -> tuple[str, ...]:
    """File names without endings; whole paths where these are not different."""
    stems = tuple(re.sub(r"\.(jsonl|jsonl\.gz|parquet)$", "", Path(table).name) for table in tables)
    return stems if len(set(stems)) == len(stems) else tables
