"""The rater's screen and the five paths its script speaks to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from guerdon.collect.show import markup
from guerdon.collect.web import answers
from guerdon.collect.web.gate import Stop, Visit
from guerdon.types import DataError

BATCH = 100  # answers taken in one request: more than a browser gathers in a day without network
AHEAD = 3  # questions a browser may hold at once


def home(visit: Visit) -> Response:
    return RedirectResponse("/studies", 303)


def studies(visit: Visit) -> Response:
    """The studies somebody sees: to answer in, and for leads to run."""
    access, store = visit.site.access, visit.store
    rows = []
    for name in access.studies(visit.person):
        study, progress = store.study(name), store.progress(name, visit.person.name)
        title, left = study.settings.title or name, answers.to_go(progress)
        rows.append({"study": study, "title": title, "progress": progress, "left": left})
    return visit.page("studies.html", rows=rows)


def screen(visit: Visit) -> Response:
    """The page; its script fetches the questions."""
    study = visit.store.study(visit.study)
    version, text = visit.store.guideline(visit.study)
    asks = {
        "study": visit.study,
        "rater": visit.person.name,
        "strength": study.settings.strength,
        "attributes": list(study.settings.attributes),
        "scale": study.settings.scale,
        "rationale": study.settings.rationale,
        "edit": study.settings.edit,
        "ties": study.settings.ties,
        "allBad": study.settings.all_bad,
        "guideline": version,
    }
    title = study.settings.title or study.name
    return visit.page("rate.html", title=title, asks=asks, guideline=markup(text) if text else "", version=version)


def guidelines(visit: Visit) -> Response:
    """The guidelines as a page of their own, the latest version or the one asked for."""
    asked = visit.request.query_params.get("version", "")
    number = int(asked[:9]) if asked.isdecimal() else None
    version, text = visit.store.guideline(visit.study, number)
    if number is not None and not version:
        raise Stop(404, "There is no such version of the guidelines.")
    study = visit.store.study(visit.study)
    return visit.page(
        "guidelines.html", title=study.settings.title or study.name, html=markup(text) if text else "", version=version
    )


def next_question(visit: Visit) -> Response:
    """A question for this rater, besides those the browser holds; and where the rater stands."""
    named = visit.request.query_params.get("held", "").split(",")
    held = [int(part) for part in named if part.isdecimal() and len(part) < 10][:AHEAD]
    rater, store = visit.person.name, visit.store
    assignment = store.next(visit.study, rater, beside=held) if len(held) < AHEAD else None
    settings = store.study(visit.study).settings
    if assignment:
        store.note_masked(assignment.id, answers.found_in(assignment, settings))
    return JSONResponse(
        {
            "question": answers.shown(assignment, settings) if assignment else None,
            "progress": answers.standing(store.progress(visit.study, rater)),
        }
    )


def submit(visit: Visit) -> Response:
    """One answer or many, in their order; each is on the disk before its line in the reply says so."""
    sent = visit.json
    items = sent.get("answers") if isinstance(sent, dict) else None
    if not isinstance(items, list) or not 1 <= len(items) <= BATCH:
        raise Stop(400, f'Send {{"answers": [...]}} with 1 to {BATCH} answers.')
    is_rated = any(isinstance(item, dict) and item.get("attributes") for item in items)
    attributes = visit.store.attributes(visit.study) if is_rated else ()
    results = [_submit(visit, item, attributes) for item in items]
    progress = answers.standing(visit.store.progress(visit.study, visit.person.name))
    return JSONResponse({"results": results, "progress": progress})


def _submit(visit: Visit, sent: Any, attributes: Sequence[str]) -> dict[str, Any]:
    name = str(sent.get("id", ""))[:64].encode("utf-8", "replace").decode() if isinstance(sent, dict) else ""
    try:
        number = answers.number_of(sent)
        assignment = visit.store.assignment(number, visit.person.name)
        if assignment is None or assignment.study != visit.study:
            raise DataError("this question was not given to you")
        judgement = answers.read(sent, assignment, visit.person.name, attributes)
        status = visit.store.submit(judgement, visit.study, assignment=number)
    except DataError as error:
        return {"id": name, "status": "refused", "reason": str(error)}
    result: dict[str, Any] = {"id": name, "status": status}
    if assignment.arm == "training":
        feedback = visit.store.feedback(number, visit.person.name)
        result["feedback"] = answers.lesson(feedback, assignment.order) if feedback else None
    return result


def undo(visit: Visit) -> Response:
    """The last answered question again, for a browser that has forgotten it; its next answer replaces the old one."""
    assignment = visit.store.undo(visit.study, visit.person.name)
    settings = visit.store.study(visit.study).settings
    return JSONResponse({"question": answers.shown(assignment, settings) if assignment else None})


def progress(visit: Visit) -> Response:
    """Where the rater stands, and the token for changes: what a page needs after its session was renewed."""
    assert visit.session is not None
    standing = answers.standing(visit.store.progress(visit.study, visit.person.name))
    return JSONResponse({"progress": standing, "csrf": visit.session.csrf, "rater": visit.person.name})
