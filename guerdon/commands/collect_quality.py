"""guerdon collect quality: how good the labels of a study are."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from guerdon.terminal import require_writable, show, spinner, write_json

if TYPE_CHECKING:
    from guerdon.collect.quality import Quality, Share


def collect_quality(
    study: Positional[str], json: str | None = None, raters: Literal["human", "model", "both"] = "human"
) -> None:
    """Say how good the labels of a study are: speed, agreement, consistency, raters in doubt, and the ceiling.

    Args:
        study: Database URL (`sqlite:///study.db?study=NAME`) or a file of judgements.
        json: Also write everything to this file, as JSON.
        raters: Whose judgements: human, model or both.
    """
    from guerdon.collect.quality import quality
    from guerdon.data.database import is_database
    from guerdon.data.read import read_judgements

    require_writable(json)
    gold = _gold(study) if is_database(study) else {}
    with spinner(f"reading {study}"):
        found = quality(read_judgements(study), gold=gold, raters=raters)
    show(_render(found))
    write_json(json, found.to_dict())


def _gold(url: str) -> dict[str, tuple[float, ...]]:
    from urllib.parse import parse_qs, urlsplit

    from guerdon.collect.store import Store

    with Store.open(url.partition("?")[0], make=False) as store:
        name = parse_qs(urlsplit(url).query).get("study", [""])[0]
        names = [name] if name else [study.name for study in store.studies()]
        return {id: ranks for each in names for id, ranks in store.gold(each).items()}


def _render(q: Quality) -> object:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    facts = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _facts(q).items():
        facts.add_row(name, escape(value))
    raters = Table(
        "rater", "n", "s", "skill", "side", "left", "longer", "fast", "gold", "same again", box=None, pad_edge=False
    )
    for row in q.table[:30]:
        skill = f"{row.skill.value:.2f} ({row.skill.low:.2f}-{row.skill.high:.2f})" if row.skill else "?"
        side = f"{row.side.value:+.2f}" if row.side else "?"
        shares = (row.left, row.longer, row.fast, row.gold, row.consistent)
        raters.add_row(
            escape(row.rater),
            f"{row.judgements:,}",
            f"{row.seconds:.0f}" if isfinite(row.seconds) else "?",
            skill,
            side,
            *map(_percent, shares),
        )
    review = [f"review {item.names}: {item.reason}" for item in q.review] or ["no rater is in doubt"]
    return Group(facts, "", raters, "", *map(escape, review), *([escape(q.note)] if q.note else []))


def _facts(q: Quality) -> dict[str, str]:
    answers = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in q.answers.items())
    facts = {"judgements": f"{q.judgements:,} by {q.raters} raters ({answers})"}
    speeds = (
        (q.per_hour, f"{q.per_hour:.0f} an hour of work"),
        (q.per_day, f"{q.per_day:.0f} a day"),
        (q.seconds, f"median {q.seconds:.1f} s"),
    )
    facts["speed"] = ", ".join(words for value, words in speeds if isfinite(value)) or "not known"
    interval = f"{q.alpha.low:.3f} to {q.alpha.high:.3f}" if isfinite(q.alpha.low) else "interval not known"
    facts["alpha"] = f"{q.alpha.value:.3f} ({interval})" if isfinite(q.alpha.value) else "not known"
    if q.agreement:
        a = q.agreement
        facts["agreement"] = f"{a.share:.1%} ({a.low:.1%} to {a.high:.1%}) on {a.pairs:,} pairs"
    facts["left out"] = f"{q.share_not_random:.0%} not from the random arm"
    facts["same again"] = (
        f"{_percent(q.consistency)} of {q.consistency.n} repeats with sides swapped" if q.consistency.n else "not known"
    )
    if q.ceiling:
        facts["ceiling"] = f"a reward model can reach {q.ceiling[0]:.1%} to {q.ceiling[1]:.1%} accuracy on these labels"
    if q.sampled < 1:
        facts["sampled"] = f"fits and intervals use {q.sampled:.1%} of the questions"
    return facts


def _percent(share: Share) -> str:
    return f"{share.value:.0%}" if share.n else "-"
