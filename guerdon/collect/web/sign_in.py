"""Pages of coming and going: sign in, sign out, accept an invitation, change one's password."""

from __future__ import annotations

import math
import secrets
from typing import Any

from starlette.responses import RedirectResponse, Response

from guerdon.collect import access, sessions
from guerdon.collect.web.gate import Stop, Visit
from guerdon.types import ConfigError


def login_page(visit: Visit) -> Response:
    """The form. A guest gets a cookie first, so that the form can carry a token bound to it."""
    if visit.session is not None:
        return RedirectResponse("/", 303)
    return _with_guest(visit, "login.html", next=_inside(visit.request.query_params.get("next", "")))


def login(visit: Visit) -> Response:
    name, destination = visit.text("name"), _inside(visit.text("next"))
    try:
        token = sessions.sign_in(visit.site.access, name, visit.text("password"), visit.address, visit.token)
    except sessions.SignInRefused as refused:
        if refused.wait:
            minutes = math.ceil(refused.wait / 60)
            problem = f"Too many tries. Wait {minutes} minute{'s' * (minutes > 1)}, or ask for a new password."
            page = visit.page("login.html", 429, next=destination, problem=problem, name=name)
            page.headers["retry-after"] = str(math.ceil(refused.wait))
            return page
        return visit.page("login.html", 401, next=destination, problem="The name or the password is wrong.", name=name)
    return _signed_in(visit, token, destination or "/")


def logout(visit: Visit) -> Response:
    assert visit.session is not None
    sessions.sign_out(visit.site.access, visit.session)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(visit.site.cookie, path="/", secure=visit.site.secure, httponly=True, samesite="lax")
    response.headers["clear-site-data"] = '"cache"'  # not "storage": answers that wait for the network stay
    return response


def invitation_page(visit: Visit) -> Response:
    offered = visit.site.access.invitation(str(visit.request.path_params["token"]))
    if offered is None:
        raise Stop(410, "This invitation is used up or too old. Ask for a new one.")
    return _with_guest(visit, "invitation.html", offered=offered, shortest=access.SHORTEST)


def accept(visit: Visit) -> Response:
    token = str(visit.request.path_params["token"])
    offered = visit.site.access.invitation(token)
    if offered is None:
        raise Stop(410, "This invitation is used up or too old. Ask for a new one.")
    name, password = visit.text("name"), visit.text("password")
    try:
        if password != visit.text("again"):
            raise ConfigError("the two passwords differ; type them again")
        person = visit.site.access.accept(token, name, password)
    except ConfigError as error:
        return visit.page(
            "invitation.html", 400, offered=offered, shortest=access.SHORTEST, problem=sentence(error), name=name
        )
    return _signed_in(visit, sessions.begin(visit.site.access, person, visit.token), "/")


def account_page(visit: Visit) -> Response:
    return visit.page("account.html", shortest=access.SHORTEST)


def change_password(visit: Visit) -> Response:
    person = visit.person
    try:
        if not sessions.password_is(visit.site.access, person, visit.text("old")):
            raise ConfigError("the old password is wrong")
        if visit.text("password") != visit.text("again"):
            raise ConfigError("the two new passwords differ; type them again")
        visit.site.access.set_password(person.name, visit.text("password"), person.name)
    except ConfigError as error:
        return visit.page("account.html", 400, shortest=access.SHORTEST, problem=sentence(error))
    return _signed_in(visit, sessions.begin(visit.site.access, person), "/account?changed=1")


def sentence(error: Exception) -> str:
    """An error as a sentence on a page; the name of a file stays as it is."""
    text = str(error)
    first = text.partition(" ")[0]
    return (text[:1].upper() + text[1:] if first.isalpha() else text) + ("" if text.endswith((".", "?", "!")) else ".")


def _with_guest(visit: Visit, template: str, **values: Any) -> Response:
    """A page with a form for somebody who may not be signed in, and the cookie its token is bound to."""
    if visit.token:
        return visit.page(template, **values)
    token = "guest." + secrets.token_urlsafe(24)
    fresh = Visit(visit.site, visit.request, token, None, visit.study, {}, {}, None)
    page = fresh.page(template, **values)
    _set_cookie(visit, page, token)
    return page


def _signed_in(visit: Visit, token: str, destination: str) -> Response:
    response = RedirectResponse(destination, 303)
    _set_cookie(visit, response, token)
    return response


def _set_cookie(visit: Visit, response: Response, token: str) -> None:
    """HttpOnly: no script reads it. Lax: no other site's form or script sends it. Secure wherever there is TLS."""
    response.set_cookie(
        visit.site.cookie,
        token,
        max_age=int(sessions.LIFE),
        path="/",
        secure=visit.site.secure,
        httponly=True,
        samesite="lax",
    )


def _inside(path: str) -> str:
    """A path of this site, or "": nobody is sent elsewhere after signing in."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if inside and len(path) < 300 else ""
