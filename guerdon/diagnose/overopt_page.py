"""One HTML file on over-optimisation: charts first, each with what it means and what to do.

In: `Overoptimisation` and some facts. Out: a self-contained page. Needs the extra `report`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from guerdon.diagnose.overopt import Ladder, Overoptimisation
from guerdon.diagnose.overopt_advice import advise
from guerdon.diagnose.overopt_charts import ladder_chart, rule_panels, winner_chart
from guerdon.diagnose.page import Html, document, element, figure, findings, grid, measured, passage, tiles, wrap
from guerdon.diagnose.winners import Example
from guerdon.evaluate.best_of_n import Curve
from guerdon.files import replacing


def write_overopt_page(
    path: Path | str, found: Overoptimisation, *, title: str, facts: Mapping[str, str] | None = None
) -> None:
    """Write the page; an old one is replaced once the new one is whole. Raises ConfigError without matplotlib."""
    parts = [*_head(found, title), *section(found), *_numbers(found)]
    parts += [*_tail(found), *_examples(found), *_facts(found, facts or {})]
    with replacing(Path(path)) as temporary:
        temporary.write_text(document(title, parts), encoding="utf-8", errors="replace")


def section(found: Overoptimisation) -> Iterator[Html]:
    """The charts, each with what it means: for this page and for the report of a run."""
    yield from _ladder(found)
    yield from _winners(found)
    yield from _rules(found)


def _head(found: Overoptimisation, title: str) -> Iterator[Html]:
    yield element("p", "Over-optimisation without a policy", "kicker")
    yield element("h1", title)
    yield element(
        "p",
        f"What happens to gold when this reward picks the best of up to {found.n[-1]} answers, "
        f"from {found.candidates:,} answers to {found.prompts:,} prompts.",
        "lead",
    )
    yield tiles(_tiles(found))
    yield from findings([(one.text, one.is_warning) for one in advise(found)])


def _tiles(found: Overoptimisation) -> Iterator[tuple[str, str, str]]:
    n, gold, peak = found.n[-1], found.reward.gold, found.reward.peak
    yield "Reward", f"+{found.reward.proxy.mean[-1]:.2f} SD", f"best of {n} above a random answer"
    if gold is None or peak is None or found.reward.regret is None:
        return
    yield "Gold", _number(gold.mean[-1]), f"{_number(found.base[0])} for a random answer; interval {_span(gold, -1)}"
    if peak.fall > 0:
        yield "Gold peaks at", f"{peak.n}", f"then −{_number(peak.fall)}; p = {peak.p:.2g}"
    else:
        yield "Gold peaks at", "–", f"still rising at best of {n}"
    yield "Regret", f"{100 * found.reward.regret.mean[-1]:.0f}\u00a0%", "of what gold itself would gain, left unwon"


def _ladder(found: Overoptimisation) -> Iterator[Html]:
    yield element("h2", "Does gold follow the reward?")
    if found.has_gold:
        caption = (
            "Picking the best of n by the reward; n doubles from mark to mark, its KL bound stands above. Reward and gold "
            "are in standard deviations within a prompt above a random answer, with 95 % intervals over prompts. Where the "
            "two lines part, the reward pays for something gold does not value; stop where gold is highest. Dashed: gold "
            "when gold itself picks (no reward can do better) and when the longest answer is picked (a reward must do better)."
        )
    else:
        caption = (
            "The reward alone. It must rise, whatever it measures; without gold nothing can be said about hacking."
        )
    yield figure(ladder_chart(found), caption, wide=True)


def _winners(found: Overoptimisation) -> Iterator[Html]:
    if found.winners:
        yield element("h2", "What do the winners have in common?")
        caption = (
            f"Best of {found.n[-1]} against a random answer to the same prompt. Far from zero is what this reward looks for. "
            "If raters would not pay for it, probe the reward for it and add comparisons that differ in nothing else."
        )
        yield figure(winner_chart(found.winners), caption, wide=True)


def _rules(found: Overoptimisation) -> Iterator[Html]:
    panels = rule_panels(found)
    if not panels:
        return
    yield element("h2", "Does an ensemble help?")
    yield element(
        "p",
        "Gold under each way of combining the members (solid, 95 % interval) against the average single member (dashed). "
        "Use a rule whose line stays above and does not turn down.",
        "note",
    )
    for i in range(0, len(panels), 2):
        pair = [wrap("div", [element("h3", name), figure(svg, "")]) for name, svg in panels[i : i + 2]]
        yield wrap("div", pair, "pair")
    rows = [_ladder_row(ladder) for ladder in (*found.ensemble, *found.members)]
    head = ("reward", f"gold at {found.n[-1]}", "95 % interval", "peak", "fall after it", "p", "above a single member")
    yield grid(head, rows)


def _ladder_row(ladder: Ladder) -> tuple[str, ...]:
    assert ladder.gold is not None
    assert ladder.peak is not None
    peak = ladder.peak
    gain = "" if ladder.gain is None else f"{ladder.gain[0]:+.3g} ({ladder.gain[1]:+.3g} to {ladder.gain[2]:+.3g})"
    fall = (_number(peak.fall), f"{peak.p:.2g}") if peak.fall > 0 else ("none", "")
    return ladder.name, _number(ladder.gold.mean[-1]), _span(ladder.gold, -1), str(peak.n), *fall, gain


def _numbers(found: Overoptimisation) -> Iterator[Html]:
    yield element("h2", "The numbers")
    head = ["n", "KL bound, nats", "reward, SD"]
    columns: list[Curve] = [found.reward.proxy]
    for name, part in (("gold", found.reward.gold), ("regret", found.reward.regret), ("oracle", found.oracle)):
        if part is not None:
            head += [name, "95 %"] if name == "gold" else [name]
            columns.append(part)
    if found.length is not None:
        head.append("longest")
        columns.append(found.length)
    rows = []
    for i, n in enumerate(found.n):
        cells = [f"{n:,}", f"{found.kl[i]:.2f}"]
        for part in columns:
            cells.append(_number(part.mean[i]))
            if part is found.reward.gold:
                cells.append(_span(part, i))
        rows.append(cells)
    yield grid(head, rows, numbers_from=0)


def _tail(found: Overoptimisation) -> Iterator[Html]:
    if found.tail is None:
        return
    tail = found.tail
    yield element("h2", "How heavy is the tail of its error?")
    yield element(
        "p",
        f"Hill index {tail.hill:.2f} (95 % interval {tail.low:.2f} to {tail.high:.2f}) over the {tail.n:,} largest errors, "
        f"reward minus gold in standard deviations. Normal errors have {tail.normal:.2f}, exponential tails "
        f"{tail.laplace:.2f}. Above that, a policy can find answers of any reward and no gold at little KL: bound the reward.",
    )


def _examples(found: Overoptimisation) -> Iterator[Html]:
    if found.examples:
        yield element("h2", "Where does it pick worst?")
        yield element(
            "p", "The reward's favourite among all answers, beside the best by gold. Read for a pattern.", "note"
        )
        yield from map(_example, found.examples)


def _example(one: Example) -> Html:
    header = wrap(
        "header",
        [element("span", "Prompt"), element("b", f"gold {_number(one.pick_gold)}, best {_number(one.best_gold)}")],
    )
    sides = [
        wrap(
            "section",
            [Html(f"<h4>{element('span', name)}{element('span', f'reward {_number(score)}')}</h4>"), passage(text)],
            css,
        )
        for name, css, score, text in (
            (" · ".join(filter(None, ("Best by gold", one.best_source))), "chosen", one.best_score, one.best),
            (" · ".join(filter(None, ("Picked by the reward", one.pick_source))), "rejected", one.pick_score, one.pick),
        )
    ]
    return wrap("article", [header, wrap("section", [passage(one.prompt, tail=True)]), wrap("div", sides, "pair")])


def _facts(found: Overoptimisation, facts: Mapping[str, str]) -> Iterator[Html]:
    rows = dict(facts) | {"prompts": f"{found.prompts:,}", "answers": f"{found.candidates:,}"}
    rows |= {"largest n": f"{found.n[-1]:,}"}
    rows |= {f"left out: {reason}": f"{count:,}" for reason, count in found.left_out.items()}
    rows["estimator"] = "exact mean over all subsets of n answers, ties averaged; intervals bootstrap prompts"
    yield from measured(rows)


def _span(part: Curve, i: int) -> str:
    return "–" if math.isnan(part.low[i]) else f"{_number(part.low[i])} to {_number(part.high[i])}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"
