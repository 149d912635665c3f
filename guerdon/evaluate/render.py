"""An `Evaluation` for people at a terminal: each number and, in one line, its meaning. `docs/evaluate.md` says more."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guerdon.evaluate.metrics import Evaluation, Slice

Line = tuple[str, str, str]


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
    return Group(*parts)


def _main(e: Evaluation, ceiling: float | tuple[float, float] | None, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for group in (_accuracy(e, ceiling), _counts(e), _calibration(e)):
        for line in group:
            table.add_row(*line)
        table.add_row()
    return table


def _accuracy(e: Evaluation, ceiling: float | tuple[float, float] | None) -> Iterator[Line]:
    interval = _interval(e.accuracy_low, e.accuracy_high)
    yield (
        "accuracy",
        f"{_percent(e.accuracy)} {interval}",
        "the preferred answer scores higher; 95 % interval over prompts",
    )
    longer = f"{_percent(e.longer_wins)} {_interval(e.longer_wins_low, e.longer_wins_high)}"
    yield "longer wins", longer, "what always picking the longer answer would get"
    yield "shorter wins", _percent(e.shorter_wins), "what always picking the shorter answer would get"
    if ceiling is not None:
        low, high = ceiling if isinstance(ceiling, tuple) else (ceiling, ceiling)
        text = _percent(low) if low == high else f"{_percent(low)} to {_percent(high)}"
        yield "ceiling", text, "the best that noisy labels allow; above it, suspect leakage"
    if e.gold_accuracy is not None and e.gold_accuracy_low is not None and e.gold_accuracy_high is not None:
        gold = f"{_percent(e.gold_accuracy)} {_interval(e.gold_accuracy_low, e.gold_accuracy_high)}"
        yield "gold accuracy", gold, f"agreement with the gold order, {e.gold_n or 0:,} pairs"
    if e.gold_agreement is not None:
        yield "gold itself", _percent(e.gold_agreement), "what the gold reward would get against these labels"
    if e.kendall_tau is not None:
        yield (
            "Kendall tau",
            _number(e.kendall_tau),
            "rank correlation within rankings of three or more; 1 is the same order",
        )


def _counts(e: Evaluation) -> Iterator[Line]:
    yield "ties", f"{e.ties:,}", "pairs that the raters called equal; in no number here but gold"
    yield "score ties", f"{e.score_ties:,}", "decided pairs with equal scores; each counts one half"
    yield "unscored", f"{e.unscored:,}", "pairs with a score missing; left out"


def _calibration(e: Evaluation) -> Iterator[Line]:
    yield "NLL", f"{_number(e.nll)} nats", "surprise per pair; a coin has 0.693, lower is better"
    yield "Brier", _number(e.brier), "squared error of the probability; a coin has 0.25, lower is better"
    yield "ECE", _number(e.ece), "gap between confidence and accuracy; 0 is calibrated"
    margins = "  ".join(f"{value:+.2f}" for value in e.margin_quantiles.values())
    yield "margin", margins, f"chosen minus rejected at {', '.join(e.margin_quantiles)} %"
    yield "reward", f"{e.reward_mean:+.3f} sd {e.reward_std:.3f}", "mean and spread over all scored completions"


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
    return f"{part.strength_min:g} to {part.strength_max:g}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _interval(low: float, high: float) -> str:
    return "(no interval)" if math.isnan(low) else f"({100 * low:.1f} to {100 * high:.1f})"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
