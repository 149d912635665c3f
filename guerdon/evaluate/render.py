"""An `Evaluation` for people at a terminal: each number and, in one line, its meaning. `docs/evaluate.md` says more."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guerdon.evaluate.metrics import Evaluation, Slice

Line = tuple[str, str, str, str]


def render(
    evaluation: Evaluation, *, ceiling: float | tuple[float, float] | None = None, title: str = "Evaluation"
) -> RenderableType:
    """A terminal table: accuracy beside baselines and ceiling, counts, calibration, sources, strengths, warnings."""
    e = evaluation
    head = f"{title}: {e.n:,} decided pairs from {e.prompts:,} prompts"
    parts: list[RenderableType] = [_main(e, ceiling, head)]
    if len(e.by_source) > 1:
        parts.append(_slices("By source", "source", dict(e.by_source)))
    if len(e.by_strength) > 1:
        named = {f"{name} ({_range(part)})": part for name, part in e.by_strength.items()}
        parts.append(_slices("By strength of the label", "strength", named))
    parts += [Padding(Text(f"! {line}", style="yellow"), (0, 1)) for line in e.warnings]
    return Group(*(item for part in parts for item in (part, Text())))


def _main(e: Evaluation, ceiling: float | tuple[float, float] | None, title: str) -> Table:
    table = Table(
        title=Text(title), title_justify="left", title_style="bold", box=None, padding=(0, 1), header_style="dim"
    )
    table.add_column("", no_wrap=True, style="bold")
    table.add_column("value", no_wrap=True, justify="right")
    table.add_column("95 %", no_wrap=True)
    table.add_column("meaning", style="dim", overflow="fold")
    for number, group in enumerate((_accuracy(e, ceiling), _counts(e), _calibration(e))):
        if number:
            table.add_row()
        for line in group:
            table.add_row(*line)
    return table


def _accuracy(e: Evaluation, ceiling: float | tuple[float, float] | None) -> Iterator[Line]:
    yield "accuracy", _percent(e.accuracy), _interval(e.accuracy_low, e.accuracy_high), "preferred answer scores higher"
    longer = _interval(e.longer_wins_low, e.longer_wins_high)
    yield "longer wins", _percent(e.longer_wins), longer, "always picking the longer answer"
    yield "shorter wins", _percent(e.shorter_wins), "", "always picking the shorter answer"
    if ceiling is not None:
        low, high = ceiling if isinstance(ceiling, tuple) else (ceiling, ceiling)
        yield "ceiling", _percent(high), "" if low == high else _interval(low, high), "best that label noise allows"
    if e.gold_accuracy is not None and e.gold_accuracy_low is not None and e.gold_accuracy_high is not None:
        interval = _interval(e.gold_accuracy_low, e.gold_accuracy_high)
        yield "gold accuracy", _percent(e.gold_accuracy), interval, f"agrees with gold, {e.gold_n or 0:,} pairs"
    if e.gold_agreement is not None:
        yield "gold itself", _percent(e.gold_agreement), "", "gold against these labels"
    if e.kendall_tau is not None:
        yield "Kendall tau", _number(e.kendall_tau), "", "order of 3 or more; 1 is the same"


def _counts(e: Evaluation) -> Iterator[Line]:
    yield "ties", f"{e.ties:,}", "", "called equal by raters; left out"
    yield "score ties", f"{e.score_ties:,}", "", "equal scores; count one half"
    yield "unscored", f"{e.unscored:,}", "", "a score is missing; left out"


def _calibration(e: Evaluation) -> Iterator[Line]:
    low, middle, high = (_signed(e.margin_quantiles[q]) for q in ("5", "50", "95"))
    yield "NLL", _number(e.nll), "", "nats; a coin has 0.693, low is good"
    yield "Brier", _number(e.brier), "", "a coin has 0.250, low is good"
    yield "ECE", _number(e.ece), "", "confidence off by; 0 is calibrated"
    yield "margin", middle, f"{low} to {high}", "median, middle 90 % of pairs"
    yield "reward", _signed(e.reward_mean), f"sd {_number(e.reward_std)}", "over all completions"


def _slices(title: str, name: str, slices: dict[str, Slice]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), header_style="dim")
    table.add_column(name, overflow="fold")
    for heading in ("accuracy", "95 %", "pairs", "longer wins"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, part in slices.items():
        cells = (_percent(part.accuracy), _interval(part.low, part.high), f"{part.n:,}", _percent(part.longer_wins))
        table.add_row(Text(label), *(Text(cell) for cell in cells))
    return table


def _range(part: Slice) -> str:
    return f"{part.strength_min:.3g} to {part.strength_max:.3g}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _interval(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}"
