"""One HTML file that tells a team in five minutes how good a reward model is, and what to do next.

In: evaluations and their score tables, the rows of `metrics.jsonl`, the worst mistakes, some facts.
Out: a self-contained page, charts first, that opens without a network and prints. Needs the extra `report`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from guerdon.diagnose.advice import advise, overfitting
from guerdon.diagnose.charts import (
    Bar,
    accuracy_bars,
    margin_histogram,
    reliability_diagram,
    reward_histogram,
    training_curve,
)
from guerdon.diagnose.mistakes import Mistake, worst_mistakes
from guerdon.diagnose.page import Html, document, element, figure, findings, grid, measured, passage, tiles, wrap
from guerdon.evaluate.calibration import reliability
from guerdon.evaluate.metrics import Evaluation, Slice
from guerdon.evaluate.sheet import Calibration, calibrate
from guerdon.evaluate.table import ScoreTable
from guerdon.files import replacing

__all__ = ["Mistake", "worst_mistakes", "write_report"]

LN2 = math.log(2)


def write_report(
    path: Path | str,
    *,
    title: str,
    run: Path | None = None,
    evaluations: Mapping[str, Evaluation],
    tables: Mapping[str, ScoreTable] | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
    ceiling: float | tuple[float, float] | None = None,
    examples: Sequence[Mistake] = (),
    facts: Mapping[str, str] | None = None,
    sections: Sequence[Html] = (),
) -> None:
    """Write the report; an old one is replaced once the new one is whole.

    evaluations  by name, the one that matters most first
    tables       score tables of the same names; those missing here have no charts of their own
    metrics      rows of `metrics.jsonl` with `step`, `loss`, `accuracy`, and `eval_nll`, `eval_accuracy` where measured
    ceiling      best accuracy that label noise allows, a number or a (low, high) range, as shares
    examples     what `worst_mistakes` found
    sections     more of the page, such as the probes' own section, before the mistakes
    facts        what to know to repeat the run: data, model, contract, versions

    Raises ConfigError when matplotlib is missing or the file cannot be written.
    """
    path, tables = Path(path), tables or {}
    bound = (ceiling, ceiling) if isinstance(ceiling, int | float) else ceiling
    parts = [
        *_head(title, run, evaluations, bound),
        *_advice(evaluations, tables, bound),
        *_accuracy(evaluations, bound),
        *_training(metrics),
    ]
    for name, table in tables.items():
        parts += _scores(name if len(tables) > 1 else "", table, evaluations.get(name))
    parts += [*_slices(evaluations), *sections, *_mistakes(examples), *measured(facts or {})]
    with replacing(path) as temporary:
        temporary.write_text(document(title, parts), encoding="utf-8", errors="replace")


def _head(
    title: str, run: Path | None, evaluations: Mapping[str, Evaluation], ceiling: tuple[float, float] | None
) -> Iterator[Html]:
    yield element("p", "Reward model report" + (f" · {run}" if run else ""), "kicker")
    yield element("h1", title)
    for name, e in list(evaluations.items())[:1]:
        if e.n:
            yield element(
                "p",
                f"On {name}, the model scores the preferred answer higher in {_percent(e.accuracy)} of "
                f"{_counted(e.n, 'pair')} from {_counted(e.prompts, 'prompt')}.",
                "lead",
            )
            yield tiles(_tiles(e, ceiling))


def _tiles(e: Evaluation, ceiling: tuple[float, float] | None) -> list[tuple[str, str, str]]:
    """The four numbers to remember."""
    tiles = [("Accuracy", _percent(e.accuracy), f"95 % interval {_interval(e.accuracy_low, e.accuracy_high)}")]
    if e.gold_accuracy is not None:
        interval = _interval(e.gold_accuracy_low or 0, e.gold_accuracy_high or 0)
        tiles.append(("Against gold", _percent(e.gold_accuracy), f"95 % interval {interval}"))
    best = max(e.longer_wins, e.shorter_wins)
    rule = "longer" if e.longer_wins >= e.shorter_wins else "shorter"
    if ceiling is not None:
        text = _percent(ceiling[1]) if ceiling[0] == ceiling[1] else f"{100 * ceiling[0]:.0f}–{100 * ceiling[1]:.0f} %"
        tiles.append(("Ceiling", text, "best that label noise allows"))
    if not math.isnan(best):
        tiles.append(("Length rule", _percent(best), f"always the {rule} answer"))
    tiles.append(("Loss", f"{e.nll:.3f}", "nats per pair; a coin has 0.693"))
    tiles.append(("Calibration error", f"{e.ece:.3f}", "0 is calibrated"))
    return tiles[:4]


def _advice(
    evaluations: Mapping[str, Evaluation], tables: Mapping[str, ScoreTable], ceiling: tuple[float, float] | None
) -> Iterator[Html]:
    items: list[tuple[str, bool]] = []
    for name, e in evaluations.items():
        curve = reliability(tables[name].pairs()) if name in tables else None
        prefix = f"{name}: " if len(evaluations) > 1 else ""
        found = advise(e, ceiling, curve)
        items += [(prefix + advice.text, advice.is_warning) for advice in found]
    yield from findings(items)


def _accuracy(evaluations: Mapping[str, Evaluation], ceiling: tuple[float, float] | None) -> Iterator[Html]:
    bars = [bar for name, e in evaluations.items() if e.n for bar in _bars(name if len(evaluations) > 1 else "", e)]
    if not bars:
        return
    yield element("h2", "How good is it?")
    bound = (
        " The shaded range is the best that any model can reach against raters this noisy; gold has no such bound."
        if ceiling
        else ""
    )
    caption = (
        "Share of pairs put in the right order, with 95 % intervals over prompts. A model is worth using when its "
        f"whole interval lies right of chance and of both length rules.{bound}"
    )
    yield figure(accuracy_bars(bars, ceiling), caption, wide=True)


def _bars(name: str, e: Evaluation) -> Iterator[Bar]:
    if name:
        yield Bar(name, kind="heading")
    yield Bar("model, against raters", e.accuracy, e.accuracy_low, e.accuracy_high)
    if e.gold_accuracy is not None and e.gold_accuracy_low is not None and e.gold_accuracy_high is not None:
        yield Bar("model, against gold", e.gold_accuracy, e.gold_accuracy_low, e.gold_accuracy_high)
    if e.gold_agreement is not None:
        yield Bar("gold, against raters", e.gold_agreement, kind="baseline")
    if e.length is not None and not math.isnan(e.length.residual):
        yield Bar("model, length removed", e.length.residual, e.length.low, e.length.high)
    if removed := e.baselines.get("prompt removed"):
        yield Bar("model, prompt removed", removed.accuracy, removed.low, removed.high, "baseline")
    if not math.isnan(e.longer_wins):
        low, high = e.longer_wins_low, e.longer_wins_high
        yield Bar("longer answer wins", e.longer_wins, low, high, "baseline")
        yield Bar("shorter answer wins", e.shorter_wins, 1 - high, 1 - low, "baseline")


def _training(metrics: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    if not any(row.get("loss") is not None for row in metrics):
        return
    verdict = overfitting(metrics)
    yield element("h2", "How did training go?")
    loss = training_curve(metrics, "loss", "eval_nll", LN2)
    accuracy = training_curve(metrics, "accuracy", "eval_accuracy", 0.5, percent=True)
    advice = verdict.text if verdict else "A held-out loss that rises while training loss falls means overfitting."
    learnt = (
        "Accuracy on training and on held-out pairs. A wide gap is memory; two flat lines mean that nothing is learnt."
    )
    yield wrap("div", [figure(loss, f"Loss in nats, lower is better. {advice}"), figure(accuracy, learnt)], "pair")


def _scores(name: str, table: ScoreTable, e: Evaluation | None) -> Iterator[Html]:
    every = table.pairs()
    pairs = every.where(every.is_decided & every.is_scored)
    if not len(pairs):
        return
    end = f" · {name}" if name else ""
    yield element("h2", f"Can its confidence be trusted?{end}")
    diagram = figure(
        reliability_diagram(reliability(pairs)),
        "Each dot is a tenth of the pairs. On the dashed line the model is right as often as it says; below it, "
        "it is too sure, and margins need a temperature before they are read as probabilities.",
    )
    yield wrap("div", [diagram, _calibration(e, calibrate(table))] if e else [diagram], "pair")
    yield element("h2", f"What rewards does it give?{end}")
    rewards = reward_histogram(table.score[pairs.chosen], table.score[pairs.rejected])
    seen = "Where the two heaps coincide, the model cannot tell the answers apart. Read what lies in a far tail."
    wrong = "Pairs left of zero are wrong. A few far to the left are label errors or blind spots: read them below."
    yield wrap("div", [figure(rewards, seen), figure(margin_histogram(pairs.margin), wrong)], "pair")


def _calibration(e: Evaluation, c: Calibration) -> Html:
    rows = [
        ("calibration error", f"{e.ece:.3f}", "0"),
        ("loss, nats", f"{e.nll:.3f}", f"{LN2:.3f}"),
        ("Brier score", f"{e.brier:.3f}", "0.250"),
    ]
    if c.temperature is not None:
        t = c.temperature
        rows += [("temperature", f"{t.value:.3g}", ""), ("loss with it, out of fold", f"{t.nll:.3f}", f"{LN2:.3f}")]
    rows += [(f"right on its surest {name} %", _percent(c.selective[name]), "50.0\u00a0%") for name in ("50", "25")]
    if c.threshold.margin is not None:
        at_most = f"at most {_percent(c.threshold.max_error)} wrong above |margin|"
        rows.append((at_most, f"{c.threshold.margin:.2f}", ""))
    rows += [
        ("median margin", f"{e.margin_quantiles['50']:+.2f}", "0"),
        ("rewards, mean and spread", f"{e.reward_mean:+.2f}, {e.reward_std:.2f}", ""),
        ("tied labels", f"{e.ties:,}", ""),
        ("equal scores", f"{e.score_ties:,}", ""),
        ("unscored pairs", f"{e.unscored:,}", ""),
    ]
    return wrap("div", [grid(("", "model", "coin"), rows)])


def _slices(evaluations: Mapping[str, Evaluation]) -> Iterator[Html]:
    for name, e in evaluations.items():
        end = f" · {name}" if len(evaluations) > 1 else ""
        if len(e.by_source) > 1:
            yield element("h2", f"By source{end}")
            yield _slice_table("source", dict(e.by_source))
        if len(e.by_strength) > 1:
            yield element("h2", f"By strength of the preference{end}")
            yield element(
                "p", "A model that has learnt something is surer to be right where the raters were surer.", "note"
            )
            labels = {
                f"{key}, {part.strength_min:.3g} to {part.strength_max:.3g}": part
                for key, part in e.by_strength.items()
            }
            yield _slice_table("strength", labels)


def _slice_table(name: str, slices: Mapping[str, Slice]) -> Html:
    rows = [
        (label, _percent(part.accuracy), _interval(part.low, part.high), f"{part.n:,}", _percent(part.longer_wins))
        for label, part in slices.items()
    ]
    return grid((name, "accuracy", "95 % interval", "pairs", "longer wins"), rows)


def _mistakes(examples: Sequence[Mistake]) -> Iterator[Html]:
    if not examples:
        return
    yield element("h2", "Where is it most wrong?")
    yield element(
        "p",
        "The largest margins on the wrong side, one pair per prompt. Read them: a wrong label calls for cleaning the "
        "data, a pattern in the answers for more comparisons of that kind.",
        "note",
    )
    for example in examples:
        yield _mistake(example)


def _mistake(m: Mistake) -> Html:
    place = " · ".join(dict.fromkeys(text for text in (m.source, m.id) if text))
    header = wrap("header", [element("span", place), element("b", f"margin {m.margin:+.2f}")])
    prompt = wrap("section", [element("h4", "Prompt"), passage(m.prompt, tail=True)])
    sides = [
        wrap(
            "section", [Html(f"<h4>{element('span', name)}{element('span', f'{score:+.2f}')}</h4>"), passage(text)], css
        )
        for name, css, score, text in (
            ("Chosen by the rater", "chosen", m.chosen_score, m.chosen),
            ("Rejected, but scored higher", "rejected", m.rejected_score, m.rejected),
        )
    ]
    return wrap("article", [header, prompt, wrap("div", sides, "pair")])


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}\u00a0%"


def _interval(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"


def _counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"
