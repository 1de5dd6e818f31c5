"""What walks in a browser share: the steps of a reviewer, and a product that asks the policy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from deploy.server import create_app
from tacit.config import load_settings
from tacit.contracts import PolicyCandidate
from tacit.keys import KeyStore
from tests.deploy.scenes import listening, until
from tests.gatekeeper.scenes import Desk

ASKED = [{"role": "user", "content": "where is it"}]


def log_in(page: Any, site: str, made: Desk, who: str = "reviewer") -> None:
    """Log in by keyboard with the key of ``who``."""
    page.goto(f"{site}/")
    page.locator("#key:focus").wait_for()  # by itself: nobody has clicked
    page.keyboard.type(made.keys[who])
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Audit").wait_for()


def decide(page: Any, about: PolicyCandidate, button: str, reason: str, *, who: str) -> None:
    """From the overview to the candidate, and the decision on it."""
    page.get_by_role("link", name=about.candidate_id).click()
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=button).click()
    page.get_by_text(f"by {who}").wait_for()


def walk_to(page: Any, name: str) -> None:
    """Press Tab until ``name`` has the focus; whatever has it on the way shows that."""
    for _ in range(60):
        page.keyboard.press("Tab")
        here = "document.activeElement"
        focused = page.evaluate(f"{here}.id || {here}.innerText")
        assert page.evaluate(f"getComputedStyle({here}).outlineStyle") == "solid", focused
        if name in focused:
            return
    raise AssertionError(f"no {name} in 60 steps")


class Product:
    """What a product that asks the policy is answered."""

    def __init__(self, url: str, made: Desk) -> None:
        self._url = url
        self._made = made

    def wait_for(self, release_id: str) -> str:
        """Its answer once ``release_id`` serves, with the version that gave it."""
        until(lambda: httpx.get(f"{self._url}/readyz").text.find(release_id) >= 0)
        answer = httpx.post(
            f"{self._url}/v1/chat/completions",
            headers={"Authorization": f"Bearer {self._made.keys['sender']}"},
            json={"model": "default", "temperature": 0, "messages": ASKED},
            timeout=60,
        )
        told = answer.raise_for_status().json()
        return f"{told['model']}: {told['choices'][0]['message']['content']}"


@contextmanager
def serving(made: Desk) -> Iterator[Product]:
    """The serving API on what ``made`` releases, with tiny policies."""
    settings = load_settings(
        home=made.checkpoints.root.parent,
        overrides=["deploy.poll_s=0.05", "deploy.heartbeat_s=0.2", "deploy.device=cpu"],
    )
    app = create_app(
        settings,
        db=made.office.db,
        store=made.checkpoints,
        verifier=made.office.signer,
        keys=KeyStore(made.office.db),
        record=lambda _: None,
    )
    with listening(app) as url:
        yield Product(url, made)
