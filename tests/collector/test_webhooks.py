"""Webhooks: signatures, replays, and what a third party may leave out."""

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook

from collector.api.admission import Admission
from collector.api.intake import Intake
from collector.api.tokens import FeedbackTokens
from collector.api.webhooks import create_router
from collector.ingest import feedback_topic
from collector.monitoring.metrics import IngestCounters
from tacit.config import load_settings
from tacit.contracts import FeedbackEvent
from tacit.control import create_control
from tacit.database import Database
from tacit.errors import UnavailableError
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tacit.secrets_file import MasterSecret
from tests.builders import event
from tests.collector.conftest import MakeRoom, Room

MASTER = MasterSecret("m" * 43)
LEFT_OUT = {"event_id", "source", "policy"}


class Crm:
    """A third party that delivers to one webhook."""

    def __init__(self, room: Room, **key: Any) -> None:
        self.room = room
        self.keys = KeyStore(room.database, master=MASTER)
        fields = {"scopes": {Scope.SEND}, "source": "crm", **key}
        self.secret = self.keys.create("crm", kind="webhook", **fields)
        self.path = str(self.keys.in_force()[0].path)
        app = FastAPI()
        install_error_handlers(app)
        admission = Admission(self.keys, FeedbackTokens(MASTER, self.keys), room.settings.collector)
        intake = Intake(room.ingestor, admission, IngestCounters(CollectorRegistry()))
        app.include_router(create_router(intake, self.keys, room.settings))
        self.http = TestClient(app, raise_server_exceptions=False)

    def signed(
        self,
        content: str,
        *,
        delivery: str = "msg_1",
        at: datetime | None = None,
        secret: str | None = None,
    ) -> dict[str, str]:
        at = at or datetime.now(UTC)
        return {
            "webhook-id": delivery,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret or self.secret).sign(delivery, at, content),
        }

    def deliver(self, content: str, **signing: Any) -> Any:
        return self.post(content, self.signed(content, **signing))

    def post(self, content: str | bytes, headers: dict[str, str]) -> Any:
        return self.http.post(self.path, content=content, headers=headers)

    def stored(self) -> list[FeedbackEvent]:
        topic = feedback_topic(self.room.settings)
        records = self.room.stream.read(topic, {}, limit=9_999, timeout_s=0.0)
        return [FeedbackEvent.model_validate_json(record.value) for record in records]


@pytest.fixture
def crm(room: Room) -> Iterator[Crm]:
    """On SQLite and on PostgreSQL."""
    made = Crm(room)
    with made.http:
        yield made


@pytest.fixture
def lone(make: MakeRoom) -> Crm:
    """On SQLite alone."""
    return Crm(make())


def partial(**fields: Any) -> dict[str, Any]:
    """A feedback event as a third party knows it."""
    whole = json.loads(event(interaction_id="i-1", **fields).model_dump_json())
    return {name: value for name, value in whole.items() if name not in LEFT_OUT}


BODY = json.dumps(partial())


def test_delivery_becomes_an_event_of_the_keys_source(crm: Crm) -> None:
    answer = crm.deliver(BODY)
    assert (answer.status_code, answer.json()) == (202, {"event_id": "msg_1", "status": "queued"})
    assert crm.stored() == [event("msg_1", source="crm", interaction_id="i-1")]


def test_replayed_delivery_counts_once(crm: Crm) -> None:
    headers = crm.signed(BODY)
    now = datetime.now(UTC)
    later = crm.signed(BODY, at=now + timedelta(seconds=60))
    answers = [crm.post(BODY, each) for each in (headers, headers, later)]
    crm.room.consumer.drain()
    answers.append(crm.post(BODY, headers))
    assert {(a.status_code, a.text) for a in answers} == {(202, answers[0].text)}
    assert sum(crm.room.store.counts("default").values()) == 1


def test_array_is_answered_item_by_item(crm: Crm) -> None:
    items = [partial(), {"surprise": 1}, 7, partial(subject_id="u-2")]
    content = json.dumps(items)
    for _ in range(2):
        answer = crm.deliver(content)
        assert answer.status_code == 207
        results = answer.json()["results"]
        assert [r["status"] for r in results] == ["queued", "rejected", "rejected", "queued"]
    crm.room.consumer.drain()
    assert {e.event_id for e in crm.stored()} == {"msg_1-0", "msg_1-3"}
    assert crm.deliver(json.dumps([partial()]), delivery="msg_2").status_code == 202


def test_other_body_under_the_same_delivery_is_a_conflict(lone: Crm) -> None:
    assert lone.deliver(BODY).status_code == 202
    assert lone.deliver(json.dumps(partial(subject_id="u-2"))).status_code == 409


def test_fields_that_are_sent_must_be_those_of_the_key(lone: Crm) -> None:
    assert lone.deliver(json.dumps({**partial(), "source": "crm"})).status_code == 202
    assert lone.deliver(json.dumps({**partial(), "source": "bank"})).status_code == 403
    assert lone.deliver(json.dumps({**partial(), "policy": "another"})).status_code == 422
    own = lone.deliver(json.dumps({**partial(), "event_id": "own"}), delivery="msg_2")
    assert own.json()["event_id"] == "own"
    assert [e.source for e in lone.stored()] == ["crm", "crm"]


def test_key_bound_to_a_policy_fills_that_one(make: MakeRoom) -> None:
    bound = Crm(make(), policy="another")
    answer = bound.deliver(BODY)
    assert (answer.status_code, "another" in answer.text) == (422, True)


@pytest.mark.parametrize("seconds", [-301, -3600, 301])
def test_old_or_early_timestamp_is_401(lone: Crm, seconds: float) -> None:
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    answer = lone.deliver(BODY, at=at)
    assert (answer.status_code, "Message timestamp" in answer.text) == (401, True)
    assert lone.stored() == []


def _flip(signature: str) -> str:
    raw = bytearray(base64.b64decode(signature.removeprefix("v1,")))
    raw[0] ^= 1
    return "v1," + base64.b64encode(bytes(raw)).decode()


def test_altered_delivery_is_401(lone: Crm) -> None:
    good = lone.signed(BODY)
    other_secret = "whsec_" + base64.b64encode(b"x" * 32).decode()
    bad: Sequence[tuple[str | bytes, dict[str, str]]] = [
        (BODY + " ", good),
        (BODY.replace("u-1", "u-2"), good),
        (b"\xff" + BODY.encode(), good),
        (BODY, {**good, "webhook-id": "msg_2"}),
        (BODY, {**good, "webhook-timestamp": str(int(good["webhook-timestamp"]) + 1)}),
        (BODY, {**good, "webhook-timestamp": "now"}),
        (BODY, {**good, "webhook-timestamp": "nan"}),
        (BODY, {**good, "webhook-signature": _flip(good["webhook-signature"])}),
        (BODY, {**good, "webhook-signature": good["webhook-signature"].replace("v1,", "v1a,")}),
        (BODY, {**good, "webhook-signature": "v1,"}),
        (BODY, {**good, "webhook-signature": "v1"}),
        (BODY, {**good, "webhook-signature": "v1,é"}),
        (BODY, {**good, "webhook-signature": ", , ,"}),
        (BODY, lone.signed(BODY, secret=other_secret)),
        *[(BODY, {k: v for k, v in good.items() if k != name}) for name in good],
        (BODY, {}),
        (BODY, {"Authorization": f"Bearer {lone.secret}"}),
    ]
    for content, headers in bad:
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = lone.http.post(lone.path, content=content, headers=raw)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["error"]["type"]) == (
            401, "NotAuthenticatedError",
        )  # fmt: skip
    assert lone.stored() == []


def test_one_good_signature_of_several_is_enough(lone: Crm) -> None:
    headers = lone.signed(BODY)
    headers["webhook-signature"] = (
        f"{_flip(headers['webhook-signature'])} " + headers["webhook-signature"]
    )
    assert lone.post(BODY, headers).status_code == 202


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    signature=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80)
    | st.lists(st.sampled_from(["v1,", "v1", ",", " ", "AAAA", "=", "v2,x"])).map("".join),
    content=st.binary(max_size=60),
)
def test_arbitrary_signature_and_body_are_neither_a_way_in_nor_a_crash(
    lone: Crm, signature: str, content: bytes
) -> None:
    headers = {**lone.signed(BODY), "webhook-signature": signature}
    raw = {name: value.strip().encode("latin-1") for name, value in headers.items()}
    assert lone.http.post(lone.path, content=content, headers=raw).status_code == 401  # type: ignore[arg-type]


def test_unknown_and_revoked_webhooks_are_401(lone: Crm) -> None:
    for endpoint in ("0" * 12, "nobody", "%25", "a" * 500):
        answer = lone.http.post(f"/v1/webhooks/{endpoint}", content=BODY, headers=lone.signed(BODY))
        assert answer.status_code == 401
    bearer = lone.keys.create("shop", scopes={Scope.SEND}).split(".")[1]
    assert lone.http.post(f"/v1/webhooks/{bearer}", content=BODY).status_code == 401
    lone.keys.revoke("crm")
    assert lone.deliver(BODY).status_code == 401
    assert lone.stored() == []


def test_rotated_secret_signs_for_its_grace(lone: Crm) -> None:
    new = lone.keys.rotate("crm", grace_s=3600)
    assert lone.deliver(BODY, secret=new).status_code == 202
    assert lone.deliver(BODY, delivery="msg_2").status_code == 202
    lone.keys.rotate("crm", grace_s=0)
    assert {lone.deliver(BODY, secret=s).status_code for s in (new, lone.secret)} == {401}


def test_signed_nonsense_is_422(lone: Crm) -> None:
    for content in ("", "{", "null", "[]", "[NaN]", '"x"', "{}", "[" * 9_000, '["\\ud800"'):
        answer = lone.deliver(content)
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "InvalidInputError")
    for delivery in ("-a", "a b", "x" * 129):
        assert lone.deliver(BODY, delivery=delivery).status_code == 422
    assert lone.stored() == []


def test_limits_of_bytes_events_and_rate(make: MakeRoom) -> None:
    room = make()
    limits = {"max_events_per_request": 3, "max_request_bytes": 4_000}
    collector = room.settings.collector.model_copy(update=limits)
    room.settings = room.settings.model_copy(update={"collector": collector})
    room.ingestor.settings = room.settings
    crm = Crm(room, rate_limit_per_s=0.01)
    assert crm.deliver(" " * 4_001).status_code == 413
    assert crm.deliver(json.dumps([{}] * 4)).status_code == 413
    assert crm.deliver(json.dumps([partial()] * 2)).status_code == 202
    refused = crm.deliver(BODY, delivery="msg_2")
    assert refused.status_code == 429
    assert 100 <= int(refused.headers["Retry-After"]) <= 201
    assert len(crm.stored()) == 2


def test_stream_away_is_503_so_that_it_is_delivered_again(
    lone: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise UnavailableError("a stream that answers")

    with monkeypatch.context() as patched:
        patched.setattr(lone.room.stream, "append", away)
        assert lone.deliver(BODY).status_code == 503
    assert lone.deliver(BODY).status_code == 202


def test_secret_made_beside_the_service_signs_for_it(
    tmp_path: Path, sqlite_database: Database
) -> None:
    """As `tacit keys create --webhook` does: another process that shares the home."""
    served = load_settings(home=tmp_path)
    master = MasterSecret.load_or_create(served.keys_path)
    keys = KeyStore(sqlite_database, master=master)
    secret = keys.create("crm", scopes={Scope.SEND}, source="crm", kind="webhook")
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", now, BODY),
    }
    with TestClient(create_control(served), raise_server_exceptions=False) as http:
        answer = http.post(str(keys.in_force()[0].path), content=BODY, headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"event_id": "msg_1", "status": "queued"})
