"""An `Evaluation` for people at a terminal: each number and, in one line, its meaning. `docs/evaluate.md` says more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guerdon.evaluate.agreement import Agreement
from guerdon.evaluate.metrics import Evaluation, Slice
from guerdon.evaluate.sheet import Calibration

Line = tuple[str, str, str, str]
Ceiling = float | tuple[float, float] | None


def render(
    evaluation: Evaluation,
    *,
    ceiling: Ceiling = None,
    title: str = "Evaluation",
    calibration: Calibration | None = None,
    agreement: Agreement | None = None,
) -> RenderableType:
    """A terminal table: accuracy beside ceiling and trivial rules, counts, calibration, sources, strengths, warnings.

    ceiling      best accuracy that label noise allows, one share or the range (low, high)
    calibration  adds temperature, selective accuracy and the threshold to abstain by
    agreement    shown beside the ceiling that was drawn from it
    """
    e = evaluation
    head = f"{title}: {e.n:,} decided pairs from {e.prompts:,} prompts"
    groups = (_accuracy(e), _ceiling(e, ceiling, agreement), _trivial(e), _counts(e), _margins(e, calibration))
    sure = () if calibration is None else _sure(calibration)
    parts: list[RenderableType] = [_main(head, [*groups, sure])]
    if ceiling is not None and not math.isnan(e.accuracy):
        parts.append(Text(f" {_of_ceiling(e.accuracy, *_range_of(ceiling))}"))
    if len(e.by_source) > 1:
        parts.append(_slices("By source", "source", dict(e.by_source)))
    if len(e.by_strength) > 1:
        named = {f"{name} ({_range(part)})": part for name, part in e.by_strength.items()}
        parts.append(_slices("By strength of the label", "strength", named))
    parts += [Padding(Text(f"! {line}", style="yellow"), (0, 1)) for line in e.warnings]
    return Group(*(item for part in parts for item in (part, Text())))


def _main(title: str, groups: Sequence[Iterable[Line]]) -> Table:
    table = Table(
        title=Text(title), title_justify="left", title_style="bold", box=None, padding=(0, 1), header_style="dim"
    )
    table.add_column("", no_wrap=True, style="bold")
    table.add_column("value", no_wrap=True, justify="right")
    table.add_column("95 %", no_wrap=True)
    table.add_column("meaning", style="dim", overflow="fold")
    for lines in filter(None, map(list, groups)):
        if table.row_count:
            table.add_row()
        for line in lines:
            table.add_row(*line)
    return table


def _accuracy(e: Evaluation) -> Iterator[Line]:
    yield "accuracy", _percent(e.accuracy), _interval(e.accuracy_low, e.accuracy_high), "preferred answer scores higher"
    if e.gold_accuracy is not None and e.gold_accuracy_low is not None and e.gold_accuracy_high is not None:
        interval = _interval(e.gold_accuracy_low, e.gold_accuracy_high)
        yield "gold accuracy", _percent(e.gold_accuracy), interval, f"agrees with gold, {e.gold_n or 0:,} pairs"
    if e.gold_agreement is not None:
        yield "gold itself", _percent(e.gold_agreement), "", "gold against these labels"
    if e.kendall_tau is not None:
        yield "Kendall tau", _number(e.kendall_tau), "", "order of 3 or more; 1 is the same"
    if e.length is not None:
        interval = _interval(e.length.low, e.length.high)
        yield "length removed", _percent(e.length.residual), interval, "accuracy less what length explains"
        sides = f"longer: {_percent(e.length.when_longer)}, shorter: {_percent(e.length.when_shorter)}"
        yield "by length", "", "", f"preferred answer {sides}"
    if e.n:
        yield "detectable", _percent(e.smallest_difference), "", "gap between models found 4 times in 5"


def _ceiling(e: Evaluation, ceiling: Ceiling, agreement: Agreement | None) -> Iterator[Line]:
    if agreement is not None:
        unnamed = "; raters unnamed, so copied rows count" if agreement.unnamed else ""
        interval = _interval(agreement.low, agreement.high)
        meaning = f"two raters, {agreement.pairs:,} pairs judged more than once{unnamed}"
        yield "agreement", _percent(agreement.share), interval, meaning
    if ceiling is not None:
        low, high = _range_of(ceiling)
        yield "ceiling", _percent(high), "" if low == high else _interval(low, high), "best that label noise allows"


def _trivial(e: Evaluation) -> Iterator[Line]:
    meanings = {
        "longer": "take the longer answer",
        "shorter": "take the shorter answer",
        "random": "where 95 % of random scorers fall",
        "constant": "one score for all",
        "prompt removed": "this model, not shown the prompt",
    }
    for name, row in e.baselines.items():
        ties = f", {row.ties:,} ties" if row.ties else ""
        label = f"{name} wins" if name in ("longer", "shorter") else name
        yield label, _percent(row.accuracy), _interval(row.low, row.high), meanings[name] + ties


def _counts(e: Evaluation) -> Iterator[Line]:
    yield "ties", f"{e.ties:,}", "", "called equal by raters; left out"
    yield "score ties", f"{e.score_ties:,}", "", "equal scores; count one half"
    yield "unscored", f"{e.unscored:,}", "", "a score is missing; left out"


def _margins(e: Evaluation, c: Calibration | None) -> Iterator[Line]:
    low, middle, high = (_signed(e.margin_quantiles[q]) for q in ("5", "50", "95"))
    yield "NLL", _number(e.nll), "", "nats; a coin has 0.693, low is good"
    yield "Brier", _number(e.brier), "", "a coin has 0.250, low is good"
    yield "ECE", _number(e.ece), "" if c is None else _span(c.ece_low, c.ece_high), "confidence off by; 0 is calibrated"
    yield "margin", middle, f"{low} to {high}", "median, middle 90 % of pairs"
    yield "reward", _signed(e.reward_mean), f"sd {_number(e.reward_std)}", "over all completions"
    if c is None or c.temperature is None:
        return
    t = c.temperature
    after = f"NLL {_number(t.nll)}, Brier {_number(t.brier)}, ECE {_number(t.ece)} out of fold"
    doubt = "; at its bound: no temperature fits" if t.at_bound else ""
    yield "temperature", f"{t.value:.3g}", f"{t.low:.3g} to {t.high:.3g}", f"{after}{doubt}; range of {t.folds} folds"


def _sure(c: Calibration) -> Iterator[Line]:
    for name in ("75", "50", "25"):
        yield f"surest {name} %", _percent(c.selective[name]), "", "accuracy on its surest pairs"
    yield "AURC", _number(c.aurc), "", "mean error over coverages, low is good"
    t = c.threshold
    promise = f"at most {_percent(t.max_error)} wrong, with {100 * t.confidence:.0f} % confidence"
    if t.margin is None:
        yield "trust above", "–", "", f"no |margin| of {t.n:,} independent pairs promises {promise}"
    else:
        kept = f"{_percent(t.coverage)} of {t.n:,} independent pairs, {_percent(t.error)} wrong here"
        yield "trust above", f"{t.margin:.3g}", "", f"|margin|: {promise}; keeps {kept}"


def _of_ceiling(accuracy: float, low: float, high: float) -> str:
    """72.0 % is 96 % of what these labels allow; a range where the ceiling is one."""
    least, most = (f"{100 * min(1.0, accuracy / end):.0f}" for end in (high, low))
    return f"{100 * accuracy:.1f} % is {least if least == most else f'{least} to {most}'} % of what these labels allow."


def _range_of(ceiling: float | tuple[float, float]) -> tuple[float, float]:
    return ceiling if isinstance(ceiling, tuple) else (ceiling, ceiling)


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


def _span(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.3g}"
