"""Logging in and filling in the forms of the review pages, as a browser without script does."""

import re
from typing import Any

from fastapi.testclient import TestClient

from tests.gatekeeper.scenes import Desk


def token(page: str) -> str:
    """The CSRF token of a form."""
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]


def log_in(client: TestClient, made: Desk, who: str = "reviewer", *, target: str = "/") -> Any:
    """Log in with the key of ``who``; the answer to the form."""
    csrf = token(client.get("/login").text)
    return client.post("/login", data={"key": made.keys[who], "csrf": csrf, "next": target})


def decision_form(page: str, **fields: str) -> dict[str, str]:
    """The fields of the form on a candidate's page, filled in to approve."""
    seen = re.search(r'name="verdict_digest" value="([^"]+)"', page)
    assert seen
    form = {"csrf": token(page), "verdict_digest": seen[1], "outcome": "approved", "reason": "good"}
    return {**form, **fields}
