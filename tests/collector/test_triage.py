"""The triage routes: who may look, what is shown, and how a selection becomes a set of letters."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from collector.ingest import feedback_topic
from collector.triage.routes import create_triage
from tacit.contracts import Correction
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tests.builders import event
from tests.collector.conftest import Room


class Triage:
    """The routes of a room, and keys for them."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.keys = KeyStore(room.database)
        self.told: list[dict[str, object]] = []
        app = FastAPI()
        install_error_handlers(app)

        def journal(_: Session, _kind: str, _subject: str, body: dict[str, object]) -> None:
            self.told.append(body)

        app.include_router(
            create_triage(room.settings, room.database, room.stream, self.keys, journal)
        )
        self.http = TestClient(app, raise_server_exceptions=False)
        self.holder("root", Scope.ADMIN)

    def holder(self, name: str, scope: Scope, **bound: str) -> None:
        key = self.keys.create(name, scopes={scope}, **bound)
        self.http.headers["Authorization"] = f"Bearer {key}"

    def get(self, path: str, **params: Any) -> Any:
        return self.http.get(f"/v1/{path}", params=params)

    def post(self, path: str, **body: Any) -> Any:
        return self.http.post(f"/v1/{path}", json=body)

    def produce(self, *payloads: bytes) -> None:
        topic = feedback_topic(self.room.settings)
        self.room.stream.append(topic, [("k", payload) for payload in payloads])
        self.room.consumer.drain()


@pytest.fixture
def triage(room: Room) -> Iterator[Triage]:
    made = Triage(room)
    with made.http:
        yield made


def quarantine_one(triage: Triage) -> None:
    other = Correction(completion="refunds")
    triage.room.screen(
        event("e-1", subject_id="u-1"), event("e-2", subject_id="u-2", feedback=other)
    )


DOORS = [
    ("GET", "dead-letters", Scope.ADMIN),
    ("GET", "dead-letters/tacit.feedback:0:0", Scope.ADMIN),
    ("POST", "dead-letters/replay", Scope.ADMIN),
    ("POST", "dead-letters/drop", Scope.ADMIN),
    ("GET", "quarantine", Scope.REVIEW),
    ("GET", "quarantine/helpdesk/e-2", Scope.REVIEW),
    ("POST", "quarantine/release", Scope.REVIEW),
    ("POST", "quarantine/drop", Scope.REVIEW),
]


@pytest.mark.parametrize(("method", "path", "needed"), DOORS)
def test_only_the_scope_opens_the_door(
    triage: Triage, method: str, path: str, needed: Scope
) -> None:
    triage.produce(b"bad")
    quarantine_one(triage)
    bodies = {"dead-letters": {"all": True}, "quarantine": {"events": ["helpdesk/e-2"], "why": "x"}}
    body = bodies[path.split("/")[0]] if method == "POST" else None
    for scope in (Scope.SEND, Scope.READ, Scope.REVIEW, Scope.ADMIN):
        triage.holder(f"k-{scope}", scope)
        answer = triage.http.request(method, f"/v1/{path}", json=body)
        allowed = scope in (needed, Scope.ADMIN)
        assert answer.status_code == (200 if allowed else 403), (scope, answer.text)
        if allowed and scope != Scope.ADMIN:
            break
    triage.http.headers.pop("Authorization")
    assert triage.http.request(method, f"/v1/{path}", json=body).status_code == 401


def test_key_bound_to_a_source_or_another_line_sees_no_letter(triage: Triage) -> None:
    triage.produce(b"somebody's secret")
    for bound in ({"source": "helpdesk"}, {"policy": "another"}):
        triage.holder(f"bound-{bound}", Scope.ADMIN, **bound)
        assert triage.get("dead-letters").status_code == 403


def test_payload_is_text_or_base64(triage: Triage) -> None:
    long = ("ä" * 2_000).encode()
    triage.produce("größer".encode(), b"\xff\xfe", b"x" + long, b"")
    listed = triage.get("dead-letters").json()["letters"]
    assert [row["num_bytes"] for row in listed] == [0, 4_001, 2, 8]
    assert [row["whole"] for row in listed] == [True, False, True, True]
    assert [row["payload"] for row in listed] == ["", "x" + "ä" * 511, None, "größer"]
    assert base64.b64decode(listed[2]["payload_base64"]) == b"\xff\xfe"
    whole = triage.get(f"dead-letters/{listed[1]['id']}").json()
    assert (whole["payload"], whole["whole"]) == ("x" + "ä" * 2_000, True)
    assert whole["id"] == "tacit.feedback:0:2"


def test_letters_page_and_filter(triage: Triage) -> None:
    triage.produce(*[b"bad"] * 5)
    first = triage.get("dead-letters", limit=3).json()
    second = triage.get("dead-letters", limit=3, after=first["next"]).json()
    offsets = [row["offset"] for row in first["letters"] + second["letters"]]
    assert (offsets, second["next"]) == ([4, 3, 2, 1, 0], None)
    assert triage.get("dead-letters", reason="conflict").json()["letters"] == []


def test_replay_of_all_comes_to_an_end(triage: Triage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.triage.replay.MAX_LETTERS", 4)
    monkeypatch.setattr("collector.triage.dead_letter_routes.MAX_LETTERS", 4)
    triage.produce(*[b"bad %d" % i for i in range(10)])
    asked: dict[str, Any] = {"all": True}
    counts = []
    while True:
        answer = triage.post("dead-letters/replay", **asked).json()
        counts.append(answer["num_replayed"])
        triage.room.consumer.drain()  # each becomes a dead letter again
        if not answer["more"]:
            break
        asked["until"] = answer["until"]
    assert counts == [4, 4, 2]
    assert len(triage.get("dead-letters").json()["letters"]) == 10
    dropped = triage.post("dead-letters/drop", reason="unparsable").json()
    assert (dropped["num_dropped"], dropped["more"]) == (4, True)


def test_replay_with_another_payload(triage: Triage) -> None:
    triage.produce(b"bad", b"worse")
    good = event("e-1").model_dump_json()
    other = event("e-2", subject_id="u-2").model_dump_json().encode()
    encoded = base64.b64encode(other).decode()
    ids = [row["id"] for row in triage.get("dead-letters").json()["letters"]]
    triage.post("dead-letters/replay", ids=ids[:1], payload=good)
    answer = triage.post("dead-letters/replay", ids=ids[1:], payload_base64=encoded)
    assert answer.json()["results"] == [{"id": ids[1], "status": "replayed"}]
    triage.room.consumer.drain()
    assert triage.room.became("e-1") == triage.room.became("e-2") == ("accepted", None)
    again = triage.post("dead-letters/replay", ids=ids[:1], payload=good)
    assert again.status_code == 409


BAD_REQUESTS: list[tuple[str, dict[str, Any], int]] = [
    ("dead-letters/replay", {}, 422),
    ("dead-letters/replay", {"ids": []}, 422),
    ("dead-letters/replay", {"ids": ["what"]}, 422),
    ("dead-letters/replay", {"ids": ["a:0:0"] * 1_001}, 422),
    ("dead-letters/replay", {"all": True, "reason": "conflict"}, 422),
    ("dead-letters/replay", {"all": True, "payload": "x"}, 422),
    ("dead-letters/replay", {"ids": ["a:0:0"], "payload": "x", "payload_base64": "eA=="}, 422),
    ("dead-letters/replay", {"ids": ["a:0:0"], "payload_base64": "%"}, 422),
    ("dead-letters/replay", {"ids": ["a:0:0"], "payload": "x"}, 404),
    ("dead-letters/replay", {"reason": "a\x00b"}, 422),
    ("dead-letters/drop", {"all": True, "surprise": 1}, 422),
    ("quarantine/release", {"events": ["helpdesk/e-1"]}, 422),
    ("quarantine/release", {"events": ["helpdesk/e-1"], "why": " "}, 422),
    ("quarantine/release", {"events": ["helpdesk/e-1"], "why": "a\x00"}, 422),
    ("quarantine/release", {"events": [], "why": "x"}, 422),
    ("quarantine/release", {"events": ["e-1"], "why": "x"}, 422),
    ("quarantine/drop", {"events": ["a/b"] * 1_001, "why": "x"}, 422),
    ("quarantine/drop", {"events": ["a/b"], "why": "x"}, 409),
]


@pytest.mark.parametrize(("path", "body", "status"), BAD_REQUESTS)
def test_bad_request_is_refused(
    triage: Triage, path: str, body: dict[str, Any], status: int
) -> None:
    answer = triage.post(path, **body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"type", "expected", "got", "mend"}


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("dead-letters", {"after": "nothing"}),
        ("dead-letters", {"limit": 0}),
        ("dead-letters", {"reason": "A B"}),
        ("quarantine", {"after": "x.y"}),
        ("quarantine", {"after": "²." + "y"}),
        ("quarantine", {"subject": "a\x00b"}),
        ("quarantine", {"source": "A"}),
    ],
)
def test_bad_query_is_refused(triage: Triage, path: str, params: dict[str, Any]) -> None:
    assert triage.get(path, **params).status_code == 422


def test_quarantine_is_listed_shown_and_decided_on(triage: Triage) -> None:
    quarantine_one(triage)
    triage.holder("ada", Scope.REVIEW)
    (listed,) = triage.get("quarantine", reason="contradiction").json()["events"]
    assert (listed["event_key"], listed["subject_id"]) == ("helpdesk/e-2", "u-2")
    assert "refunds" in listed["gist"]
    shown = triage.get("quarantine/helpdesk/e-2").json()
    assert shown["event"]["feedback"]["completion"] == "refunds"
    assert shown["interaction"]["completion"] == "billing"
    answer = triage.post("quarantine/release", events=["helpdesk/e-2", "helpdesk/e-1"], why="ok")
    assert answer.status_code == 207
    assert [r["status"] for r in answer.json()["results"]] == ["accepted", "refused"]
    assert triage.told[0]["by"] == "ada"
    again = triage.post("quarantine/release", events=["helpdesk/e-2"], why="ok")
    assert again.status_code == 409
    assert "it is accepted" in again.json()["error"]["got"]
    assert triage.get("quarantine/helpdesk/e-2").status_code == 404


def test_key_bound_to_a_source_sees_that_source_alone(triage: Triage) -> None:
    quarantine_one(triage)
    triage.holder("shop-reviewer", Scope.REVIEW, source="shop")
    assert triage.get("quarantine").json()["events"] == []
    assert triage.get("quarantine", source="helpdesk").status_code == 403
    assert triage.get("quarantine/helpdesk/e-2").status_code == 403
    assert triage.post("quarantine/drop", events=["helpdesk/e-2"], why="x").status_code == 403
    assert triage.room.became("e-2") == ("quarantined", "contradiction")


def test_pages_of_the_quarantine(triage: Triage) -> None:
    quarantine_one(triage)
    page = triage.get("quarantine", limit=1).json()
    assert page["next"] is not None
    assert triage.get("quarantine", limit=1, after=page["next"]).json()["events"] == []
