"""A `ModelComparison` for people at a terminal: standings, trivial rows, and every pair of models."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from guerdon.evaluate.compare import ModelComparison


def render_comparison(comparison: ModelComparison) -> RenderableType:
    """Two terminal tables and what was left out. Models that share a letter are not told apart by these pairs."""
    c = comparison
    head = f"{len(c.models)} models on {c.n:,} decided pairs from {c.prompts:,} prompts"
    kept_out = [
        f"{count:,} {what}"
        for count, what in (
            (c.left_out, "comparisons are not in every table and are left out"),
            (c.unscored, "pairs were not scored by every model and are left out"),
        )
        if count
    ]
    lines = [Text(f" ! {line}", style="yellow") for line in kept_out]
    return Group(_standings(c, head), Text(), _differences(c), Text(), *lines)


def _standings(c: ModelComparison, title: str) -> Table:
    table = _table(title, "", "model", "groups", "rank", "accuracy", f"{100 * c.level:.0f} %", "score ties")
    for number, one in enumerate(c.models, 1):
        rank = f"{one.best_rank}" if one.best_rank == one.worst_rank else f"{one.best_rank}–{one.worst_rank}"
        interval = _interval(one.low, one.high)
        table.add_row(
            f"{number}", Text(one.name), one.groups, rank, _points(one.accuracy), interval, f"{one.score_ties:,}"
        )
    table.add_row()
    for name, row in c.baselines.items():
        cells = ("", "", _points(row.accuracy), _interval(row.low, row.high), f"{row.ties:,}")
        table.add_row("", Text(name, style="dim"), *(Text(cell, style="dim") for cell in cells))
    return table


def _differences(c: ModelComparison) -> Table:
    title = "Gaps in points; Holm corrects p for all pairs of models, * is significant; a true gap of `seen` is found 4 times in 5"
    columns = ("pair", "gap", f"{100 * c.level:.0f} %", "one right", "McNemar", "p", "Holm", "seen")
    table = _table(title, *columns)
    number = {one.name: k for k, one in enumerate(c.models, 1)}
    for one in c.differences:
        table.add_row(
            f"{number[one.first]} – {number[one.second]}",
            f"{100 * one.difference:+.1f}",
            _interval(one.low, one.high),
            f"{one.only_first:,} : {one.only_second:,}",
            _p(one.mcnemar),
            _p(one.p),
            _p(one.p_holm) + (" *" if one.is_significant else "  "),
            f"{100 * one.smallest:.1f}",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=Text(title), title_justify="left", title_style="bold", box=None, padding=(0, 1), header_style="dim"
    )
    for name in columns:
        is_text = name in ("model", "groups")
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    return table


def _points(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _interval(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"


def _p(value: float) -> str:
    return "< .0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"
