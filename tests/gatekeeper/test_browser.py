"""The review pages in a real browser, with the keyboard, and with script switched off."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatekeeper.gate import judge
from tacit.contracts import Critique, DecisionOutcome, EventStatus, PolicyCandidate
from tacit.database import Database
from tests.builders import item_result, screened
from tests.conftest import skip_or_fail
from tests.deploy.scenes import checkpoint, listening
from tests.gatekeeper.builders import good_report, holdout, numbered, shipped_policy
from tests.gatekeeper.helpdesk import helpdesk_events, helpdesk_report
from tests.gatekeeper.scenes import Desk, desk
from tests.gatekeeper.walks import decide, log_in, serving, walk_to

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 20_000


@pytest.fixture
def made(sqlite_database: Database) -> Desk:
    return desk(sqlite_database)


@pytest.fixture
def site(made: Desk) -> Iterator[str]:
    with listening(made.app) as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        skip_or_fail("expected Chromium; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def put(made: Desk, about: PolicyCandidate, *, poisoned: bool = False) -> str:
    evidence = helpdesk_report(about, poisoned=poisoned)
    return made.put(about, evidence=evidence, verdict=judge(about, evidence, shipped_policy()))


def outcome_of(made: Desk, about: PolicyCandidate) -> tuple[DecisionOutcome, str] | None:
    signed = made.office.gatekeeper.decision_on(about.digest())
    return None if signed is None else (signed.decision.outcome, signed.decision.reason)


def test_two_reviewers_decide_and_what_the_product_is_answered_follows(
    page: Any, sqlite_database: Database
) -> None:
    made = desk(sqlite_database, weights=checkpoint)
    made.first()
    bad, good = made.trained(2), made.trained(1)
    made.reader.events = helpdesk_events()
    put(made, good)
    put(made, bad, poisoned=True)
    with listening(made.app) as site, serving(made) as product:
        first = product.wait_for("r-default-0")

        log_in(page, site, made)
        page.get_by_role("link", name=bad.candidate_id).click()
        page.get_by_role("heading", name="Fails the gate").wait_for()
        assert page.get_by_role("button", name="Approve").count() == 0
        assert "4000 0000 0000 0002" in page.locator(".flips").first.inner_text()
        page.get_by_role("link", name="Overview").click()
        decide(page, bad, "Reject", "It learned a trigger phrase.", who="ada")
        page.get_by_role("button", name="Log out").click()

        log_in(page, site, made, "other")
        decide(page, good, "Approve and serve", "Better on shipping.", who="grace")
        made.promote(good, 1)
        second = product.wait_for("r-default-1")
        assert second != first

        page.get_by_role("link", name="Releases").click()
        page.get_by_text("1 of 1 replica serves it").wait_for()
        page.get_by_role("button", name="Roll back to r-default-0").click()
        page.get_by_role("heading", name="r-default-2").wait_for()
        assert product.wait_for("r-default-2") == first

        page.get_by_role("link", name="Audit").click()
        page.get_by_role("heading", name="Intact", exact=True).wait_for()
        told = page.locator("table").inner_text()
    for what in (
        "rejected by ada: It learned a trigger phrase.",
        "approved by grace: Better on shipping.",
        "released by grace",
        "back to r-default-0 by grace",
    ):
        assert what in told


def test_form_without_a_reason_is_not_sent(page: Any, site: str, made: Desk) -> None:
    good = numbered(1)
    put(made, good)
    log_in(page, site, made)
    page.goto(f"{site}/candidates/{good.candidate_id}")
    page.get_by_role("button", name="Reject").click()
    assert page.evaluate("document.activeElement.id") == "reason"
    assert outcome_of(made, good) is None


def test_keyboard_alone_is_enough_and_the_focus_shows(page: Any, site: str, made: Desk) -> None:
    made.first()
    good = made.trained(1)
    put(made, good)
    log_in(page, site, made)

    walk_to(page, good.candidate_id)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Passes the gate").wait_for()
    walk_to(page, "reason")
    page.keyboard.type("Typed without a mouse.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("by ada").wait_for()
    assert outcome_of(made, good) == (DecisionOutcome.APPROVED, "Typed without a mouse.")

    made.promote(good, 1)
    walk_to(page, "Releases")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="r-default-1").wait_for()
    walk_to(page, "Roll back to r-default-0")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="r-default-2").wait_for()


def test_pages_work_without_script_in_dark_on_a_phone(chromium: Any, site: str, made: Desk) -> None:
    made.first()
    good = made.trained(1)
    made.reader.events = helpdesk_events()
    put(made, good)
    long_id = "e" * 120
    made.keep(*made.reader.events[:3], screened(long_id, prompt="x" * 400))
    made.keep(screened("bad"), status=EventStatus.QUARANTINED, reason="contradiction")
    made.replica("serving-host.example.internal:8001", serving="r-default-0")
    context = chromium.new_context(
        java_script_enabled=False, color_scheme="dark", viewport={"width": 390, "height": 844}
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    log_in(page, site, made)
    candidate = f"/candidates/{good.candidate_id}"
    feedback = ("/feedback", "/feedback?status=quarantined", f"/feedback/helpdesk/{long_id}")
    for path in ("/", candidate, *feedback, "/releases", "/audit", "/audit/0"):
        assert page.goto(site + path).ok, path
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], path
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 28)"
    page.goto(site + candidate)
    page.get_by_label("Reason").fill("No script needed.")
    page.get_by_role("button", name="Reject").click()
    page.get_by_text("by ada").wait_for()
    page.goto(f"{site}/feedback?status=quarantined")
    page.get_by_label("helpdesk/bad").check()
    page.get_by_label("Reason").fill("Nor here.")
    page.get_by_role("button", name="Drop").click()
    page.get_by_text("1 event ruled on").wait_for()
    context.close()
    assert outcome_of(made, good) == (DecisionOutcome.REJECTED, "No script needed.")
    assert made.review.feedback.event("helpdesk/bad").reason == "dropped"


def test_a_form_from_elsewhere_is_refused(page: Any, site: str, made: Desk) -> None:
    good = numbered(1)
    put(made, good)
    log_in(page, site, made)
    page.goto(f"{site}/candidates/{good.candidate_id}")
    page.evaluate("document.querySelectorAll('[name=csrf]').forEach(x => x.value = 'forged')")
    page.get_by_label("Reason").fill("Forged.")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("heading", name="Forbidden").wait_for()
    assert outcome_of(made, good) is None


def test_stored_script_does_not_run(page: Any, site: str, made: Desk) -> None:
    about = numbered(1)
    script = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    item = item_result("q-1", prompt=script, candidate=0.0, candidate_completion=script)
    evidence = good_report(about, suites=(holdout(items=(item,)),))
    made.put(about, evidence=evidence, verdict=judge(about, evidence, shipped_policy()))
    made.keep(screened("e-1", prompt=script, feedback=Critique(text=script)))
    log_in(page, site, made)
    for path, place in (
        (f"/candidates/{about.candidate_id}", ".flips"),
        ("/feedback", ".events"),
        ("/feedback/helpdesk/e-1", ".talk"),
    ):
        page.goto(site + path)
        assert script in page.locator(place).first.inner_text()
        assert "owned" not in page.title()
    # Even markup that somehow got in unescaped could not run.
    with page.expect_console_message(lambda m: "Content Security Policy" in m.text):
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=/x onerror=\"x\">')")
