"""The web application as seen by a client: who gets what, and what happens to an answer."""

from __future__ import annotations

import html
import json
import re
import shlex
import time
import uuid

import pytest

pytest.importorskip("starlette", reason="guerdon collect is an extra")

from guerdon.cli import main
from guerdon.collect.settings import Settings
from guerdon.collect.web.app import PATHS, Serving, application
from guerdon.data.export import JUDGED, LABELLED
from guerdon.types import Judgement
from tests.collect.web import ORIGIN, PASSWORD, World, csrf, question, world


@pytest.fixture
def place(tmp_path) -> World:
    return world(tmp_path)


def get(client, path):
    return client.get(path.format(study="one", token="nothing"))


PEOPLE = {
    "": set(),
    "rater one": {"anyone", "person", "study"},
    "lead one": {"anyone", "person", "study", "lead", "begin"},
}
PEOPLE["ada"] = PEOPLE["lead one"] | {"admin"}
PEOPLE["rater two"] = {"anyone", "person"}
PEOPLE["lead two"] = {"anyone", "person", "begin"}


@pytest.mark.parametrize("name", PEOPLE)
def test_every_path_lets_in_whom_its_rule_names_and_nobody_else(place, name):
    client = place.client(name)
    for method, path, rule, _ in PATHS:
        if path in ("/logout",):
            continue
        address = path.format(study="one", token="nothing")
        reply = client.get(address) if method == "GET" else client.post(address, data={"x": "1"})
        inside = rule in PEOPLE[name] or (rule == "anyone")
        if inside:
            assert reply.status_code not in (401, 404) or path == "/login", (name, method, path, reply.text)
        elif method == "GET" and not name and not path.startswith("/api/"):
            assert reply.status_code == 303
            assert reply.headers["location"].startswith("/login")
        else:
            expected = (403,) if not name and method == "POST" else (401, 404)
            assert reply.status_code in (*expected, 401, 404), (name, method, path)


def answer(question, ranks=(1, 2), **more):
    return {
        "id": str(uuid.uuid4()),
        "assignment": question["assignment"],
        "answer": "ranked",
        "ranks": list(ranks),
        **more,
    }


def send(client, *answers, study="one"):
    return client.post(f"/api/studies/{study}/judgements", json={"answers": list(answers)})


def ask(client, held=""):
    return client.get(f"/api/studies/one/next?held={held}").json()["question"]


def test_an_answer_is_stored_by_candidate_whatever_side_it_stood_on(place):
    client = place.client("rater one")
    for _ in range(4):
        question = ask(client)
        assert (
            send(client, answer(question, strength=2, rationale="clear", shown_at=1.8e9)).json()["results"][0]["status"]
            == "stored"
        )
    for judgement in place.store.judgements("one"):
        assert judgement.ranks[judgement.order[0]] == 1
        assert (judgement.rater, judgement.strength, judgement.rationale) == ("rater one", 2, "clear")


def test_a_repeated_delivery_is_one_judgement(place):
    client = place.client("rater one")
    one = answer(ask(client))
    assert [send(client, one).json()["results"][0]["status"] for _ in range(3)] == ["stored", "known", "known"]
    assert place.store.counts("one").judgements == 1


def test_the_next_question_comes_ahead_and_is_another(place):
    client = place.client("rater one")
    first = ask(client)
    second = ask(client, str(first["assignment"]))
    assert second["prompt"] != first["prompt"]
    assert ask(client)["assignment"] in (first["assignment"], second["assignment"])


def test_what_is_left_is_told_in_fives_so_that_no_hidden_item_shows(place):
    client = place.client("rater one")
    said = [client.get("/api/studies/one/next").json()["progress"]["left"]]
    assert "about 10 to go" in client.get("/studies").text
    said.append(send(client, answer(ask(client))).json()["progress"]["left"])
    assert "a few to go" in client.get("/studies").text
    said += [send(client, answer(ask(client))).json()["progress"]["left"] for _ in range(5)]
    assert said == [10, 5, 5, 5, 5, 5, 0]
    assert "to go" not in client.get("/studies").text


def test_undo_replaces_and_keeps_the_old_event(place):
    client = place.client("rater one")
    question, first = (q := ask(client)), answer(q)
    send(client, first)
    again = answer(question, (2, 1), replaces=first["id"])
    assert send(client, again).json()["results"][0]["status"] == "stored"
    assert [j.id for j in place.store.current("one")] == [again["id"]]
    assert [j.id for j in place.store.judgements("one")] == [first["id"], again["id"]]


def test_nothing_sent_to_a_rater_tells_kind_source_or_candidate(place):
    text = json.dumps(ask(place.client("rater one")))
    for word in ("arm", "gold", "probability", "order", "models", "source", "one-", "rater"):
        assert f'"{word}' not in text


def test_names_of_models_are_hidden_and_logged_once(place):
    place.store.create_study("three", Settings(repeats=0, gold=0, attention=0, overlap=2))
    place.store.add_questions("three", [question("q", answer="I am ChatGPT, answer {} to {}, as ChatGPT.")])
    for name in ("rater one", "lead one"):
        place.access.join(name, "three", "ada")
        text = place.client(name).get("/api/studies/three/next").text
        assert "ChatGPT" not in text
        assert "[hidden]" in text
    assert place.store.masked("three") == [("q", "candidate:0", "ChatGPT", 2), ("q", "candidate:1", "ChatGPT", 2)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ranks": [1]}, "2 numbers"),
        ({"ranks": [1, float("inf")]}, "2 numbers"),
        ({"answer": "best"}, "must be one of"),
        ({"strength": 7}, "1, 2 or 3"),
        ({"assignment": 10**12}, "names no question"),
        ({"assignment": 9999}, "not given to you"),
        ({"id": "x' OR 1=1"}, "UUID"),
        ({"rationale": "x" * 20_000}, "at most"),
        ({"attributes": {"evil\ud800": [1, 2]}}, "attributes of this study: it has none"),
        ({"id": "evil\ud800"}, "UUID"),
    ],
)
def test_an_answer_that_cannot_be_read_is_refused_with_the_reason(place, change, reason):
    client = place.client("rater one")
    sent = json.dumps({"answers": [answer(ask(client)) | change]})
    result = client.post(
        "/api/studies/one/judgements", content=sent, headers={"content-type": "application/json"}
    ).json()
    assert result["results"][0]["status"] == "refused"
    assert reason in result["results"][0]["reason"]
    assert place.store.counts("one").judgements == 0


def test_what_was_an_attribute_when_it_was_asked_is_stored(place):
    place.store.change_settings("one", Settings(attributes=("clear", "true")))
    client = place.client("rater one")
    one, two = answer(ask(client), attributes={"clear": [5, 1]}), answer(ask(client), attributes={"kind": [5, 1]})
    place.store.change_settings("one", Settings(attributes=("true",)))
    assert send(client, two).json()["results"][0]["reason"].endswith("of this study: clear, true")
    assert send(client, one).json()["results"][0]["status"] == "stored"


def test_numbers_that_no_database_holds_are_no_failure(place):
    client, lead = place.client("rater one"), place.client("lead one")
    for held in ("99999999999999999999", str(2**31), str(2**63), "1," * 1000):
        assert client.get("/api/studies/one/next", params={"held": held}).status_code == 200
    form = {"csrf": lead.headers["x-csrf-token"]}
    for name in ("overlap", "give_up", "limit", "lock_seconds", "repeat_after", "attempts", "seed"):
        for digits in ("9" * 10, "9" * 20, "9" * 40, "-" + "9" * 40):
            reply = lead.post("/studies/one/settings", data=form | {name: digits})
            assert reply.status_code == (303 if (name, len(digits)) == ("seed", 10) else 400), (name, digits)


def test_only_an_import_may_be_large(place):
    """The token is in the body, so what is read before it is looked at must be little."""
    lead, many = place.client("lead one"), b"x" * 3_000_000
    lead.headers.pop("x-csrf-token")
    for method, path, rule, _ in PATHS:
        if method == "POST" and rule != "admin":
            reply = lead.post(path.format(study="one", token="x"), files={"file": ("q.jsonl", many)})
            assert reply.status_code == (403 if path.endswith("/import") else 413), path


def test_a_rater_cannot_answer_or_read_what_was_given_to_another(place):
    place.access.add("rater three", "rater", PASSWORD)
    place.access.join("rater three", "one", "ada")
    mine, other = ask(place.client("rater one")), place.client("rater three")
    assert send(other, answer(mine)).json()["results"][0]["reason"] == "this question was not given to you"
    assert send(place.client("rater two"), answer(mine), study="one").status_code == 404
    assert send(place.client("rater two"), answer(mine), study="two").json()["results"][0]["status"] == "refused"
    assert place.store.counts("one").judgements == 0


def test_pages_of_a_lead_work_and_change_what_they_say(place):
    client = place.client("lead one")
    form = {"csrf": client.headers["x-csrf-token"]}
    assert (
        client.post("/studies/one/guidelines/edit", data=form | {"text": "# Be fair", "action": "save"}).status_code
        == 303
    )
    assert place.store.guideline("one") == (1, "# Be fair")
    changed = form | {"overlap": "3", "attributes": "truth\nstyle", "strength": "on", "ties": "on", "all_bad": "on"}
    assert client.post("/studies/one/settings", data=changed).status_code == 303
    assert place.store.study("one").settings.attributes == ("truth", "style")
    assert place.store.study("one").settings.overlap == 3
    assert "must be a number" in client.post("/studies/one/settings", data=form | {"overlap": "x"}).text
    refused = client.post("/studies/one/settings", data=form | {"give_up": "0"}).text
    assert "<p>“Give up after” is 0; write 1 or more.</p>" in refused
    broken = client.post("/studies/one/import", data=form, files={"file": ("my-rows.jsonl", "{")})
    assert "<p>my-rows.jsonl:1: " in broken.text
    rows = json.dumps({"prompt": "New?", "completions": ["a", "b"]})
    reply = client.post("/studies/one/import", data=form, files={"file": ("q.jsonl", rows)})
    assert "1 normal questions added" in reply.text
    assert client.post("/studies/one/state", data=form | {"state": "paused"}).status_code == 303
    assert place.store.study("one").state == "paused"
    for page in ("", "/people", "/quality", "/review", "/export", "/import", "/settings", "/guidelines/edit"):
        assert client.get(f"/studies/one{page}").status_code == 200
    assert {event.action for event in place.access.events(study="one")} >= {
        "guidelines changed",
        "settings changed",
        "questions imported",
    }


def test_the_quality_page_says_what_the_judgements_are_worth(place):
    clients = [place.client("rater one"), place.client("lead one")]
    for _ in range(4):
        for client in clients:
            send(client, answer(ask(client), strength=2))
    lead = clients[1]
    for _ in range(100):
        page = lead.get("/studies/one/quality").text
        if "being computed" not in page:
            break
        time.sleep(0.1)
    assert "No numbers" not in page
    assert "alpha" in page
    assert "From 8 judgements that stand" in page
    table = page.split("very fast")[1]
    assert re.search(r'<th scope="row">rater one</th><td class="number">4</td>', table)
    assert lead.get("/studies/one/review").status_code == 200
    models = lead.get("/studies/one/quality?raters=model").text
    assert "From 0 judgements that stand" in models
    assert "rater one" not in models  # people are never mixed with models


def test_a_page_that_was_looked_at_too_early_does_not_stay_empty(place):
    lead, rater = place.client("lead one"), place.client("rater one")
    assert "Nobody has judged anything yet" in lead.get("/studies/one/quality").text
    send(rater, answer(ask(rater)))
    for _ in range(100):
        page = lead.get("/studies/one/quality").text
        assert "Nobody has judged" not in page
        if "being computed" not in page:
            break
        time.sleep(0.1)
    assert "From 1 judgements that stand" in page


def test_a_refusal_leads_back_and_names_no_file(place):
    lead, rater = place.client("lead one"), place.client("rater one")
    for path, status in (("/studies/one/nothing", 404), ("/accounts", 404), ("/studies/one/guidelines?version=7", 404)):
        page = lead.get(path)
        assert (page.status_code, "Sign out" in page.text, ">lead one</a>" in page.text) == (status, True, True)
    question = ask(rater)
    send(rater, answer(question))
    reason = send(rater, answer(question)).json()["results"][0]["reason"]
    assert "its question was answered by" in reason
    assert "one-" not in reason  # ids of questions, which may be `gold.jsonl:1`


def test_training_that_has_not_begun_is_said_to_be_so(place):
    items = [question(f"t{i}", text="Which?") for i in range(2)]
    place.store.add_questions("one", items, kind="training", gold={item.id: (0, 1) for item in items})
    page = place.client("lead one").get("/studies/one/people").text
    assert "0 right of 0" not in page
    assert "not begun" in page


def test_the_review_list_has_one_entry_for_a_rater_with_all_reasons_and_leads_to_the_judgements(place):
    """A rater who fails gold items and attention checks, and a lead who does not."""
    store = place.store
    for kind, number in (("gold", 12), ("attention", 2)):
        items = [question(f"{kind}{i}", text=f"{kind} {i} <b>?") for i in range(number)]
        store.add_questions("one", items, gold={item.id: (1, 2) for item in items}, kind=kind)
        for item in items:
            for rater, ranks in (("rater one", (2, 1)), ("lead one", (1, 2))):
                order, id = (1, 0), f"{item.id} {rater}"
                store.submit(Judgement(id, rater, "human", item, order, "ranked", ranks, strength=2, arm=kind), "one")
    lead = place.client("lead one")
    while "being computed" in (page := lead.get("/studies/one/review").text):
        time.sleep(0.1)
    assert page.count("<h2>rater one</h2>") == 1
    assert "<h2>lead one</h2>" not in page
    assert "0% of 12 gold items right" in page
    assert "failed 2 attention checks" in page
    address = re.search(r'href="(/studies/one/judgements\?rater=[^"]*)"', page)[1]
    found = lead.get(address).text
    assert found.count("strength 2") == 14
    shown = found.split("attention 1 &lt;b&gt;?")[1].partition("</ol>")[0]
    ranks = re.findall(r"<b>(\w+)</b>: (Answer \d)", shown)
    assert ranks == [("1st", "Answer 1"), ("2nd", "Answer 0")]  # in the order shown
    assert "1 entry on the" in lead.get("/studies/one/quality").text
    assert "Nobody of that name" in lead.get("/studies/one/judgements?rater=nobody").text
    assert place.client("rater one").get(address).status_code == 404


def test_an_export_holds_every_judgement(place):
    client = place.client("rater one")
    sent = [answer(ask(client)) for _ in range(1)]
    send(client, *sent)
    lines = place.client("lead one").get("/studies/one/export/download?which=raw").text.splitlines()
    assert [json.loads(line)["judgement"] for line in lines] == [sent[0]["id"]]


def test_every_format_is_on_the_page_and_is_what_the_command_on_it_writes(place, tmp_path):
    raters = [place.client("rater one"), place.client("lead one")]
    for _ in range(4):
        for client in raters:
            send(client, answer(ask(client), strength=2))
    lead = raters[1]
    page = lead.get("/studies/one/export").text
    commands = [html.unescape(text) for text in re.findall(r"<code class=\"copy\">guerdon (.*?)</code>", page)]
    assert len(commands) == len({*JUDGED, *LABELLED})
    for format in (*JUDGED, *LABELLED):
        if format != "judgements":
            assert f"<option>{format}</option>" in page
        asked = {"format": format, "drop": ["strength", "annotator"]}
        found = lead.get("/studies/one/export/download", params=asked)
        assert found.status_code == 200, found.text
        file = tmp_path / f"{format}.jsonl"
        ending = f"--format {format} --output one.{format}.jsonl"
        (command,) = (command for command in commands if command.endswith(ending))
        said = command.replace(f"one.{format}.jsonl", str(file))
        main([*shlex.split(said), "--drop", "strength", "annotator"])
        assert found.text == file.read_text(encoding="utf-8")
        assert found.text.count("\n") >= 4
    refused = lead.get("/studies/one/export/download?format=openai")
    assert (refused.status_code, "no place for one" in refused.text) == (400, True)
    assert lead.get("/studies/one/export/download?format=openai&skip_unsupported=1").text == ""
    assert "8 has a strength" in lead.get("/studies/one/export").text


def test_an_invitation_works_once_and_lets_into_its_study_only(place):
    lead = place.client("lead one")
    page = lead.post("/studies/one/people/invite", data={"csrf": lead.headers["x-csrf-token"], "role": "rater"}).text
    address = page.split("/invitation/")[1].split("<")[0].strip()
    guest = place.client()
    form = {
        "name": "new one",
        "password": PASSWORD,
        "again": PASSWORD,
        "csrf": csrf(guest.get(f"/invitation/{address}").text),
    }
    assert guest.post(f"/invitation/{address}", data=form).status_code == 303
    person = place.access.find("new one")
    assert person is not None
    assert (person.role, place.access.studies(person)) == ("rater", ["one"])
    assert place.client().get(f"/invitation/{address}").status_code == 410


def test_a_lead_adds_an_account_takes_it_out_and_puts_it_back(place):
    lead = place.client("lead one")
    form = {"csrf": lead.headers["x-csrf-token"]}
    person = place.access.find("rater two")
    assert "rater two" not in lead.get("/studies/one/people").text  # only an admin is told the names of others
    assert "option>rater two</option" in place.client("ada").get("/studies/one/people").text

    assert lead.post("/studies/one/people/add", data=form | {"name": " rater  two "}).status_code == 303
    assert place.access.studies(person) == ["one", "two"]
    assert "Taken out" not in lead.get("/studies/one/people").text
    assert lead.post("/studies/one/people/remove", data=form | {"name": "rater two"}).status_code == 303
    assert place.access.studies(person) == ["two"]
    page = lead.get("/studies/one/people").text.partition("Taken out</h2>")[2]
    assert 'name="name" value="rater two"' in page
    assert lead.post("/studies/one/people/add", data=form | {"name": "rater two"}).status_code == 303
    assert place.access.studies(person) == ["one", "two"]

    refused = lead.post("/studies/one/people/add", data=form | {"name": "nobody"})
    assert (refused.status_code, "There is no account" in refused.text) == (400, True)
    assert lead.post("/studies/two/people/add", data=form | {"name": "lead one"}).status_code == 404
    assert [event.action for event in place.access.events(3, study="one")] == [
        "joined a study", "left a study", "joined a study"
    ]  # fmt: skip


def test_every_response_carries_the_headers(place):
    for path in ("/login", "/static/rate.js", "/nothing", "/api/studies/one/next"):
        headers = place.client().get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_a_host_that_is_not_ours_is_refused(place):
    from starlette.testclient import TestClient

    client = TestClient(
        application(place.store, Serving(hosts=frozenset({"localhost"}))), base_url="http://evil.example"
    )
    assert client.get("/login").status_code == 421


def test_the_cookie_is_for_this_host_and_no_script(place):
    from starlette.testclient import TestClient

    client = TestClient(application(place.store, Serving(secure=True)), base_url=ORIGIN.replace("http", "https"))
    cookie = client.get("/login").headers["set-cookie"]
    assert cookie.startswith("__Host-guerdon=")
    assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
