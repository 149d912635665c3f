"""Attacks on the web application, tried: scripts in every text, forged requests, others' records, fixed sessions, SQL, guessing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import unicodedata
import uuid
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="guerdon collect is an extra")

from guerdon.cli import main
from guerdon.collect import sessions
from guerdon.collect.access import Access
from guerdon.collect.settings import Settings
from guerdon.collect.show import ATTRIBUTES, TAGS, markup, plain
from guerdon.collect.store import Store
from guerdon.collect.web.app import PATHS
from guerdon.types import ConfigError, Question
from tests.collect.browser import chromium
from tests.collect.payloads import PAYLOADS
from tests.collect.web import PASSWORD, World, csrf, served, world

COOKIE = "guerdon"


@pytest.fixture
def place(tmp_path) -> World:
    return world(tmp_path)


class Seen(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, name, value or "") for name, value in attrs] or [(tag, "", "")]


def test_the_corpus_is_large_enough():
    assert len(PAYLOADS) >= 200
    assert len(set(PAYLOADS)) == len(PAYLOADS)


@pytest.mark.parametrize("show", [markup, plain])
def test_no_payload_leaves_anything_that_acts(show):
    for payload in PAYLOADS:
        for text in (payload, f"before {payload} after", f"line\n\n{payload}\n\nline", f"> - {payload}"):
            for tag, name, value in Seen(show(text)).found:
                assert tag in TAGS, (text, tag)
                assert name in ("", "class", *ATTRIBUTES.get(tag, ())), (text, tag, name)
                assert name == "class" or value == "" or value.isdigit(), (text, tag, name, value)


def test_no_script_runs_in_a_browser_wherever_the_payload_stands(tmp_path):
    """Prompts, answers, titles, guidelines, names, rationales; with the content security policy off, so that escaping alone holds."""
    place = world(tmp_path)
    chunks = [PAYLOADS[i : i + 12] for i in range(0, len(PAYLOADS), 12)]
    settings = Settings(repeats=0, gold=0, attention=0, overlap=1, title=PAYLOADS[0], attributes=(PAYLOADS[1][:40],))
    place.store.create_study("attack", settings)
    questions = [
        Question(
            ({"role": "user", "content": "\n\n".join(chunk)},),
            tuple(({"role": "assistant", "content": f"{side}\n\n" + "\n\n".join(chunk)},) for side in "ab"),
            source=chunk[0],
            models=(chunk[0], chunk[-1]),
            id=f"q{i} {chunk[0]}",
        )
        for i, chunk in enumerate(chunks)
    ]
    place.store.add_questions("attack", questions)
    place.store.add_guideline("attack", "\n\n".join(PAYLOADS))
    place.access.join("rater one", "attack", "ada")
    fired: list[str] = []
    with served(place.store) as address, chromium() as browser:
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("dialog", lambda dialog: (fired.append(f"{page.url}: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: None if request.url.startswith(address) else fired.append(request.url))

        def sign_in(name: str) -> None:
            context.clear_cookies()
            page.goto(f"{address}/login")
            page.fill("#name", name)
            page.fill("#password", PASSWORD)
            page.click("button.primary")
            page.wait_for_url("**/studies")

        sign_in("rater one")
        page.goto(f"{address}/studies/attack/guidelines")
        page.goto(f"{address}/studies/attack/rate")
        for i in range(len(questions)):
            page.wait_for_selector("[data-card]")
            page.locator('[name="rate-0-0"]').first.check()
            page.locator('[name="rate-0-1"]').first.check()
            page.keyboard.press("1")
            page.keyboard.press("k")
            page.fill("#rationale", PAYLOADS[i])
            before = page.locator(".turn.user").inner_text()
            page.keyboard.press("Control+Enter")
            if i + 1 < len(questions):
                page.wait_for_function("text => document.querySelector('.turn.user')?.innerText !== text", arg=before)
        page.wait_for_selector("#state[data-state=saved]")
        assert place.store.counts("attack").judgements == len(questions)
        sign_in("ada")
        for tab in (
            "",
            "/settings",
            "/guidelines/edit",
            "/people",
            "/quality",
            "/review",
            "/export",
            "/import",
            "/judgements?rater=rater one",
        ):
            page.goto(f"{address}/studies/attack{tab}")
        for path in ("/studies", "/accounts", "/audit"):
            page.goto(address + path)
        for payload in PAYLOADS[:40]:  # reflected
            page.goto(f"{address}/login?next={payload}".replace("#", "%23"))
        page.wait_for_timeout(300)
    assert fired == []


def test_hostile_names_are_refused_or_shown_as_text(place):
    admin = place.client("ada")
    form = {
        "csrf": admin.headers["x-csrf-token"],
        "action": "add",
        "role": "rater",
        "password": PASSWORD,
        "again": PASSWORD,
    }
    for payload in PAYLOADS[:60]:
        assert admin.post("/accounts", data=form | {"name": payload}).status_code < 500
    html = admin.get("/accounts").text + admin.get("/audit").text
    assert all(not name.startswith("on") for _, name, _ in Seen(html).found)
    assert "<img src=x" not in html


def test_a_forged_request_changes_nothing(place):
    """CSRF: no token, a wrong one, another session's, another origin, no origin: for every path that changes something."""
    client, other = place.client("ada"), place.client("lead one")
    token, theirs = client.headers.pop("x-csrf-token"), other.headers["x-csrf-token"]
    for method, path, rule, _ in PATHS:
        if method != "POST" or rule == "anyone":
            continue
        address = path.format(study="one", token="x")
        for headers, form in (
            ({}, {"other": "x"}),
            ({}, {"csrf": "wrong"}),
            ({}, {"csrf": theirs}),
            ({"origin": "http://evil.example"}, {"csrf": token}),
            ({"origin": "null"}, {"csrf": token}),
            ({"origin": "", "referer": "http://evil.example/x"}, {"csrf": token}),
            ({"sec-fetch-site": "cross-site"}, {"csrf": token}),
        ):
            assert client.post(address, data=form, headers=headers).status_code == 403, (path, headers, form)
    assert {event.action for event in place.access.events()}.isdisjoint({"settings changed", "guidelines changed"})


def test_ids_of_others_lead_nowhere(place):
    """IDOR: assignments, studies and judgements of others, by number, by name, by id."""
    one = place.client("rater one")
    mine = one.get("/api/studies/one/next").json()["question"]["assignment"]
    place.access.add("rater three", "rater", PASSWORD)
    place.access.join("rater three", "one", "ada")
    three = place.client("rater three")
    row = {"id": str(uuid.uuid4()), "answer": "ranked", "ranks": [1, 2]}
    for number in range(max(0, mine - 3), mine + 3):
        reply = three.post("/api/studies/one/judgements", json={"answers": [row | {"assignment": number}]})
        assert reply.json()["results"][0]["status"] == "refused"
    stored = row | {"assignment": mine}
    assert (
        one.post("/api/studies/one/judgements", json={"answers": [stored]}).json()["results"][0]["status"] == "stored"
    )
    theirs = three.get("/api/studies/one/next").json()["question"]["assignment"]
    stolen = {"id": str(uuid.uuid4()), "answer": "ranked", "ranks": [2, 1], "assignment": theirs, "replaces": row["id"]}
    assert (
        three.post("/api/studies/one/judgements", json={"answers": [stolen]}).json()["results"][0]["status"]
        == "refused"
    )
    again = row | {"assignment": theirs, "ranks": [2, 1]}  # another's judgement id with other content
    assert (
        three.post("/api/studies/one/judgements", json={"answers": [again]}).json()["results"][0]["status"] == "refused"
    )
    for path in (
        "/studies/two/rate",
        "/api/studies/two/next",
        "/studies/one",
        "/studies/one/export/download",
        "/accounts",
    ):
        assert three.get(path).status_code == 404
    assert [j.rater for j in place.store.judgements("one")] == ["rater one"]


def test_a_session_that_was_planted_is_worth_nothing(place):
    """Fixation: what a browser held before it signed in does not name a session afterwards, and signing out ends one."""
    client = place.client()
    token = csrf(client.get("/login").text)
    planted = dict(client.cookies)
    client.post("/login", data={"name": "rater one", "password": PASSWORD, "csrf": token})
    fresh = dict(client.cookies)
    assert planted != fresh
    for cookies in (planted, dict.fromkeys(fresh, "guest.planted"), dict.fromkeys(fresh, "' OR 1=1 --")):
        thief = place.client()
        for name, value in cookies.items():
            thief.cookies.set(name, value)
        assert thief.get("/api/studies/one/next").status_code == 401
    client.post("/logout", data={"csrf": csrf(client.get("/account").text)})
    thief = place.client()
    for name, value in fresh.items():
        thief.cookies.set(name, value)
    assert thief.get("/api/studies/one/next").status_code == 401


SQL = (
    "' OR '1'='1",
    "'; DROP TABLE judgement; --",
    "1 UNION SELECT password FROM user",
    '" OR ""="',
    "one'--",
    "%27%20OR%201=1",
    "\\'; DELETE FROM user; --",
)


def test_sql_in_every_field_is_text(place):
    client, guest = place.client("lead one"), place.client()
    token = csrf(guest.get("/login").text)
    form = {"csrf": client.headers["x-csrf-token"]}
    question = place.client("rater one").get("/api/studies/one/next").json()["question"]
    for text in SQL:
        assert guest.post("/login", data={"name": text, "password": text, "csrf": token}).status_code in (400, 401, 429)
        assert client.get(f"/studies/{text}/rate").status_code == 404
        assert client.get("/api/studies/one/next", params={"held": text}).status_code == 200
        assert client.get("/studies/one/guidelines", params={"version": text}).status_code in (200, 400)
        assert client.get("/studies/one/export/download", params={"which": text}).status_code in (200, 400, 404)
        assert (
            client.post("/studies/one/guidelines/edit", data=form | {"text": text, "action": "save"}).status_code == 303
        )
        assert place.store.guideline("one")[1] == text
        answer = {
            "id": text,
            "assignment": question["assignment"],
            "answer": "ranked",
            "ranks": [1, 2],
            "rationale": text,
        }
        rater = place.client("rater one")
        assert (
            rater.post("/api/studies/one/judgements", json={"answers": [answer]}).json()["results"][0]["status"]
            == "refused"
        )
    assert len(list(place.store.questions("one"))) == 6
    assert place.access.find("rater one") is not None


def test_passwords_cannot_be_guessed(place):
    """After a few wrong ones the right one is refused too, with the time to wait; other accounts are not locked out by it."""
    client = place.client()
    token = csrf(client.get("/login").text)
    statuses = [
        client.post("/login", data={"name": "rater one", "password": f"wrong {i}", "csrf": token}).status_code
        for i in range(30)
    ]
    assert statuses[0] in (400, 401)
    assert statuses[-1] == 429
    assert statuses.count(429) >= 15
    reply = client.post("/login", data={"name": "rater one", "password": PASSWORD, "csrf": token})
    assert reply.status_code == 429
    assert int(reply.headers.get("retry-after", 1)) > 0


def test_passwords_tried_all_at_once_are_counted(place):
    def attempt(i):
        try:
            sessions.sign_in(place.access, "rater one", f"wrong {i}", "192.0.2.1")
        except sessions.SignInRefused as refused:
            return refused.wait > 0
        return None

    with ThreadPoolExecutor(40) as threads:
        refused = list(threads.map(attempt, range(40)))
    assert (refused.count(False), refused.count(True)) == (sessions.PAIR, 40 - sessions.PAIR)
    assert sum(event.action == "sign-in refused" for event in place.access.events()) == sessions.PAIR


def test_a_room_of_raters_signs_in_at_once(place):
    names = [f"rater {i}" for i in range(40)]
    for name in names:
        place.access.add(name, "rater", PASSWORD)
    with ThreadPoolExecutor(40) as threads:
        tokens = list(threads.map(lambda name: sessions.sign_in(place.access, name, PASSWORD, "192.0.2.1"), names))
    assert [sessions.session(place.access, token).person.name for token in tokens] == names


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("Ärzte", "ärzte"),
        ("Ärzte", "ÄRZTE"),
        ("Élodie", "Élodie"),
        ("Ёлка", "ёлка"),
        ("José", unicodedata.normalize("NFD", "josé")),
        ("Weiß", "WEISS"),
    ],
)
def test_a_name_is_one_name_in_any_capitals_of_any_script(url, name, typed):
    with Store.open(url) as store:
        access = Access(store)
        access.add(name, "rater", PASSWORD)
        token = sessions.sign_in(access, typed, PASSWORD, "192.0.2.1")
        assert sessions.session(access, token).person.name == access.find(typed).name == name
        with pytest.raises(ConfigError, match="already an account"):
            access.add(typed, "rater", PASSWORD)
        for capitals in (str.upper, str.lower, str.upper, str.lower, str.title):
            with pytest.raises(sessions.SignInRefused, match="wrong name"):
                sessions.sign_in(access, capitals(typed), "wrong password", "192.0.2.1")
        with pytest.raises(sessions.SignInRefused, match="too many"):
            sessions.sign_in(access, name, PASSWORD, "192.0.2.1")


def test_an_admin_gives_a_new_password_which_works_at_once(place):
    """Failed tries count no more, who was signed in is signed out, the log has it without the password; others may not."""
    signed_in, client = place.client("rater one"), place.client()
    token = csrf(client.get("/login").text)

    def sign_in(password):
        return client.post("/login", data={"name": "Rater one", "password": password, "csrf": token}).status_code

    assert [sign_in("wrong password") for _ in range(6)][-1] == 429
    admin, lead = place.client("ada"), place.client("lead one")
    form = {"action": "password", "name": "rater one"}
    assert lead.post("/accounts", data=form | {"csrf": lead.headers["x-csrf-token"]}).status_code == 404
    page = admin.post("/accounts", data=form | {"csrf": admin.headers["x-csrf-token"]}).text
    password = page.split('<p class="copy" tabindex="0">')[1].partition("<")[0]
    assert len(password) >= 24
    assert signed_in.get("/api/studies/one/next").status_code == 401
    assert sign_in(PASSWORD) == 401  # looked at, and wrong now
    assert sign_in(password) == 303
    event = next(event for event in place.access.events() if event.action == "password changed")
    assert (event.person, event.detail) == ("ada", {"name": "rater one", "failed sign-ins forgotten": 5})
    own = admin.post("/accounts", data=form | {"name": "ada", "csrf": admin.headers["x-csrf-token"]})
    assert (own.status_code, "page of your account" in own.text) == (400, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("add ADA", "already an account"),
        ("add eve --study three", "no study 'three'"),
        ("add <eve>", "a name has"),
        ("password eve", "no account 'eve'"),
        ("invite ada --study three", "no study 'three'"),
        ("invite rater^one --study one", "'rater one' cannot invite into study 'one'"),
        ("invite lead^one --study two", "'lead one' cannot invite into study 'two'"),
        ("invite lead^one", "cannot invite into the whole server"),
    ],
)
def test_the_command_line_prints_no_password_for_what_it_refuses(place, tmp_path, capsys, arguments, reason):
    people = place.access.people()
    with pytest.raises(SystemExit):
        words = [word.replace("^", " ") for word in arguments.split()]
        main(["collect", "user", *words, "--generate", "--database", str(tmp_path / "study.db")])
    out, err = capsys.readouterr()
    assert (out, reason in err) == ("", True)
    assert place.access.people() == people


@pytest.mark.parametrize("secret", ["", "s" * 32])
def test_an_invitation_of_the_command_line_opens_where_the_secret_is_the_same(
    place, tmp_path, capsys, monkeypatch, secret
):
    if secret:
        monkeypatch.setenv("GUERDON_SECRET", secret)
    else:
        monkeypatch.delenv("GUERDON_SECRET", raising=False)
    main(["collect", "user", "invite", "lead one", "--study", "one", "--database", str(tmp_path / "study.db")])
    out, err = capsys.readouterr()
    token = out.split("/invitation/")[1].split()[0]
    assert ("GUERDON_SECRET is not set" in err) == (not secret)
    assert Access(place.store, secret=secret).invitation(token).study == "one"
    assert Access(place.store, secret="another").invitation(token) is None


def test_bodies_that_are_wrong_in_form_are_refused(place):
    client = place.client("rater one")
    address = "/api/studies/one/judgements"
    for content in (
        b"",
        b"{",
        b"[" * 100_000,
        b'{"answers": [NaN]}',
        b"\xff\xfe",
        json.dumps({"answers": [[]]}).encode(),
    ):
        reply = client.post(address, content=content, headers={"content-type": "application/json"})
        assert reply.status_code < 500
    assert client.post(address, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    huge = b'{"answers": ["' + b"x" * 9_000_000 + b'"]}'
    assert client.post(address, content=huge, headers={"content-type": "application/json"}).status_code == 413
    assert place.client().get("/static/../app.py").status_code == 404
    assert place.client().get("/static/%2e%2e/%2e%2e/store.py").status_code == 404


def test_a_character_that_no_database_text_can_hold_is_refused(place):
    """PostgreSQL takes no NUL; wherever one stands it is the sender's mistake, and nothing is changed."""
    client = place.client("lead one")
    form = {"csrf": client.headers["x-csrf-token"], "text": "# Be\0fair", "action": "save"}
    before = place.store.guideline("one")
    assert client.post("/studies/one/guidelines/edit", data=form).status_code == 400
    assert client.get("/studies/o%00ne").status_code == 400
    assert client.get("/studies/one/judgements?rater=a%00b").status_code == 400
    assert place.store.guideline("one") == before


def test_the_audit_looks_at_every_pinned_version():
    folder = Path(__file__).parents[2]
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    planned = subprocess.run(["make", "-n", "audit"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert "pip-audit --strict --no-deps --disable-pip --requirement constraints.txt" in planned
    pins = (folder / "constraints.txt").read_text(encoding="utf-8").split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", pin) for pin in pins)  # else --no-deps would leave something out
