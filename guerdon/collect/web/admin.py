"""Pages of a lead: begin a study, watch it, change its settings and guidelines."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Any, get_args, get_type_hints

from starlette.responses import RedirectResponse, Response

from guerdon.collect.rate import PREFIX
from guerdon.collect.records import StudyState
from guerdon.collect.settings import Settings
from guerdon.collect.show import markup
from guerdon.collect.web import charts
from guerdon.collect.web.gate import Stop, Visit
from guerdon.collect.web.sign_in import sentence
from guerdon.types import ConfigError

HELP = {  # field -> (label, hint); the order of the form
    "title": ("Title", "What raters read at the top. The study's name when empty."),
    "k": ("Answers to a question", "2 to 9, or 0 for any number."),
    "overlap": ("Raters for each question", ""),
    "give_up": ("Give up after", "So many raters skipped or flagged a question: it is not asked any more."),
    "limit": ("Most questions for one rater", "0 is no limit."),
    "lock_seconds": ("Lock, in seconds", "How long a question is kept for the rater it was given to."),
    "repeats": ("Share of repeats", "A rater's own earlier question, sides swapped."),
    "repeat_after": ("Repeat after", "At least so many items lie between a question and its repeat."),
    "gold": ("Share of gold items", "The answer is known; they look like all others."),
    "attention": ("Share of attention checks", ""),
    "pass_mark": ("Pass mark", "Share of the training items to get right."),
    "attempts": ("Attempts at the training", ""),
    "random": ("Share chosen by chance", "At least 0.2. The rest goes to the rules below."),
    "arms": ("Other rules", "uncertain, d-optimal; one a line. They need scores: guerdon collect prioritise."),
    "strength": ("Ask how much better the winner is", ""),
    "ties": ("Offer a tie", ""),
    "all_bad": ("Offer “all are bad”", ""),
    "edit": ("Offer to rewrite the winner", "The rewritten answer counts as better than all."),
    "rationale": ("Ask for a reason", ""),
    "attributes": ("Rate each answer on", "One attribute a line; none when empty."),
    "scale": ("Ratings go from 1 to", ""),
    "mask": ("Hide these words", "One a line, besides the names of models we know."),
    "seed": ("Seed", "Of everything drawn by chance."),
}


def new_page(visit: Visit) -> Response:
    return visit.page("study_new.html", fields=_fields(Settings()), name="")


def create(visit: Visit) -> Response:
    """Begin a study from the form, or show the form again with what is wrong. A maker who is no admin joins it."""
    name = visit.text("name").strip()
    try:
        settings = _settings(visit, Settings())
        visit.store.create_study(name, settings, visit.person.name)
    except ConfigError as error:
        return visit.page("study_new.html", 400, fields=_sent(visit), name=name, problem=_said(error))
    visit.site.access.note(visit.person.name, "study begun", name)
    if visit.person.role != "admin":
        visit.site.access.join(visit.person.name, name, visit.person.name)
    return RedirectResponse(f"/studies/{name}/import", 303)


def overview(visit: Visit) -> Response:
    """Throughput and totals: read from counters, so that a million judgements take no longer than ten."""
    study, counts = visit.store.study(visit.study), visit.store.counts(visit.study)
    days = by_day(counts.hours, datetime.now(UTC))
    raters = sorted(counts.raters.items(), key=lambda pair: -pair[1])
    return visit.page(
        "study.html",
        study_record=study,
        counts=counts,
        raters=raters[:200],
        others=len(raters) - 200,
        by_models=sum(number for name, number in raters if name.startswith(PREFIX)),
        chart=charts.columns(days, "Judgements a day, the last 30 days"),
        today=days[-1][1],
        last_day=sum(last_hours(counts.hours, datetime.now(UTC), 24)),
        cost=None,
    )


def set_state(visit: Visit) -> Response:
    """Open, pause or close a study; the access log keeps who did."""
    state = visit.text("state")
    for known in get_args(StudyState):
        if state == known:
            visit.store.set_state(visit.study, known)
            visit.site.access.note(visit.person.name, f"study {state}", visit.study)
            return RedirectResponse(f"/studies/{visit.study}", 303)
    raise Stop(400, "A study is open, paused or closed.")


def settings_page(visit: Visit) -> Response:
    study = visit.store.study(visit.study)
    return visit.page(
        "settings.html", fields=_fields(study.settings), version=study.version, saved=_was(visit, "saved")
    )


def change_settings(visit: Visit) -> Response:
    """Save settings from the form as a new version, if they differ; the access log keeps what changed."""
    study = visit.store.study(visit.study)
    try:
        settings = _settings(visit, study.settings)
    except ConfigError as error:
        return visit.page(
            "settings.html", 400, fields=_sent(visit), version=study.version, problem=_said(error), saved=False
        )
    if settings != study.settings:
        version = visit.store.change_settings(visit.study, settings, visit.person.name)
        old, new = asdict(study.settings), asdict(settings)
        changed = {name: new[name] for name in new if new[name] != old[name]}
        visit.site.access.note(visit.person.name, "settings changed", visit.study, version=version, **changed)
    return RedirectResponse(f"/studies/{visit.study}/settings?saved=1", 303)


def guidelines_page(visit: Visit) -> Response:
    version, text = visit.store.guideline(visit.study)
    return visit.page("guidelines_edit.html", version=version, text=text, html=markup(text), saved=_was(visit, "saved"))


def add_guideline(visit: Visit) -> Response:
    """Preview a guideline, or save it as a new version if it differs."""
    text = visit.text("text").replace("\r\n", "\n")
    version, old = visit.store.guideline(visit.study)
    if visit.text("action") == "preview":
        return visit.page("guidelines_edit.html", version=version, text=text, html=markup(text), saved=False)
    if text.strip() != old.strip():
        version = visit.store.add_guideline(visit.study, text, visit.person.name)
        visit.site.access.note(visit.person.name, "guidelines changed", visit.study, version=version)
    return RedirectResponse(f"/studies/{visit.study}/guidelines/edit?saved=1", 303)


def by_day(hours: Any, now: datetime, days: int = 30) -> list[tuple[str, int]]:
    """(date, judgements) of the last days, those without any included."""
    totals: dict[str, int] = {}
    for hour, value in hours.items():
        totals[hour[:10]] = totals.get(hour[:10], 0) + value
    dates = [(now - timedelta(days=back)).strftime("%Y-%m-%d") for back in range(days - 1, -1, -1)]
    return [(date, totals.get(date, 0)) for date in dates]


def last_hours(hours: Any, now: datetime, many: int) -> list[int]:
    """Judgements in each of the last hours, the current one last."""
    return [hours.get((now - timedelta(hours=back)).strftime("%Y-%m-%dT%H"), 0) for back in range(many - 1, -1, -1)]


def _said(error: ConfigError) -> str:
    """What is wrong with a setting, by what the form calls it."""
    name, _, rest = str(error).partition(" ")
    return f"“{HELP[name][0]}” {rest}." if name in HELP else sentence(error)


def _was(visit: Visit, what: str) -> bool:
    return visit.request.query_params.get(what) == "1"


def _fields(settings: Settings) -> list[dict[str, Any]]:
    """The form: what each field is called, means and holds."""
    kinds = get_type_hints(Settings)
    found = []
    for name, (label, hint) in HELP.items():
        value, kind = getattr(settings, name), kinds[name]
        shape = {bool: "check", int: "number", float: "number", str: "line"}.get(kind, "choice")
        if "tuple" in str(kind):
            shape, value = "lines", "\n".join(value)
        choices = get_args(kind) if shape == "choice" else ()
        step = "1" if kind is int else "any"
        found.append(
            {
                "name": name,
                "label": label,
                "hint": hint,
                "value": value,
                "shape": shape,
                "choices": choices,
                "step": step,
            }
        )
    return found


def _sent(visit: Visit) -> list[dict[str, Any]]:
    """The form as it was sent, to be mended."""
    return [
        {**field, "value": visit.text(field["name"]) if field["shape"] != "check" else field["name"] in visit.form}
        for field in _fields(Settings())
    ]


def _settings(visit: Visit, old: Settings) -> Settings:
    """Settings from a form; what it does not hold stays. Raises ConfigError."""
    kinds, values = get_type_hints(Settings), {field.name: getattr(old, field.name) for field in fields(Settings)}
    for name in HELP.keys() & (visit.form.keys() | {"strength", "ties", "all_bad", "edit"}):
        text, kind = visit.text(name).strip(), kinds[name]
        try:
            if kind is bool:
                values[name] = name in visit.form
            elif kind in (int, float):
                values[name] = kind(text)
            elif "tuple" in str(kind):
                values[name] = tuple(line.strip()[:80] for line in text.splitlines() if line.strip())
            else:
                values[name] = text[:200]
        except ValueError:
            raise ConfigError(f"“{HELP[name][0]}” must be a number, not “{text[:40]}”") from None
    return Settings(**values)
