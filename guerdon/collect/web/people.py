"""Who is in a study, invitations, all accounts, and the log of what was done."""

from __future__ import annotations

from typing import Literal, get_args

from starlette.responses import RedirectResponse, Response

from guerdon.collect.access import Role, new_password, valid_role
from guerdon.collect.names import folded, valid_name
from guerdon.collect.web.gate import Stop, Visit
from guerdon.collect.web.sign_in import sentence
from guerdon.types import ConfigError

RaterState = Literal["training", "active", "failed", "removed"]


def members(visit: Visit) -> Response:
    return _members(visit)


def _members(visit: Visit, status: int = 200, **more: object) -> Response:
    """The page; only an admin, who knows all accounts, is offered their names."""
    inside, access = visit.site.access.people(visit.study), visit.site.access
    progress = {person.name: visit.store.progress(visit.study, person.name) for person in inside[:200]}
    names = {person.name for person in inside}
    others = [person for person in access.people() if person.name not in names] if visit.person.role == "admin" else []
    known: dict[str, object] = {"link": "", "expires": "", "uses": 0, "former": access.former(visit.study)}
    return visit.page("people.html", status, members=inside[:200], progress=progress, others=others, **(known | more))


def invite(visit: Visit) -> Response:
    """Make a link and show it, this once."""
    try:
        hours, uses = _number(visit, "hours", 72), _number(visit, "uses", 1)
        token = visit.site.access.invite(valid_role(visit.text("role")), visit.study, visit.person, hours, uses)
    except ConfigError as error:
        return _members(visit, 400, problem=sentence(error))
    base = next(iter(sorted(visit.site.origins)), "") or str(visit.request.base_url).rstrip("/")
    return _members(visit, link=f"{base}/invitation/{token}", uses=uses, expires=f"{hours} hours")


def add_member(visit: Visit) -> Response:
    """Let an account that exists into the study, or back into it."""
    try:
        visit.site.access.join(valid_name(visit.text("name")), visit.study, visit.person.name)
    except ConfigError as error:
        return _members(visit, 400, problem=sentence(error))
    return RedirectResponse(f"/studies/{visit.study}/people", 303)


def remove_member(visit: Visit) -> Response:
    name = _member(visit)
    visit.site.access.leave(name, visit.study, visit.person.name)
    return RedirectResponse(f"/studies/{visit.study}/people", 303)


def set_rater_state(visit: Visit) -> Response:
    """Let a rater in, back to the training, or out of the queue; the decision is a person's and is logged."""
    name = _member(visit)
    for state in get_args(RaterState):
        if visit.text("state") == state:
            visit.store.set_rater_state(visit.study, name, state)
            visit.site.access.note(visit.person.name, f"rater {state}", visit.study, name=name)
            return RedirectResponse(f"/studies/{visit.study}/people", 303)
    raise Stop(400, "A rater is training, active, failed or removed.")


def _member(visit: Visit) -> str:
    name = visit.text("name")
    if name not in {person.name for person in visit.site.access.people(visit.study)}:
        raise Stop(400, "There is nobody of that name in this study.")
    return name


def accounts(visit: Visit) -> Response:
    return _accounts(visit)


def _accounts(visit: Visit, status: int = 200, words: str = "", secret: str = "", problem: str = "") -> Response:
    """The page, perhaps with a link or a password that is shown this once."""
    people = visit.site.access.people()
    return visit.page("accounts.html", status, people=people, words=words, secret=secret, problem=problem)


def change_account(visit: Visit) -> Response:
    """One of: invite somebody to a role, close or open an account, give another role or a new password."""
    access, name, action = visit.site.access, visit.text("name"), visit.text("action")
    try:
        if action == "invite":
            token = access.invite(_role(visit), "", visit.person)
            base = next(iter(sorted(visit.site.origins)), "") or str(visit.request.base_url).rstrip("/")
            return _accounts(visit, words="This link is shown once:", secret=f"{base}/invitation/{token}")
        if action == "password":
            if folded(name) == folded(visit.person.name):
                raise ConfigError("change your own password on the page of your account")
            password = new_password()
            access.set_password(name, password, visit.person.name)
            words = f"The new password of {name}, shown once; they can change it on the page of their account:"
            return _accounts(visit, words=words, secret=password)
        if action in ("close", "open"):
            access.set_active(name, action == "open", visit.person.name)
        elif action == "role":
            access.set_role(name, _role(visit), visit.person.name)
        else:
            raise ConfigError("there is no such action")
    except ConfigError as error:
        return _accounts(visit, 400, problem=sentence(error))
    return RedirectResponse("/accounts", 303)


def _role(visit: Visit) -> Role:
    return valid_role(visit.text("role"))


def audit(visit: Visit) -> Response:
    return visit.page("audit.html", events=visit.site.access.events(300))


def _number(visit: Visit, name: str, default: int) -> int:
    text = visit.text(name) or str(default)
    if not text.isdecimal() or len(text) > 6:
        raise ConfigError(f"{name} must be a whole number")
    return int(text)
