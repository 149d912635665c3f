"""`Overoptimisation` for people at a terminal: one row per n, ensembles, winners, advice. `docs/overopt.md` says more."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guerdon.diagnose.overopt import Overoptimisation
from guerdon.diagnose.overopt_advice import advise
from guerdon.evaluate.best_of_n import Curve

NAME = 30  # characters of a name in a table


def render(found: Overoptimisation, title: str) -> RenderableType:
    """Tables of the ladder, the ensemble rules and the winners, then the advice, warnings with a mark."""
    head = f"{title}: {found.candidates:,} answers to {found.prompts:,} prompts, best of 1 to {found.n[-1]}"
    parts: list[RenderableType] = [_ladder(found, head)]
    parts += [table for table in (_ensemble(found), _winners(found)) if table.row_count]
    parts.append(Group(*_sentences(found)))
    return Group(*(item for part in parts for item in (part, Text())))


def _ladder(found: Overoptimisation, title: str) -> Table:
    names = {"reward": found.reward.proxy, "gold": found.reward.gold, "regret": found.reward.regret}
    names |= {"oracle": found.oracle, "longest": found.length}
    known = {name: part for name, part in names.items() if part is not None}
    heads = [cell for name in known for cell in ([name, "95 %"] if name == "gold" else [name])]
    table = _table(title, "n", "KL bound", *heads)
    for i, n in enumerate(found.n):
        cells = [f"{n:,}", f"{found.kl[i]:.2f}"]
        for name, part in known.items():
            cells += [_number(part.mean[i]), _span(part, i)] if name == "gold" else [_number(part.mean[i])]
        table.add_row(*cells)
    return table


def _ensemble(found: Overoptimisation) -> Table:
    table = _table("Ensemble", f"best of {found.n[-1]}", "gold", "95 %", "peak", "fall", "above one member")
    for ladder in (*found.ensemble, *found.members):
        if ladder.gold is not None and ladder.peak is not None:
            gain = "" if ladder.gain is None else "{:+.2g} ({:+.2g} to {:+.2g})".format(*ladder.gain)
            row = (_number(ladder.gold.mean[-1]), _span(ladder.gold, -1), f"{ladder.peak.n}", _number(ladder.peak.fall))
            table.add_row(ladder.name, *row, gain)
    return table


def _winners(found: Overoptimisation) -> Table:
    table = _table(
        f"Winners of {found.n[-1]} against a random answer", "property", "random", "winner", "change", "95 %"
    )
    for one in found.winners:
        unit, scale = ("", 1.0) if one.name == "length" else (" %", 100.0)
        values = [f"{scale * value:,.{0 if not unit else 1}f}{unit}" for value in (one.random, one.winner)]
        low, high = (f"{scale * value:+,.{0 if not unit else 1}f}" for value in (one.low, one.high))
        span = "–" if math.isnan(one.low) else f"{low} to {high}"
        table.add_row(
            Text(one.name if len(one.name) <= NAME else one.name[: NAME - 1] + "…"),
            *values,
            "–" if math.isnan(one.change_sd) else f"{one.change_sd:+.2f} SD",
            span,
        )
    return table


def _sentences(found: Overoptimisation) -> Iterator[RenderableType]:
    for advice in advise(found):
        mark, style = ("! ", "yellow") if advice.is_warning else ("  ", "")
        yield Padding(Text(mark + advice.text, style=style), (0, 1))
    for reason, count in found.left_out.items():
        yield Padding(Text(f"  left out: {count:,} {reason}", style="dim"), (0, 1))


def _table(title: str, first: str, *heads: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, padding=(0, 1))
    table.header_style = "dim"
    table.add_column(first, no_wrap=True, min_width=min(len(first), 4))
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _span(part: Curve, i: int) -> str:
    return "–" if math.isnan(part.low[i]) else f"{_number(part.low[i])} to {_number(part.high[i])}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"
