"""The pictures of a policy run: reward and held-out by step and by KL, and one small chart for anything else that is logged.

One run: colours tell quantities apart, and reward and held-out share a scale. Several runs: colours tell the runs apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.diagnose.draw import ACCENT, BAND, HALF, INK, MUTED, WARM, WIDE, draw, end_labels, whole_numbers
from guerdon.diagnose.kl_fits import Fit
from guerdon.diagnose.run_files import Run
from guerdon.evaluate.columns import Floats

PAINTS = (ACCENT, WARM, BAND, MUTED, INK)
WIDE_RIGHT = 80
HEADINGS = {"proxy": "Reward, optimised", "held_out": "Held-out, watched"}


@dataclass(frozen=True)
class Line:
    """One curve of a small chart: values by step, raw and light, smoothed and bold."""

    name: str
    step: Floats
    values: Floats
    color: str


def step_chart(run: Run) -> str:
    """Reward and held-out by step, both above the start in standard deviations, and what the monitor said when."""
    marks = [(float(step), text, color) for step, text, color in _marks(run) if step is not None]
    rows = _rows_of(marks, run.series("step"))

    def paint(axes: Any) -> None:
        ends = [(0.0, "start", MUTED)]
        axes.axhline(0, color=MUTED, linewidth=1, dashes=(3, 3))
        for name, label, color in _both(run):
            values = _above_start(run, name)
            ends.append((_curve(axes, run.series("step"), values, color), label, color))
        _frame(axes, "step", "above the start, SD")
        _flags(axes, marks, rows)
        end_labels(axes, ends)

    return draw(_spoken(run), WIDE, 330 + 15 * max([0, *rows]), (58, WIDE_RIGHT, 30 + 15 * max([0, *rows]), 46), paint)


def kl_chart(run: Run, fit: Fit | None) -> str:
    """The same by the distance gone, the square root of KL, with the curve of Gao et al. fitted to held-out."""
    marks: list[tuple[float, str, str]] = []
    if fit is not None and not fit.refusal:
        marks = [(math.sqrt(fit.peak_kl), f"estimated peak, {fit.peak_kl:.1f} nats", ACCENT)]

    def paint(axes: Any) -> None:
        ends = [(0.0, "start", MUTED)]
        axes.axhline(0, color=MUTED, linewidth=1, dashes=(3, 3))
        d = run.series("sqrt_kl")
        for name, label, color in _both(run):
            values = _above_start(run, name)
            axes.scatter(d, values, s=11, color=color, alpha=0.3, linewidths=0)
            ends.append((_trend(axes, d, values, color), label, color))
        if fit is not None:
            _fitted(axes, run, fit)
        _frame(axes, "√KL, √nats per sequence", "above the start, SD")
        _flags(axes, marks, _rows_of(marks, d))
        end_labels(axes, ends)

    peak = f"; estimated peak at {fit.peak_kl:.1f} nats" if fit is not None and not fit.refusal else ""
    return draw(f"Reward and held-out by the square root of KL{peak}", WIDE, 330, (58, WIDE_RIGHT, 26, 46), paint)


def overlay(runs: Sequence[Run], name: str, by: str) -> str:
    """One quantity of several runs, by `step` or by `sqrt_kl`: what it is to the right of each line."""

    def paint(axes: Any) -> None:
        ends = []
        for run, color in zip(runs, _colors(len(runs)), strict=True):
            x, values = run.series(by), run.series(name)
            if not np.isfinite(values).any():
                continue
            if by == "step":
                last = _curve(axes, x, values, color)
                smooth = smoothed(values)
                for step, mark in ((run.first_with("stop"), "x"), (run.saved_step, "o")):
                    if step is not None:
                        at = int(np.argmin(np.abs(x - step)))
                        style = {"markerfacecolor": "none", "markersize": 10, "markeredgewidth": 1.8}
                        axes.plot([x[at]], [smooth[at]], mark, color=INK, **style)
            else:
                axes.scatter(x, values, s=8, color=color, alpha=0.25, linewidths=0)
                last = _trend(axes, x, values, color)
            ends.append((last, short(run.name), color))
        _frame(axes, "step" if by == "step" else "√KL, √nats per sequence", "")
        end_labels(axes, ends)

    spoken = "; ".join(f"{run.name}: from {run.start(name):.3g} to {run.end(name):.3g}" for run in runs)
    return draw(
        f"{HEADINGS.get(name, name)}: {spoken}",
        HALF,
        270,
        (46, _room([short(run.name) for run in runs]), 12, 44),
        paint,
    )


def small_chart(
    title: str, lines: Sequence[Line], percent: bool = False, bound: tuple[float, str] | None = None
) -> str:
    """Some quantities by step; `bound` is a level to compare with, and its name."""

    def paint(axes: Any) -> None:
        ends = [(_curve(axes, line.step, line.values, line.color), line.name, line.color) for line in lines]
        if bound is not None:
            axes.axhline(bound[0], color=MUTED, linewidth=1, dashes=(3, 3))
            ends.append((bound[0], bound[1], MUTED))
        _frame(axes, "step", "")
        if percent:
            axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.3g} %")
        end_labels(axes, ends)

    spoken = "; ".join(f"{line.name} {_first(line.values):.3g} to {_first(line.values[::-1]):.3g}" for line in lines)
    names = [line.name for line in lines] + ([bound[1]] if bound else [])
    return draw(f"{title} by step: {spoken}", HALF, 230, (52, _room(names), 12, 44), paint)


def lines_of(run: Run, columns: Sequence[tuple[str, str]]) -> list[Line]:
    """Several columns of one run, given as (column, name); those that were never measured are left out."""
    known = [(column, name) for column, name in columns if run.has(column)]
    colors = _colors(len(known))
    step = run.series("step")
    return [Line(name, step, run.series(column), color) for (column, name), color in zip(known, colors, strict=True)]


def lines_across(runs: Sequence[Run], column: str) -> list[Line]:
    """One column of several runs, in the colours that the runs have everywhere on the page."""
    pairs = zip(runs, _colors(len(runs)), strict=True)
    return [Line(short(r.name), r.series("step"), r.series(column), color) for r, color in pairs if r.has(column)]


def smoothed(values: Floats) -> Floats:
    """Running mean over a tenth of the points that are known; shorter at the ends, so that they do not bend."""
    half = max(1, len(values) // 20)
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    n = count[high] - count[low]
    mean: Floats = np.where(n > 0, (total[high] - total[low]) / np.maximum(n, 1), np.nan)
    return mean


def short(name: str, most: int = 15) -> str:
    """A name that fits beside a line."""
    return name if len(name) <= most else "…" + name[-most + 1 :]


def _room(names: Sequence[str]) -> int:
    """Pixels that names at the right end of lines take."""
    return 16 + 7 * max(map(len, names))


def _colors(count: int) -> list[str]:
    return [PAINTS[i % len(PAINTS)] for i in range(count)]


def _both(run: Run) -> list[tuple[str, str, str]]:
    held = [("held_out", "held-out", ACCENT)] if run.has_held_out else []
    return [("proxy", "reward", WARM), *held]


def _scale(run: Run, name: str) -> float:
    """Standard deviation over the samples of the first steps."""
    spread = run.start(f"{name}_std")
    return spread if spread > 0 else 1.0


def _above_start(run: Run, name: str) -> Floats:
    start = run.start(name)
    start = _first(run.series(name)) if math.isnan(start) else start
    return (run.series(name) - start) / _scale(run, name)


def _curve(axes: Any, x: Floats, values: Floats, color: str) -> float:
    """Raw and light, smoothed and bold; returns where the smoothed line ends."""
    smooth = smoothed(values)
    known = np.isfinite(values)
    axes.plot(x[known], values[known], color=color, linewidth=1, alpha=0.28)
    axes.plot(x, smooth, color=color, linewidth=2, marker="o" if known.sum() == 1 else "", markersize=4)
    return _first(smooth[::-1])


def _trend(axes: Any, x: Floats, values: Floats, color: str) -> float:
    """Means over groups of steps in order of KL, each of a twelfth of them or more; returns where that line ends."""
    known = np.isfinite(x) & np.isfinite(values)
    x, values = x[known], values[known]
    groups: list[list[int]] = [[]]
    for i in np.argsort(x, kind="stable"):
        group = groups[-1]
        if len(group) >= len(x) / 12 and x[i] - x[group[0]] >= float(np.ptp(x)) / 16:
            groups.append([])
        groups[-1].append(int(i))
    if len(groups) > 1 and len(groups[-1]) < len(x) / 12:  # a few steps far out are noise, not a trend
        groups[-2:] = [groups[-2] + groups[-1]]
    at, mean = ([float(column[group].mean()) for group in groups] for column in (x, values))
    axes.plot(at, mean, color=color, linewidth=1.8, marker="o", markersize=3.5)
    return mean[-1]


def _fitted(axes: Any, run: Run, fit: Fit) -> None:
    d = np.linspace(1.0, max(1.0, float(np.nanmax(run.series("sqrt_kl")))), 200)
    gold = run.held_out_start() + d * (fit.alpha - fit.beta * np.log(d))
    drawn = (gold - run.start("held_out")) / _scale(run, "held_out")
    axes.plot(d, drawn, color=INK, linewidth=1.4, dashes=(1, 2) if fit.refusal else (5, 2))


def _marks(run: Run) -> list[tuple[float | None, str, str]]:
    """What happened at which step, in the order in which it is written above the chart."""
    warned, stopped = run.first_with("warn", "stop"), run.first_with("stop")
    saved = run.saved_step
    return [
        (warned if warned != stopped else None, "warning", BAND),
        (stopped, "stop", WARM),
        (run.best_step, "held-out highest", ACCENT),
        (saved, "saved policy", INK),
    ]


def _flags(axes: Any, marks: Sequence[tuple[float, str, str]], rows: Sequence[int]) -> None:
    """Upright lines with their names above the chart, each in the row that `_rows_of` gives it."""
    low, high = axes.get_xlim()
    for (x, text, color), row in zip(marks, rows, strict=True):
        axes.axvline(x, color=color, linewidth=1.1, dashes=(3, 2))
        side, shift = ("right", -2) if x > low + 0.8 * (high - low) else ("left", 2)
        across = axes.get_xaxis_transform()
        axes.annotate(text, (x, 1), (shift, 5 + 15 * row), across, "offset pixels", ha=side, color=color, fontsize=12)


def _rows_of(marks: Sequence[tuple[float, str, str]], x: Floats) -> list[int]:
    """For each mark the lowest row above the chart in which its name touches no other."""
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    pixels = (WIDE - 58 - WIDE_RIGHT) / max(high - low, 1e-9)
    taken: list[list[tuple[float, float]]] = []
    found = []
    for at, text, _ in marks:
        size = 7.0 * len(text) + 10
        begin = (at - low) * pixels - (size if at > low + 0.8 * (high - low) else 0)
        free = [all(begin + size <= a or begin >= b for a, b in row) for row in taken]
        row = free.index(True) if True in free else len(taken)
        if row == len(taken):
            taken.append([])
        taken[row].append((begin, begin + size))
        found.append(row)
    return found


def _frame(axes: Any, xlabel: str, ylabel: str) -> None:
    axes.grid(axis="y")
    axes.margins(x=0.02)
    if xlabel == "step":
        axes.xaxis.set_major_locator(whole_numbers())
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def _first(values: Floats) -> float:
    """The first value that is known; 0 when none is."""
    known = values[np.isfinite(values)]
    return float(known[0]) if len(known) else 0.0


def _spoken(run: Run) -> str:
    held = f"; held-out goes from {run.start('held_out'):.3g} to {run.end('held_out'):.3g}" if run.has_held_out else ""
    stop = run.first_with("stop")
    said = f"; the monitor said stop at step {stop}" if stop is not None else ""
    return (
        f"The reward goes from {run.start('proxy'):.3g} to {run.end('proxy'):.3g} in {len(run.rows)} steps{held}{said}"
    )
