"""The whole story in a real browser: qualify, judge by keyboard, lose the network, undo, rank, watch, export."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("starlette", reason="guerdon collect is an extra")

from guerdon.collect.events import judgement_for
from guerdon.collect.settings import Settings
from tests.collect.browser import chromium, faults
from tests.collect.web import PASSWORD, question, served, world

SETTINGS = Settings(repeats=0, gold=0, attention=0, overlap=2, attributes=("Truth",), edit=True, pass_mark=0.5)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = world(tmp_path_factory.mktemp("story"), SETTINGS)
    lesson = question("lesson", text="Which is **kind**?")
    place.store.add_questions(
        "one", [lesson], gold={"lesson": (1, 2)}, why={"lesson": "It answers *politely*."}, kind="training"
    )
    place.store.create_study("ranks", Settings(k=4, repeats=0, gold=0, attention=0, strength=False))
    place.store.add_questions("ranks", [question(f"r{i}", 4) for i in range(4)])
    place.access.join("rater one", "ranks", "ada")
    place.store.add_guideline("one", "# Guidelines\n\nPrefer the *true* answer.")
    return place


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(place):
    with served(place.store) as address:
        yield address


def sign_in(browser, address, name, **options):
    """Signed in; the content security policy is off unless asked, because axe-core is brought in as a script of the test's."""
    context = browser.new_context(**({"bypass_csp": True} | options))
    page = context.new_page()
    page.set_default_timeout(8000)
    page.goto(f"{address}/login")
    page.wait_for_function("document.hasFocus() && document.activeElement.id === 'name'")
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/studies")
    return page


def saved(page):
    page.wait_for_selector("#state[data-state=saved]")


def rate_all(page):
    """Every attribute by keyboard: into the group, then the arrow keys."""
    for position in range(page.locator("[data-card]").count()):
        page.locator(f'[name="rate-0-{position}"]').first.focus()
        page.keyboard.press("Space")


def asked(page):
    return page.locator(".turn.user").inner_text()


def test_a_rater_works_by_keyboard_alone(browser, address, place):
    page = sign_in(browser, address, "rater one")
    page.goto(f"{address}/studies/one/rate")
    page.wait_for_selector("[data-card]")  # the training item
    assert faults(page) == []
    assert "Training: 0 of 1" in page.inner_text("#count")
    kind = "Answer 0" in page.locator("[data-card]").first.inner_text()  # candidate 0 is the better one
    page.keyboard.press("1" if kind else "2")
    page.keyboard.press("k")
    rate_all(page)
    page.keyboard.press("Enter")
    page.wait_for_selector("#feedback")
    assert "Right." in page.inner_text("#feedback")
    assert "politely" in page.inner_text("#feedback")
    assert faults(page) == []
    page.keyboard.press("Enter")  # the feedback holds the focus
    page.wait_for_function("!document.querySelector('#feedback')")

    page.wait_for_selector("[data-card]")
    first = asked(page)
    page.keyboard.press("Enter")
    assert "Say which answer is better" in page.inner_text("#message")
    page.keyboard.press("2")
    page.keyboard.press("l")
    rate_all(page)
    page.keyboard.press("r")
    page.keyboard.type("It is truer.")
    page.reload()  # a draft survives
    page.wait_for_selector("[data-card]")
    assert asked(page) == first
    assert page.input_value("#rationale") == "It is truer."
    assert page.locator(".card.chosen").count() == 1
    page.keyboard.press("e")  # rewrite the winner
    page.wait_for_selector("#edited:not([disabled])")
    page.keyboard.type(" Better still.")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.wait_for_function("text => document.querySelector('.turn.user').innerText !== text", arg=first)
    saved(page)
    judgement = list(place.store.judgements("one"))[-1]
    assert judgement.ranks[judgement.order[1]] == 1
    assert (judgement.strength, judgement.rationale, judgement.guideline) == (3, "It is truer.", 1)
    assert "Better still." in judgement.edited
    assert judgement.shown_at <= judgement.first_input_at <= judgement.submitted_at

    page.keyboard.press("u")  # undo: the same question, the answer filled in
    page.wait_for_function("text => document.querySelector('.turn.user').innerText === text", arg=first)
    assert "replaces that answer" in page.inner_text("#again")
    assert faults(page) == []
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    page.wait_for_function("text => document.querySelector('.turn.user').innerText !== text", arg=first)
    assert page.locator("#again").count() == 0
    saved(page)
    page.wait_for_timeout(200)
    last = list(place.store.judgements("one"))[-1]
    assert (last.replaces, set(last.ranks)) == (judgement.id, {1.0})

    page.keyboard.press("s")  # skip wants a reason
    page.keyboard.type("I do not know the subject.")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("!document.querySelector('#why').open")
    page.wait_for_timeout(300)
    last = list(place.store.judgements("one"))[-1]
    assert (last.answer, last.rationale) == ("skip", "I do not know the subject.")
    page.keyboard.press("?")
    assert page.is_visible("#help")
    assert faults(page) == []
    page.context.close()


def test_answers_given_without_network_arrive_once(browser, address, place):
    page = sign_in(browser, address, "rater two")
    page.goto(f"{address}/studies/two/rate")
    page.wait_for_selector("[data-card]")
    page.wait_for_timeout(400)  # the next one is fetched
    page.context.set_offline(True)
    for _ in range(2):
        page.keyboard.press("b")
        rate_all(page)
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)
    page.wait_for_selector("#state[data-state=waiting]")
    assert "kept here" in page.inner_text("#state")
    assert place.store.counts("two").judgements == 0
    page.context.set_offline(False)
    saved(page)
    page.wait_for_selector("[data-card]")
    assert place.store.counts("two").judgements == 2
    assert place.store.counts("two").answers == {"all_bad": 2}
    page.context.close()


def test_ranking_four_answers_with_a_tie(browser, address, place):
    page = sign_in(browser, address, "rater one", viewport={"width": 320, "height": 640}, color_scheme="dark")
    page.goto(f"{address}/studies/ranks/rate")
    page.wait_for_selector("[data-card]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert faults(page) == []
    for pressed in ("3", "1", "=", "4", "Backspace", "=", "4", "2", "Enter"):
        page.keyboard.press(pressed)
    page.wait_for_timeout(300)
    judgement = next(iter(place.store.judgements("ranks")))
    assert [judgement.ranks[candidate] for candidate in judgement.order] == [2, 4, 1, 2]
    page.context.close()


def skipped(page):
    """Pairs of headings between which a level is left out."""
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter(h => h.checkVisibility()).map(h => +h.tagName[1])"
    )
    return [(a, b) for a, b in zip([0, *levels], levels, strict=False) if b > a + 1]


def test_the_pages_of_an_admin(browser, address, place):
    page = sign_in(browser, address, "ada")
    page.goto(f"{address}/studies/one/rate")
    page.wait_for_selector("[data-card]")
    assert "about 10 to go" in page.inner_text("#count") or "Training" in page.inner_text("#count")
    assert skipped(page) == []
    page.keyboard.press("g")
    assert skipped(page) == []
    for path in ("/studies", "/accounts", "/audit", "/account", "/studies/new", "/studies/one/guidelines"):
        page.goto(address + path)
        assert faults(page) == [], path
        assert skipped(page) == [], path
    for tab in (
        "",
        "/settings",
        "/guidelines/edit",
        "/people",
        "/import",
        "/quality",
        "/review",
        "/judgements?rater=rater one",
        "/export",
    ):
        page.goto(f"{address}/studies/one{tab}")
        assert page.inner_text("h1") == "one"
        assert faults(page) == [], tab
        assert skipped(page) == [], tab
    with page.expect_download() as download:
        page.click("text=All events")
    text = download.value.path().read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["judgement"] for line in lines} == {j.id for j in place.store.judgements("one")}
    page.context.close()


def test_what_takes_something_away_asks_first_and_can_be_undone(browser, address, place):
    page = sign_in(browser, address, "ada")
    place.access.add("guest", "rater", PASSWORD)
    place.access.join("guest", "two", "ada")
    guest = place.access.find("guest")
    page.goto(f"{address}/studies/two/people")
    row = page.locator("tr", has_text="guest")
    row.locator("summary", has_text="Take out").click()
    assert place.access.studies(guest) == ["two"]  # nothing yet, but the question
    assert faults(page) == []
    row.get_by_role("button", name="Take guest out").click()
    page.get_by_role("button", name="Put back guest").click()
    row.locator("summary", has_text="Take out").wait_for()
    assert place.access.studies(guest) == ["two"]
    row.locator("summary", has_text="Stop").click()
    row.get_by_role("button", name="Stop guest").click()
    row.get_by_role("button", name="Let in").wait_for()
    assert place.store.progress("two", "guest").state == "removed"

    page.goto(f"{address}/studies/two")
    page.locator("summary", has_text="Close").click()
    assert place.store.study("two").state == "open"
    page.get_by_role("button", name="Close the study").click()
    page.get_by_role("button", name="Open").click()
    page.get_by_role("button", name="Pause").wait_for()
    assert place.store.study("two").state == "open"

    page.goto(f"{address}/accounts")
    row = page.locator("tr", has_text="guest")
    row.locator("summary", has_text="Close").click()
    assert place.access.find("guest").active
    row.get_by_role("button", name="Close guest").click()
    row.get_by_role("button", name="Open").wait_for()
    assert not place.access.find("guest").active
    page.context.close()


@pytest.mark.parametrize("width", [320, 1280])
def test_a_long_name_does_not_push_the_numbers_out_of_sight(browser, address, place, width):
    name = "Wolfeschlegelsteinhausenbergerdorff" + "x" * 25
    given = place.store.next("two", name)
    ranks = tuple(map(float, range(len(given.order))))
    place.store.submit(judgement_for(given, f"long-{width}", answer="ranked", ranks=ranks), "two", assignment=given.id)
    page = sign_in(browser, address, "ada", viewport={"width": width, "height": 640})
    page.goto(f"{address}/studies/two")
    row = page.get_by_role("row", name=name)
    assert row.is_visible()
    overflow = "table => [table.parentElement.scrollWidth, table.parentElement.clientWidth]"
    scrolled, wide = page.locator("table.data", has=row).evaluate(overflow)
    assert scrolled <= wide
    page.context.close()


@pytest.mark.parametrize("width", [320, 390])
def test_no_page_is_wider_than_a_small_screen(browser, address, place, width):
    """Long names and many buttons: nothing but marked regions scrolls sideways, and buttons are within reach."""
    if place.access.find("rater of a name that goes on") is None:
        place.access.add("rater of a name that goes on", "rater", PASSWORD)
        place.access.join("rater of a name that goes on", "one", "ada")
    page = sign_in(browser, address, "ada", viewport={"width": width, "height": 640})
    studies = [f"/studies/one{tab}" for tab in ("", "/settings", "/guidelines/edit", "/people", "/import", "/export")]
    more = ["/studies/one/quality", "/studies/one/review", "/studies/one/judgements?rater=rater one"]
    for path in ("/studies", "/accounts", "/audit", "/account", "/studies/new", *studies, *more):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        outside = page.evaluate(
            "[...document.querySelectorAll('button')].filter(b => b.getBoundingClientRect().right > innerWidth).length"
        )
        assert outside == 0, path
        assert faults(page) == [], path
    page.goto(f"{address}/studies/ranks/rate")
    page.wait_for_selector("[data-card]")
    for pressed in ("3", "1", "=", "2"):
        page.keyboard.press(pressed)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    heights = page.evaluate("[...document.querySelectorAll('.card h2, .badge')].map(node => node.offsetHeight)")
    assert max(heights) < 30, "a label of an answer takes two lines"
    page.context.close()


def test_the_screen_works_under_its_own_content_security_policy(browser, address, place):
    page = sign_in(browser, address, "rater two", bypass_csp=False)
    said = []
    page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
    before = place.store.counts("two").judgements
    page.goto(f"{address}/studies/two/rate")
    page.wait_for_selector("[data-card]")
    first = asked(page)
    page.keyboard.press("1")
    page.keyboard.press("k")
    rate_all(page)
    page.keyboard.press("Enter")
    page.wait_for_function("text => document.querySelector('.turn.user').innerText !== text", arg=first)
    saved(page)
    assert place.store.counts("two").judgements == before + 1
    assert said == []
    page.context.close()
