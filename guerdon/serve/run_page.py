"""The live page of a policy run: the verdict first, then whether held-out follows the reward, then what the answers are like.

In: what `Watch.view` gives. Out: one HTML file that fetches nothing, runs no script and loads itself anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from guerdon.diagnose.page import Html, document, element, figure, findings, measured, tiles, wrap
from guerdon.diagnose.run_text import number
from guerdon.evaluate.columns import Floats
from guerdon.serve.run_svg import HALF, WIDE, Line, Mark, chart, strip

REFRESH = 5  # seconds
SAYING = {"ok": "Let it go on.", "warn": "Look closer.", "stop": "Stop this run."}
_BLIND = "Without held-out scores nobody can tell whether the answers get better with it."
STYLE = """
.verdict { border-left: 6px solid var(--accent); background: var(--panel); border-radius: 8px; padding: 18px 22px; margin: 18px 0 0; }
.verdict.warn { border-color: var(--band); } .verdict.stop { border-color: var(--warm); }
.verdict b { font-size: 28px; font-weight: 650; letter-spacing: -.01em; margin-right: 12px; color: var(--accent); }
.verdict.warn b { color: var(--band); } .verdict.stop b { color: var(--warm); }
.verdict p { margin: 6px 0 0; font-size: 17px; }
.main svg { display: block; width: 100%; height: auto; overflow: visible; stroke-linejoin: round; } .narrow { display: none; }
.caption { color: var(--muted); font-size: 14.5px; line-height: 1.5; margin-top: 8px; max-width: 78ch; } td a { color: var(--accent); } td.ok { color: var(--accent); } td.warn { color: var(--band); }
td.stop { color: var(--warm); font-weight: 650; } td.ok, td.warn, td.stop, td.short { white-space: nowrap; }
@media (max-width: 700px) { .wide { display: none; } .narrow { display: block; } .runs thead { display: none; }
  .runs tr { display: block; border-bottom: 1px solid var(--line); padding: 10px 0; }
  .runs td { display: inline-block; border: 0; padding: 0 14px 0 0; } .runs td:first-child, .runs td:last-child { display: block; } }
"""


class Small(NamedTuple):
    """A small chart: heading, (column, name, colour) of its lines, and what it means."""

    heading: str
    columns: tuple[tuple[str, str, str], ...]
    meaning: str
    is_share: bool = False


CHARTS = (
    Small(
        "√KL, √nats per sequence",
        (("sqrt_kl", "√KL", "accent"),),
        "How far the policy is from its start, as the client measured it. It should level off.",
    ),
    Small(
        "Length of the answers",
        (("length", "tokens", "accent"), ("words", "words", "warm")),
        "A reward that likes long answers shows here first.",
    ),
    Small(
        "Repetition",
        (("repetition", "repeated", "accent"),),
        "Share of four-word runs that were said before in the answer. Rising, the reward pays for padding.",
        True,
    ),
    Small(
        "Disagreement of the members",
        (("disagreement", "members", "accent"),),
        "Mean standard deviation among an ensemble's members. Where it rises, the reward is guessing.",
    ),
    Small(
        "Spread of the reward",
        (("proxy_std", "overall", "warm"), ("within_std", "in prompt", "accent")),
        "Over all answers of a step, and among those to one prompt. At 0 within a prompt, group algorithms learn nothing.",
    ),
    Small(
        "Layout",
        (("list_rate", "list", "accent"), ("bold_rate", "bold", "warm")),
        "Share of answers with a list, and with bold text. A share that runs to 0 or 100 % is a habit the reward pays for.",
        True,
    ),
    Small(
        "Distance from the training answers",
        (("drift", "drift", "accent"),),
        "1 is where the reward model was trained. Far above, its reward means little.",
    ),
    Small(
        "Gap between reward and held-out",
        (("gap", "gap", "warm"),),
        "Reward minus held-out, both above their start in standard deviations. At 0 held-out keeps up.",
    ),
)


def run_page(view: Mapping[str, Any], now: float) -> str:
    """The page of one run; `now` is seconds since 1970."""
    columns = {name: _column(values) for name, values in view["series"].items() if name != "status"}
    parts: list[Html] = [element("p", f"Policy run, live · {_ago(view, now)}", "kicker"), element("h1", view["run"])]
    parts.append(_verdict(view))
    if view["steps"]:
        parts.append(tiles(_tiles(view, columns)))
        parts += findings(_notes(view, columns))
        parts += _main(view, columns)
        parts += _small(columns)
    else:
        parts += findings(_notes(view, columns))
    parts += measured(_facts(view))
    return document(f"{view['status']} · {view['run']}", parts, style=STYLE, refresh=REFRESH)


def runs_page(runs: Sequence[Mapping[str, Any]], now: float) -> str:
    """All runs, the last seen first."""
    head = "".join(f"<th>{name}</th>" for name in ("run", "says", "step", "last sample", "because"))
    rows = []
    for run in runs:
        link = f'<a href="runs/{quote(run["run"], safe="")}/page">{element("span", run["run"])}</a>'
        cells = [
            element("td", run["status"], run["status"]),
            element("td", _step(run), "short"),
            element("td", _ago(run, now), "short"),
        ]
        rows.append(wrap("tr", [Html(f"<td>{link}</td>"), *cells, element("td", run["reason"])]))
    parts = [element("p", "Reward server", "kicker"), element("h1", "Policy runs")]
    if rows:
        parts.append(Html(f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'))
    else:
        parts.append(
            element("p", "No call has named a run yet. Send `run` and `step` with what is to be scored.", "lead")
        )
    return document("Policy runs", parts, style=STYLE, refresh=REFRESH)


def _verdict(view: Mapping[str, Any]) -> Html:
    status, best = str(view["status"]), view.get("best_step")
    reason = str(view["reason"])
    if status != "ok" and best is not None:
        when = "Go back to" if status == "stop" else "If it goes on, go back to"
        reason += f" {when} step {best}, after which held-out, smoothed, was not clearly higher."
    head = wrap(
        "div", [element("b", status), element("span", SAYING[status] if view["steps"] else "Waiting for samples.")]
    )
    return wrap("div", [head, element("p", reason)], f"verdict {status}")


def _tiles(view: Mapping[str, Any], columns: Mapping[str, Floats]) -> list[tuple[str, str, str]]:
    steps = max(1, min(10, view["steps"] // 10))

    def change(name: str) -> str:
        first, last = (_mean(columns[name][part]) for part in (slice(steps), slice(-steps, None)))
        return f"{number(first)} → {number(last)}"

    of = f"means of the first and last {steps} steps" if steps > 1 else "first and last step"
    second = f"{view['held_out']} has scored none yet" if view.get("held_out") else "no second model is asked"
    held = ("Held-out", "–", second)
    if checked := _checked(columns):
        held = ("Held-out", change("held_out"), f"{checked:,} answers checked")
    kl = _mean(columns["kl"][-steps:])
    return [
        ("Reward", change("proxy"), of),
        held,
        ("KL", number(kl), "not sent by the client" if math.isnan(kl) else "nats per sequence, now"),
        ("Samples", f"{int(columns['samples'].sum()):,}", f"in {view['steps']:,} steps, {_step(view)} now"),
    ]


def _checked(columns: Mapping[str, Floats]) -> int:
    """Answers of the run that have a held-out score."""
    return int(np.nansum(columns["held_out_n"])) if "held_out_n" in columns else 0


def _notes(view: Mapping[str, Any], columns: Mapping[str, Floats]) -> list[tuple[str, bool]]:
    counts, notes = view["counts"], []
    total = max(1, sum(counts.get(name, 0) for name in ("ok", "masked", "error")))
    if counts.get("error", 0) > 0.01 * total:
        notes.append((f"{counts['error']:,} of {total:,} samples could not be scored.", True))
    if counts.get("late"):
        text = (
            f"{counts['late']:,} samples came for steps that were over, and were left out. A new run takes a new name."
        )
        notes.append((text, True))
    if counts.get("without_step"):
        notes.append((f"{counts['without_step']:,} samples named no step, and were left out.", True))
    if counts.get("dropped"):
        notes.append(
            (f"{counts['dropped']:,} samples came faster than they could be measured, and were left out.", True)
        )
    if counts.get("unwritten"):
        notes.append(("Some steps could not be written to the watch folder; a restart would lose them.", True))
    if len(view["models"]) > 1:
        notes.append(("More than one reward scored this run, so its means compare unlike things.", True))
    missing = np.nansum(_column(view["series"].get("held_out_missing", [])))
    if missing:
        notes.append((f"{int(missing):,} held-out scores could not be had; they are missing, not guessed.", False))
    if view["steps"] and not view.get("held_out"):
        before = " any more; the held-out scores are from before the server was started" if _checked(columns) else ""
        text = f"No second model is asked{before}: serve one and name it with --held-out to see over-optimisation."
        notes.append((text, False))
    return notes


def _main(view: Mapping[str, Any], columns: Mapping[str, Floats]) -> Iterator[Html]:
    has_held_out = bool(np.isfinite(columns["held_out_above"]).any())
    yield element("h2", "Does held-out follow the reward?" if has_held_out else "How does the reward move?")
    lines = [Line("reward", columns["step"], columns["proxy_above"], "warm")]
    if has_held_out:
        lines.append(Line("held-out", columns["step"], columns["held_out_above"], "accent"))
    verdict = view["verdict"] or {}
    marks = [
        Mark(float(step), name, color)
        for step, name, color in (
            (verdict.get("warned_at"), "warning", "band"),
            (verdict.get("stopped_at"), "stop", "warm"),
            (view.get("best_step") if view["status"] != "ok" else None, "go back to", "accent"),
        )
        if step is not None and not (name == "warning" and step == verdict.get("stopped_at"))
    ]
    spoken = f"Reward{' and held-out' * has_held_out} above the start by step; the verdict is {view['status']}"
    for width, height, css in ((WIDE, 320, "wide"), (HALF, 280, "narrow")):  # one of them is shown
        svg = chart(spoken, lines, width=width, height=height, marks=marks, zero="start")
        yield wrap("div", [Html(svg), Html(strip(view["series"]["status"], width))], f"main {css}")
    caption = (
        f"{'Both above' if has_held_out else 'Above'} the first steps, in standard deviations over the answers of those steps; "
        "light: each step, bold: mean over a tenth of the run. "
        + ("Where reward rises and held-out does not, the reward is being gamed." if has_held_out else _BLIND)
        + " The band shows what was said after each step."
    )
    yield element("p", caption, "caption")


def _small(columns: Mapping[str, Floats]) -> Iterator[Html]:
    drawn = []
    for small in CHARTS:
        known = [one for one in small.columns if one[0] in columns and np.isfinite(columns[one[0]]).any()]
        if known:
            lines = [Line(name, columns["step"], columns[column], color) for column, name, color in known]
            zero = "start" if small.columns[0][0] == "gap" else ""
            svg = chart(f"{small.heading} by step", lines, percent=small.is_share, zero=zero)
            drawn.append(wrap("div", [element("h3", small.heading), figure(svg, small.meaning)]))
    if drawn:
        yield element("h2", "What is the policy doing?")
        yield wrap("div", drawn, "pair")


def _facts(view: Mapping[str, Any]) -> dict[str, str]:
    counts = view["counts"]
    order = ("ok", "masked", "error", "late", "without_step", "dropped", "unjudged")
    facts = {
        "scored by": ", ".join(view["models"]) or "–",
        "contracts": ", ".join(
            f"{one['model']} {one['contract'][:12]} from step {one['step']}" for one in view.get("contracts", ())
        )
        or "–",
        "held-out model": view.get("held_out") or "none",
        "samples": ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in order if counts.get(name))
        or "none",
    }
    evidence = (view["verdict"] or {}).get("evidence") or {}
    known = {name: value for name, value in evidence.items() if value is not None}
    if known:
        facts["evidence, standard errors"] = ", ".join(f"{name} {number(value)}" for name, value in known.items())
    peak = (view["verdict"] or {}).get("peak_kl")
    if peak is not None:
        facts["peak of the fitted curve"] = f"{number(peak)} nats per sequence"
    return facts


def _step(run: Mapping[str, Any]) -> str:
    step = run["open"]["step"] if run["open"] else run["step"]
    return "–" if step is None else f"step {step:,}"


def _ago(run: Mapping[str, Any], now: float) -> str:
    if not run["seen"]:
        return "no sample yet"
    seconds = max(0.0, now - run["seen"])
    if seconds < 100:
        return f"{seconds:.0f} s ago"
    return datetime.fromtimestamp(run["seen"], UTC).strftime("%Y-%m-%d %H:%M UTC")


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _column(values: Sequence[Any]) -> Floats:
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
