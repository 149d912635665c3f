"""The one door every request passes: who is it, may they, and did our own page send it?

A handler is a plain function `(Visit) -> Response`, run in a thread because the store blocks. It never checks rights itself:
its rule stands beside its path in app.py, and this file enforces it. What somebody may not see answers 404, not 403, so that
nobody learns which studies exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import quote

from jinja2 import Environment
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from guerdon.collect import sessions
from guerdon.collect.access import Access, Person
from guerdon.collect.sessions import Session
from guerdon.collect.store import Store
from guerdon.collect.web.headers import host_of
from guerdon.types import GuerdonError

# anyone: signed in or not · person: signed in · study: sees the study in the path · lead: runs it · begin: may begin
# studies · admin: everything
Rule = Literal["anyone", "person", "study", "lead", "begin", "admin"]
MAX_GUEST = 20_000  # bytes from somebody who is not signed in
MAX_BODY = 2_000_000  # bytes of a form or a batch of answers
MAX_UPLOAD = 512_000_000  # bytes of an imported file
UPLOADS = ("/studies/{study}/import",)  # paths that take one
CHANGING = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Site:
    """What the whole application shares. `origins` are ours, as browsers write them; empty: whatever Host says."""

    store: Store
    access: Access
    pages: Environment
    secure: bool = False
    origins: frozenset[str] = frozenset()
    caches: Any = None

    @property
    def cookie(self) -> str:
        """A name with `__Host-` is taken by browsers only from a secure page, for this host alone."""
        return "__Host-guerdon" if self.secure else "guerdon"


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, once it has passed: everything a handler may use."""

    site: Site
    request: Request
    token: str
    session: Session | None
    study: str
    form: Mapping[str, str | UploadFile]
    many: Mapping[str, list[str]]
    json: Any

    @property
    def store(self) -> Store:
        return self.site.store

    @property
    def person(self) -> Person:
        assert self.session is not None, "the rule of this path lets in people who are not signed in"
        return self.session.person

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else "unknown"

    def text(self, name: str) -> str:
        """A field of the form, "" when it was not sent."""
        value = self.form.get(name, "")
        return value if isinstance(value, str) else ""

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page; `person`, `csrf`, `study` and `path` are known to every template."""
        known = {
            "person": self.session.person if self.session else None,
            "csrf": self.session.csrf if self.session else guest_token(self.site, self.token),
            "study": self.study,
            "path": self.request.url.path,
        }
        return HTMLResponse(self.site.pages.get_template(template).render(known | values), status_code=status)


class Stop(Exception):
    """A handler cannot go on: the status and one sentence for the person who asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


Handler = Callable[[Visit], Response]


def route(site: Site, method: str, path: str, rule: Rule, handler: Handler) -> Route:
    """A Starlette route that enforces `rule`, and for methods that change something the origin and the CSRF token."""

    async def endpoint(request: Request) -> Response:
        try:
            visit = await run_in_threadpool(_enter, site, request, rule)
            if isinstance(visit, Response):
                return visit
            if method in CHANGING:
                visit = await _with_body(visit, MAX_UPLOAD if path in UPLOADS else MAX_BODY)
                _require_token(visit)
            return await run_in_threadpool(_answer, handler, visit)
        except Stop as stop:
            return await run_in_threadpool(refusal, site, request, stop)
        finally:
            await request.close()

    endpoint.__name__ = handler.__name__
    return Route(path, endpoint, methods=[method], name=f"{method} {path}")


def _enter(site: Site, request: Request, rule: Rule) -> Visit | Response:
    """Who is it, and may they? Nothing of the body has been read yet."""
    _require_no_nul((*map(str, request.path_params.values()), *request.query_params.values()))
    token = request.cookies.get(site.cookie, "")
    session = sessions.session(site.access, token)
    study = str(request.path_params.get("study", ""))
    if request.method in CHANGING:
        _require_own_origin(site, request)
    if rule != "anyone":
        if session is None:
            if request.method == "GET" and not request.url.path.startswith("/api/"):
                return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)
            raise Stop(401, "You are not signed in. Sign in again; nothing you wrote is lost.")
        if not allowed(site.access, session.person, rule, study):
            raise Stop(404, "There is no such page, or it is not yours to see.")
    return Visit(site, request, token, session, study, {}, {}, None)


def _answer(handler: Handler, visit: Visit) -> Response:
    try:
        return handler(visit)
    except GuerdonError as error:
        raise Stop(400, str(error)) from error


def allowed(access: Access, person: Person, rule: Rule, study: str) -> bool:
    """Whether a signed-in person passes a rule."""
    if rule in ("study", "lead"):
        return (rule == "study" or person.role != "rater") and access.sees(person, study)
    if rule == "begin":
        return person.role != "rater"
    return rule in ("anyone", "person") or person.role == "admin"


def _require_no_nul(texts: Iterable[str]) -> None:
    """PostgreSQL keeps no text with a NUL character, and no keyboard writes one."""
    if any("\0" in text for text in texts):
        raise Stop(400, "A character was sent that no text can hold (NUL), so nothing was changed.")


def _require_own_origin(site: Site, request: Request) -> None:
    """The first of two proofs that our own page sent this: the origin that the browser names.

    Source: OWASP, Cross-Site Request Forgery Prevention (standard headers; synchronizer token).
    """
    headers = request.headers
    origin = "/".join((headers.get("origin") or headers.get("referer") or "").split("/", 3)[:3]).lower()
    if site.origins:
        ours = origin in site.origins
    else:
        ours = origin.partition("://")[2] == headers.get("host", "").lower() != ""
    if not ours or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Stop(
            403, f"This request came from another site ({host_of(origin) or 'unnamed'}), so nothing was changed."
        )


def _require_token(visit: Visit) -> None:
    """The second proof: a token that only our page, in this session, was given."""
    sent = visit.request.headers.get("x-csrf-token") or visit.text("csrf")
    expected = visit.session.csrf if visit.session else guest_token(visit.site, visit.token)
    if not sessions.same(sent, expected):
        raise Stop(403, "The page was too old, so nothing was changed. Load it again and repeat.")


def guest_token(site: Site, cookie: str) -> str:
    """The CSRF token of somebody not signed in: a function of their cookie, which no other site can read or set."""
    return site.access.digest(f"guest {cookie}") if cookie else ""


async def _with_body(visit: Visit, most: int) -> Visit:
    """The visit with its form or JSON, of `most` bytes. Raises Stop when it is longer or neither.

    The token that proves our own page lies in the body, so only a path that needs it takes much before that.
    """
    request = visit.request
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    most = MAX_GUEST if visit.session is None else most if kind == "multipart/form-data" else MAX_BODY
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise Stop(411, "The request does not say how long it is.")
    if int(length) > most:
        raise Stop(413, f"More than {most // 1000} kB were sent.")
    if kind == "application/json":
        try:
            return replace(visit, json=json.loads(await request.body()))
        except (ValueError, RecursionError):
            raise Stop(400, "The request is not JSON.") from None
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise Stop(415, "Send a form or JSON.")
    try:
        form: FormData = await request.form(max_files=1, max_fields=200, max_part_size=MAX_BODY)
    except (MultiPartException, HTTPException) as error:
        raise Stop(400, f"The form cannot be read: {error}") from None
    many: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            many.setdefault(name, []).append(value)
    _require_no_nul(text for texts in many.values() for text in texts)
    return replace(visit, form=dict(form), many=many)


def refusal(site: Site, request: Request, stop: Stop) -> Response:
    """A refusal in the form the asker can read: JSON for scripts, a page with the way back for people."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": stop.message}, stop.status)
    token = request.cookies.get(site.cookie, "") if stop.status < 500 else ""  # a server that fails looks nothing up
    session = sessions.session(site.access, token)
    known = {"person": session and session.person, "csrf": session.csrf if session else "", "study": "", "path": ""}
    html = site.pages.get_template("refusal.html").render(known, message=stop.message, status=stop.status)
    return HTMLResponse(html, stop.status)
