"""Every route of control against keys that must not get in: none, of products, of other lines."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gatekeeper.ledger import Ledger
from tacit.config import load_settings
from tacit.control import create_control
from tacit.database import Database
from tacit.keys import KeyStore, Scope
from tacit.signing import Signer

OPEN = {"/healthz", "/readyz", "/metrics"}
"""Anybody on this machine may ask; they tell no more than numbers."""
SENDING = re.compile(r"/v1/(feedback|webhooks)\b")
"""What products may call; what they may say there is tested with the collector."""
LEDGER = re.compile(r"/v1/ledger\b")
"""One for all policy lines, since it verifies only as a whole."""
PATH_VALUES = {
    "candidate_id": "c-0123456789ab",
    "event_id": "e-1",
    "source": "helpdesk",
    "letter": "embedded:0:0",
    "name": "ops",
    "endpoint": "nowhere",
}
QUERIES = {"/v1/lineage": "of=u-1", "/v1/ledger/proofs": "about=1", "/v1/ledger/growth": "first=1"}


def body_of(path: str) -> dict[str, Any]:
    if path.startswith("/v1/dead-letters"):
        return {"all": True}
    if path.startswith("/v1/quarantine"):
        return {"events": ["helpdesk/e-1"], "why": "x"}
    if path.endswith("/tokens"):
        return {"outcome": "approved", "reason": "x"}
    return {} if path in {"/v1/consolidation"} or "/gate/" in path else {"reason": "x"}


class Doors:
    """The control application and a client without a key."""

    def __init__(self, home: Path) -> None:
        settings = load_settings(home=home)
        database = Database(settings.resolved_database_url)
        database.migrate()
        ledger = Ledger(database, Signer.load_or_create(settings.signing_path))
        self.keys = KeyStore(database, journal=ledger.append)
        self.client = TestClient(create_control(settings))

    def all(self) -> list[tuple[str, str]]:
        """Method and path of every route, with something in each place of a path."""
        paths = self.client.get("/openapi.json").json()["paths"]
        return [
            (method.upper(), re.sub(r"\{(\w+)\}", lambda m: PATH_VALUES[m[1]], path))
            for path, methods in paths.items()
            for method in methods
        ]

    def knock(self, method: str, path: str, key: str | None) -> int:
        """The status that a well-formed request gets."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        body = {} if method == "GET" else {"json": body_of(path)}
        asked = f"{path}?{QUERIES.get(path, '')}"
        return self.client.request(method, asked, headers=headers, **body).status_code


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    made = Doors(tmp_path_factory.mktemp("home"))
    with made.client:
        yield made


def test_without_a_key_every_route_is_shut(doors: Doors) -> None:
    shut = [door for door in doors.all() if door[1] not in OPEN and not SENDING.match(door[1])]
    assert len(shut) > 25
    assert {door: doors.knock(*door, None) for door in shut} == dict.fromkeys(shut, 401)


@pytest.mark.parametrize("who", ["product", "reader"])
def test_a_key_gets_no_further_than_its_scopes(doors: Doors, who: str) -> None:
    scopes = {"product": {Scope.SEND}, "reader": {Scope.READ}}[who]
    key = doors.keys.create(who, scopes=scopes)
    rest = [door for door in doors.all() if door[1] not in OPEN and not SENDING.match(door[1])]
    if who == "reader":
        rest = [
            (method, path) for method, path in rest if method == "POST" and "dry-run" not in path
        ]
    assert len(rest) > 10
    found = {door: doors.knock(*door, key) for door in rest}
    assert {
        door: status
        for door, status in found.items()
        if status != 403 and not _unknown(door, status)
    } == {}


def test_an_admin_of_another_policy_line_gets_in_nowhere(doors: Doors) -> None:
    key = doors.keys.create("eve", scopes={Scope.ADMIN}, policy="other")
    rest = [
        door
        for door in doors.all()
        if door[1] not in OPEN and not SENDING.match(door[1]) and not LEDGER.match(door[1])
    ]
    found = {door: doors.knock(*door, key) for door in rest}
    assert {
        door: status
        for door, status in found.items()
        if status != 403 and not _unknown(door, status)
    } == {}


def _unknown(door: tuple[str, str], status: int) -> bool:
    """Whose line a candidate is on is known once there is one."""
    return status == 404 and PATH_VALUES["candidate_id"] in door[1]


def test_no_page_of_control_loads_a_script(doors: Doors) -> None:
    page = doors.client.get("/docs")
    assert "script" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "GET /v1/candidates/{candidate_id}" in page.text
    assert "What became of an event" in page.text
    assert doors.client.get("/redoc").status_code == 404
