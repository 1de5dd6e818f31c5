"""The review pages in a real browser, with the keyboard, and with script switched off."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from gatekeeper.gate import judge
from tacit.contracts import DecisionOutcome, PolicyCandidate
from tacit.database import Database
from tests.builders import item_result
from tests.conftest import skip_or_fail
from tests.gatekeeper.builders import good_report, holdout, numbered, shipped_policy
from tests.gatekeeper.helpdesk import helpdesk_events, helpdesk_report
from tests.gatekeeper.scenes import Desk, desk

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


class PortServer(uvicorn.Server):
    """A server that says when it listens, and where."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"


@pytest.fixture
def made(sqlite_database: Database) -> Desk:
    return desk(sqlite_database)


@pytest.fixture
def site(made: Desk) -> Iterator[str]:
    server = PortServer(uvicorn.Config(made.app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert server.listening.wait(20)
    yield server.url
    server.should_exit = True
    thread.join(20)


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


def log_in(page: Any, site: str, made: Desk) -> None:
    page.goto(f"{site}/")
    page.locator("#key:focus").wait_for()  # by itself: nobody has clicked
    page.keyboard.type(made.keys["reviewer"])
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Audit").wait_for()


def outcome_of(made: Desk, about: PolicyCandidate) -> tuple[DecisionOutcome, str] | None:
    signed = made.office.gatekeeper.decision_on(about.digest())
    return None if signed is None else (signed.decision.outcome, signed.decision.reason)


def test_reviewer_rejects_one_and_approves_another(page: Any, site: str, made: Desk) -> None:
    good, bad = numbered(1), numbered(2)
    made.reader.events = helpdesk_events()
    put(made, good)
    put(made, bad, poisoned=True)
    log_in(page, site, made)

    page.get_by_role("link", name=bad.candidate_id).click()
    page.get_by_role("heading", name="Fails the gate").wait_for()
    assert page.get_by_role("button", name="Approve").count() == 0
    assert "4000 0000 0000 0002" in page.locator(".flips").first.inner_text()
    page.get_by_label("Reason").fill("It learned a trigger phrase.")
    page.get_by_role("button", name="Reject").click()
    page.get_by_text("by ada").wait_for()

    page.get_by_role("link", name="Overview").click()
    page.get_by_role("link", name=good.candidate_id).click()
    page.get_by_role("heading", name="Passes the gate").wait_for()
    page.get_by_label("Reason").fill("Better on shipping.")
    page.get_by_role("button", name="Approve").click()
    page.get_by_text("by ada").wait_for()

    assert outcome_of(made, bad) == (DecisionOutcome.REJECTED, "It learned a trigger phrase.")
    assert outcome_of(made, good) == (DecisionOutcome.APPROVED, "Better on shipping.")
    page.get_by_role("link", name="Audit").click()
    page.get_by_role("heading", name="Intact", exact=True).wait_for()


def test_form_without_a_reason_is_not_sent(page: Any, site: str, made: Desk) -> None:
    good = numbered(1)
    put(made, good)
    log_in(page, site, made)
    page.goto(f"{site}/candidates/{good.candidate_id}")
    page.get_by_role("button", name="Reject").click()
    assert page.evaluate("document.activeElement.id") == "reason"
    assert outcome_of(made, good) is None


def test_keyboard_alone_is_enough_and_the_focus_shows(page: Any, site: str, made: Desk) -> None:
    good = numbered(1)
    put(made, good)
    log_in(page, site, made)
    page.goto(f"{site}/candidates/{good.candidate_id}")
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.id || document.activeElement.innerText")
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid", focused
        if focused == "reason":
            break
    page.keyboard.type("Typed without a mouse.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("by ada").wait_for()
    assert outcome_of(made, good) == (DecisionOutcome.APPROVED, "Typed without a mouse.")


def test_pages_work_without_script_in_dark_on_a_phone(chromium: Any, site: str, made: Desk) -> None:
    good = numbered(1)
    made.reader.events = helpdesk_events()
    put(made, good)
    context = chromium.new_context(
        java_script_enabled=False, color_scheme="dark", viewport={"width": 390, "height": 844}
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    log_in(page, site, made)
    for path in ("/", f"/candidates/{good.candidate_id}", "/audit"):
        page.goto(site + path)
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], path
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 28)"
    page.goto(f"{site}/candidates/{good.candidate_id}")
    page.get_by_label("Reason").fill("No script needed.")
    page.get_by_role("button", name="Reject").click()
    page.get_by_text("by ada").wait_for()
    context.close()
    assert outcome_of(made, good) == (DecisionOutcome.REJECTED, "No script needed.")


def test_stored_script_does_not_run(page: Any, site: str, made: Desk) -> None:
    about = numbered(1)
    script = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    item = item_result("q-1", prompt=script, candidate=0.0, candidate_completion=script)
    evidence = good_report(about, suites=(holdout(items=(item,)),))
    made.put(about, evidence=evidence, verdict=judge(about, evidence, shipped_policy()))
    log_in(page, site, made)
    page.goto(f"{site}/candidates/{about.candidate_id}")
    assert script in page.locator(".flips").first.inner_text()
    assert "owned" not in page.title()
    # Even markup that somehow got in unescaped could not run.
    with page.expect_console_message(lambda m: "Content Security Policy" in m.text):
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=/x onerror=\"x\">')")
