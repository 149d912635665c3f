"""One HTML file on a policy run, or on several beside each other: findings first, then charts, then answers.

In: the folders of runs, finished or not. Out: a self-contained page. Needs the extra `report`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from guerdon.diagnose.kl_fits import Fit
from guerdon.diagnose.page import Html, document, element, figure, findings, grid, measured, passage, tiles, wrap
from guerdon.diagnose.run_charts import HEADINGS, kl_chart, lines_across, lines_of, overlay, small_chart, step_chart
from guerdon.diagnose.run_files import Row, Run, read_runs
from guerdon.diagnose.run_text import NAMES, compared, findings_of, number, tiles_of
from guerdon.files import write_text

__all__ = ["write_run_page"]


class Chart(NamedTuple):
    """A small chart: its heading, (column, name beside the line) of what it shows, and what that means."""

    heading: str
    columns: tuple[tuple[str, str], ...]
    meaning: str
    is_share: bool = False


SECTIONS: Mapping[str, tuple[Chart, ...]] = {
    "How far has it gone?": (
        Chart(
            "KL per sequence, nats",
            (("kl", "KL"),),
            "How far the policy is from its start. It should level off; a line that climbs to the end calls for a higher "
            "--beta or a --kl-target.",
        ),
        Chart(
            "KL per token, nats",
            (("kl_per_token", "KL"),),
            "The same by token. If only the line by sequence climbs, the answers are getting longer.",
        ),
        Chart("Beta, reward per nat", (("beta", "beta"),), "The price of KL, moved so that KL comes to the target."),
    ),
    "What are the answers like?": (
        Chart(
            "Length, tokens",
            (("length", "tokens"),),
            "A reward that likes long answers shows here first; compare with held-out, and probe the reward for length.",
        ),
        Chart(
            "Layout and endings",
            (("eos_rate", "ends"), ("list_rate", "list"), ("bold_rate", "bold")),
            "Shares of answers that end by themselves, have a list, have bold text. A share that runs to 0 or 100 % is a habit "
            "the reward pays for.",
            is_share=True,
        ),
        Chart(
            "Repetition",
            (("repetition", "repeated"),),
            "Mean share of four-word runs that were said before. Rising, the reward pays for padding: read the last answers.",
            is_share=True,
        ),
        Chart(
            "Entropy, nats per token",
            (("entropy", "entropy"),),
            "How undecided the policy is at a token. Falling fast to 0 means that it says one thing only: raise --beta.",
        ),
    ),
    "Is there still something to learn from?": (
        Chart(
            "Spread of the reward",
            (("proxy_std", "overall"), ("within_std", "in prompt")),
            "Standard deviation over all answers, and among those to one prompt. At 0 within a prompt RLOO and GRPO learn nothing.",
        ),
        Chart(
            "Disagreement of the members",
            (("disagreement", "members"),),
            "Mean standard deviation among the members of the reward. Where it rises, the reward is guessing: label such answers.",
        ),
        Chart(
            "Distance from the reward's training answers",
            (("drift", "drift"),),
            "1 is where the reward model was trained. Far above, its reward means little: label answers of this policy.",
        ),
    ),
    "How does PPO do?": (
        Chart(
            "Explained variance of the value model",
            (("explained_variance", "value"),),
            "Towards 1 is good; below 0 the value model is worse than none.",
        ),
        Chart(
            "Tokens at the bound",
            (("clip_fraction", "ratio"), ("value_clip_fraction", "value")),
            "Share of the loss that a bound decides. Above about 30 % the steps are too large.",
            is_share=True,
        ),
        Chart(
            "Terms of the loss",
            (("policy_loss", "policy"), ("value_loss", "value")),
            "The value loss should fall and stay low; a policy loss has no direction of its own.",
        ),
    ),
    "Where does the time go?": (
        Chart(
            "Seconds of a step",
            (("rollout_s", "rollout"), ("score_s", "scoring"), ("update_s", "update")),
            "Begin with the longest: shorter answers, a faster scorer, or larger --tokens-per-row.",
        ),
        Chart("Samples per second", (("samples_per_s", "samples"),), "Should be level; it falls as answers grow."),
    ),
}


def write_run_page(runs: Sequence[Path], output: Path, title: str | None = None) -> None:
    """Write the page; an old one is replaced once the new one is whole.

    Raises DataError for a folder that holds no policy run, and ConfigError when matplotlib is missing or the file cannot be
    written.
    """
    read = read_runs([Path(run) for run in runs])
    heading = title or (f"Policy run {read[0].name}" if len(read) == 1 else f"{len(read)} policy runs")
    parts = [*_head(read, heading), *_main_charts(read)]
    for name, charts in SECTIONS.items():
        parts += _section(read, name, charts)
    for run in read:
        parts += _samples(run, is_alone=len(read) == 1)
    parts += measured(_facts(read))
    write_text(Path(output), document(heading, parts))


def _head(runs: Sequence[Run], title: str) -> Iterator[Html]:
    yield element("p", "Policy optimisation · " + ", ".join(str(run.path) for run in runs), "kicker")
    yield element("h1", title)
    if len(runs) == 1:
        yield element("p", _lead(runs[0]), "lead")
        yield tiles(tiles_of(runs[0]))
        yield from findings(findings_of(runs[0]))
        return
    yield from findings(compared(list(runs)))
    for run in runs:
        yield element("h2", run.name)
        yield element("p", _lead(run))
        yield tiles(tiles_of(run))
        yield from findings(findings_of(run))


def _lead(run: Run) -> str:
    config = run.config
    name = str(config.get("algorithm", "")).upper() or "The policy"
    beta, price = config.get("beta"), ""
    if beta is not None:
        price = f"; a nat of KL costs {float(beta):g}" if beta else "; KL costs nothing"
    samples = int(run.last.get("samples") or 0)
    return f"{name}: {int(run.last['step']):,} steps, {samples:,} answers{price}."


def _main_charts(runs: Sequence[Run]) -> Iterator[Html]:
    yield element("h2", "Does held-out follow the reward?")
    if len(runs) > 1:
        yield from _overlays(runs, "step", _by_step(is_one=False))
        yield element("h2", "What does the distance buy?")
        yield from _overlays(runs, "sqrt_kl", _by_kl(None, is_one=False))
        return
    run = runs[0]
    yield figure(step_chart(run), _by_step(is_one=True), wide=True)
    yield element("h2", "What does the distance buy?")
    fit = run.fit() if run.has_held_out else None
    yield figure(kl_chart(run, fit), _by_kl(fit, is_one=True), wide=True)


def _overlays(runs: Sequence[Run], by: str, caption: str) -> Iterator[Html]:
    names = [name for name in HEADINGS if any(run.has(name) for run in runs)]
    parts = [wrap("div", [element("h3", HEADINGS[name]), figure(overlay(runs, name, by), "")]) for name in names]
    yield wrap("div", parts, "pair")
    yield wrap("figure", [element("figcaption", caption)])


def _by_step(is_one: bool) -> str:
    scale = (
        "Reward (the proxy that is optimised) and held-out above the first steps, in standard deviations over the answers of those steps; light: each "
        "step, bold: mean over a tenth of the run. "
        if is_one
        else "Light: each step, bold: mean over a tenth of the run. A cross marks where the monitor said stop, a ring the "
        "policy that was saved. "
    )
    return (
        scale + "Where reward rises and held-out does not, the reward is being gamed: use the policy from before that."
    )


def _by_kl(fit: Fit | None, is_one: bool) -> str:
    text = "A dot per step, by the square root of KL from the start; the lines are means over steps of similar KL. More KL is worth paying while held-out rises with it. "
    if not is_one:
        return text + "At equal distance, the run with the higher held-out is the better bargain."
    if fit is None:
        return text + "There are too few steps beyond 1 nat with held-out scores for the curve of Gao et al. (2022)."
    if fit.refusal:
        return text + f"Dotted: the curve of Gao et al. (2022), whose peak must not be read. {fit.refusal}"
    return text + "Dashed: the curve d (α − β log d) of Gao et al. (2022) fitted to held-out; stop at its peak."


def _section(runs: Sequence[Run], name: str, charts: Sequence[Chart]) -> Iterator[Html]:
    if name == "How does PPO do?" and not any(run.has("explained_variance") for run in runs):
        return
    drawn = [part for chart in charts if not _is_idle(runs, chart) for part in _drawn(runs, chart)]
    if drawn:
        yield element("h2", name)
        yield wrap("div", drawn, "pair")


def _is_idle(runs: Sequence[Run], chart: Chart) -> bool:
    """Is this the chart of a beta that never moves? The head of the page gives its value."""
    return chart.columns[0][0] == "beta" and all(len({row.get("beta") for row in run.rows}) == 1 for run in runs)


def _drawn(runs: Sequence[Run], chart: Chart) -> Iterator[Html]:
    """One figure with all quantities of one run, or one for each quantity with all runs."""
    if len(runs) == 1:
        lines = lines_of(runs[0], chart.columns)
        if lines:
            svg = small_chart(chart.heading, lines, chart.is_share, _bound(runs[0], chart.columns[0][0]))
            yield wrap("div", [element("h3", chart.heading), figure(svg, chart.meaning)])
        return
    for column, name in chart.columns:
        lines = lines_across(runs, column)
        if lines:
            heading = chart.heading
            if len(chart.columns) > 1:
                heading = NAMES[column].capitalize() if column in NAMES else f"{chart.heading}: {name}"
            meaning = chart.meaning if column == chart.columns[0][0] else ""
            yield wrap("div", [element("h3", heading), figure(small_chart(heading, lines, chart.is_share), meaning)])


def _bound(run: Run, column: str) -> tuple[float, str] | None:
    """A level that the options set for a quantity."""
    if column == "kl" and run.config.get("kl_target"):
        return float(run.config["kl_target"]), "target"
    most = run.config.get("max_new_tokens")
    return (float(most), "cut here") if column == "length" and most and run.end("length") > 0.6 * most else None


def _samples(run: Run, is_alone: bool) -> Iterator[Html]:
    first, last, best = int(run.rows[0]["step"]), int(run.last["step"]), run.best_step
    steps = {first: "first", last: "last"} if best is None else {first: "first", best: "best by held-out", last: "last"}
    found = run.samples(list(steps))
    if not found:
        return
    yield element("h2", "What does it answer?" + ("" if is_alone else f" · {run.name}"))
    note = (
        "Of the first, the best and the last step that were written: the answer with the middle reward, and the one with the "
        "highest, of those that held-out has scored if any. Read what the reward has come to like, and whether you would."
    )
    yield element("p", note, "note")
    names = {min(found, key=lambda one: (abs(one - step), one)): name for step, name in steps.items()}
    for step, rows in found.items():
        yield from _answers(step, names.get(step, ""), rows)


def _answers(step: int, name: str, rows: Sequence[Row]) -> Iterator[Html]:
    scored = sorted((row for row in rows if row.get("reward") is not None), key=lambda row: float(row["reward"]))
    checked = [row for row in scored if row.get("held_out") is not None]
    scored = checked or scored
    if not scored:
        yield element("p", f"Step {step}: no answer has a reward.", "note")
        return
    picked = [("Middle reward", scored[len(scored) // 2]), ("Highest reward", scored[-1])]
    head = [element("span", f"Step {step:,}, {name}"), element("b", f"{len(rows):,} answers")]
    sides = [wrap("section", _sample(title, row)) for title, row in picked]
    yield wrap("article", [wrap("header", head), wrap("div", sides, "pair")])


def _sample(title: str, row: Row) -> Iterator[Html]:
    """One answer under its prompt, with all that was measured on it."""
    yield Html(f"<h4>{element('span', title)}{element('span', 'reward ' + number(float(row['reward'])))}</h4>")
    held = "not checked" if row.get("held_out") is None else f"held-out {number(float(row['held_out']))}"
    end = "" if row.get("finished", True) else ", cut"
    yield element("h4", f"{held} · KL {number(float(row['kl']))} nats · {row.get('tokens')} tokens{end}")
    text = "\n".join(str(message.get("content", "")) for message in row.get("prompt") or [])
    yield wrap("div", [passage(text, tail=True)], "asked")
    yield passage(str(row["completion"]))
    yield _parts(row)


def _parts(row: Row) -> Html:
    parts: Mapping[str, Any] = row.get("parts") or {}
    if len(parts) < 2:
        return Html("")
    return grid((), [(name, number(math.nan if value is None else float(value))) for name, value in parts.items()])


def _facts(runs: Sequence[Run]) -> dict[str, str]:
    facts: dict[str, str] = {}
    for run in runs:
        end = f" · {run.name}" if len(runs) > 1 else ""
        config = run.config
        for key in ("algorithm", "policy", "prompts", "reward", "held_out", "beta", "kl_in", "learning_rate", "seed"):
            value = config.get(key)
            if value not in (None, [], ""):
                facts[key.replace("_", " ") + end] = (
                    ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                )
        if config.get("prompts_per_step"):
            facts[f"a step{end}"] = f"{config['prompts_per_step']} prompts × {config.get('samples_per_prompt')} answers"
        facts[f"steps{end}"] = f"{int(run.last['step']):,} of {config.get('steps', '?')}"
        facts[f"saved policy{end}"] = "none yet" if run.saved_step is None else f"after step {run.saved_step}"
        facts[f"left out{end}"] = f"{sum(int(row.get('masked') or 0) for row in run.rows):,} answers without a reward"
        facts[f"seconds in steps{end}"] = f"{sum(float(row.get('seconds') or 0) for row in run.rows):,.0f}"
    return facts
