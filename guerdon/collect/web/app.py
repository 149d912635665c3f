"""The application: every path with its rule and its handler, in one table.

    application(store, Serving())  ->  an ASGI application

The rules are enforced in gate.py; tests/collect/test_app.py walks this table and tries every path as everybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from guerdon.collect.access import Access
from guerdon.collect.store import Store
from guerdon.collect.web import admin, data_pages, people, quality_pages, rate, sign_in
from guerdon.collect.web.filters import FILTERS
from guerdon.collect.web.gate import Handler, Rule, Site, Stop, refusal, route
from guerdon.collect.web.headers import Guard

HERE = Path(__file__).parent

# method, path, who may, what answers
PATHS: tuple[tuple[str, str, Rule, Handler], ...] = (
    ("GET", "/", "person", rate.home),
    ("GET", "/login", "anyone", sign_in.login_page),
    ("POST", "/login", "anyone", sign_in.login),
    ("POST", "/logout", "person", sign_in.logout),
    ("GET", "/invitation/{token}", "anyone", sign_in.invitation_page),
    ("POST", "/invitation/{token}", "anyone", sign_in.accept),
    ("GET", "/account", "person", sign_in.account_page),
    ("POST", "/account", "person", sign_in.change_password),
    ("GET", "/studies", "person", rate.studies),
    ("GET", "/studies/{study}/rate", "study", rate.screen),
    ("GET", "/studies/{study}/guidelines", "study", rate.guidelines),
    ("GET", "/api/studies/{study}/next", "study", rate.next_question),
    ("POST", "/api/studies/{study}/judgements", "study", rate.submit),
    ("POST", "/api/studies/{study}/undo", "study", rate.undo),
    ("GET", "/api/studies/{study}/progress", "study", rate.progress),
    ("GET", "/studies/new", "begin", admin.new_page),
    ("POST", "/studies/new", "begin", admin.create),
    ("GET", "/studies/{study}", "lead", admin.overview),
    ("POST", "/studies/{study}/state", "lead", admin.set_state),
    ("GET", "/studies/{study}/settings", "lead", admin.settings_page),
    ("POST", "/studies/{study}/settings", "lead", admin.change_settings),
    ("GET", "/studies/{study}/guidelines/edit", "lead", admin.guidelines_page),
    ("POST", "/studies/{study}/guidelines/edit", "lead", admin.add_guideline),
    ("GET", "/studies/{study}/people", "lead", people.members),
    ("POST", "/studies/{study}/people/invite", "lead", people.invite),
    ("POST", "/studies/{study}/people/add", "lead", people.add_member),
    ("POST", "/studies/{study}/people/remove", "lead", people.remove_member),
    ("POST", "/studies/{study}/people/state", "lead", people.set_rater_state),
    ("GET", "/studies/{study}/import", "lead", data_pages.import_page),
    ("POST", "/studies/{study}/import", "lead", data_pages.upload),
    ("GET", "/studies/{study}/export", "lead", data_pages.export_page),
    ("GET", "/studies/{study}/export/download", "lead", data_pages.download),
    ("GET", "/studies/{study}/quality", "lead", quality_pages.quality),
    ("GET", "/studies/{study}/review", "lead", quality_pages.review),
    ("GET", "/studies/{study}/judgements", "lead", quality_pages.judgements),
    ("GET", "/accounts", "admin", people.accounts),
    ("POST", "/accounts", "admin", people.change_account),
    ("GET", "/audit", "admin", people.audit),
)


@dataclass(frozen=True, slots=True)
class Serving:
    """How the application is reached: under TLS or not, and by which origins (`https://host[:port]`) and hosts.

    Empty `hosts` lets any name in, which only tests want; empty `origins` means the origin that Host names.
    `secret` keys the digests of sessions and invitations.
    """

    secure: bool = False
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    secret: str = ""


def application(store: Store, serving: Serving | None = None) -> Starlette:
    """The application over an open store."""
    serving = serving or Serving()
    caches = quality_pages.Caches()
    site = Site(store, Access(store, secret=serving.secret), pages(), serving.secure, serving.origins, caches)
    middleware = [Middleware(Guard, hosts=serving.hosts, secure=serving.secure)]
    handlers: dict[Any, Any] = {404: _missing(site, 404), 405: _missing(site, 405), 500: _missing(site, 500)}
    app = Starlette(routes=routes(site), middleware=middleware, exception_handlers=handlers)
    app.state.site = site
    return app


def routes(site: Site) -> Sequence[BaseRoute]:
    """The table as routes; paths without a variable part come first, so that no study can be called `new`."""
    ordered = sorted(PATHS, key=lambda line: "{" in line[1])
    static = Mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    return [*(route(site, *line) for line in ordered), static]


def pages() -> Environment:
    """The templates. Every value is escaped unless it was made by show.py and says so with `|safe`."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = asset
    environment.globals["problem"] = ""
    environment.filters.update(FILTERS)
    return environment


@cache
def asset(name: str) -> str:
    """The address of a file of ours; it changes with the content, so that no browser keeps an old one."""
    digest = hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?v={digest}"


def _missing(site: Site, status: int) -> Any:
    messages = {404: "There is no such page, or it is not yours to see.", 405: "This page does not take that.", 500: ""}
    message = (
        messages[status] or "Something failed on the server; it is in the server's log. Nothing you sent was lost."
    )

    async def answer(request: Request, error: Exception) -> Response:
        return await run_in_threadpool(refusal, site, request, Stop(status, message))

    return answer
