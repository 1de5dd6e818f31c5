"""Webhooks tell what the ledger says, once each, signed, and try again until they are taken."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import update
from standardwebhooks import Webhook, WebhookVerificationError

from gatekeeper.courier import Courier
from gatekeeper.outbox import MAX_ATTEMPTS, Outbox
from gatekeeper.tables import WebhookDeliveryRow
from gatekeeper.webhook_api import create_webhook_router
from tacit.config import WebhookSettings
from tacit.contracts import DecisionOutcome, utc_now
from tacit.database import Database
from tacit.errors import NotFoundError
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tacit.secrets_file import MasterSecret
from tests.gatekeeper.builders import FakeClock, failing_verdict, numbered, office

CANDIDATE = numbered(1)
ID = CANDIDATE.candidate_id
MASTER = MasterSecret("m" * 40)


@dataclass
class Receiver:
    """An endpoint that answers as told and keeps what it took."""

    status: int = 204
    taken: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.taken.append(request)
        return httpx.Response(self.status, text="said no")

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.taken]


class Bench:
    """A gatekeeper, an endpoint and the courier between them, on one clock of today."""

    def __init__(self, db: Database, **settings: Any) -> None:
        self.office = office(db)
        self.clock = self.office.clock
        self.clock.moment = utc_now()  # the receiver's library compares with the real time
        self.receiver = Receiver()
        endpoint = WebhookSettings(**{"url": "https://hook.test/x"} | settings)
        self.courier = self.another(db, {"ops": endpoint})
        self.courier.step()

    def another(self, db: Database, endpoints: dict[str, WebhookSettings]) -> Courier:
        client = httpx.Client(transport=httpx.MockTransport(self.receiver))
        outbox = Outbox(db, endpoints, public_url="https://tacit.test/")
        return Courier(outbox, MASTER, client=client, clock=self.clock)

    def log(self) -> list[tuple[str, int]]:
        return [(row.state, row.attempts) for row in self.courier.outbox.log()]


def test_waiting_decided_and_rolled_back_are_told_once_and_in_order(database: Database) -> None:
    bench = Bench(database)
    bench.office.submit(CANDIDATE)
    bench.courier.step()
    bench.office.gatekeeper.decide(ID, DecisionOutcome.REJECTED, by="ada", reason="too terse")
    with database.session() as session:
        body = {"release": {"policy": "default"}, "back_to": "r-1", "by": "ada", "reason": "worse"}
        bench.office.ledger.append(session, "rollback", "r-2", body)
        bench.office.ledger.append(session, "screening_disabled", "default", {})
    bench.courier.step()
    bench.courier.step()
    told = bench.receiver.bodies
    assert [message["type"] for message in told] == [
        "candidate.waiting",
        "candidate.decided",
        "release.rolled_back",
    ]
    assert told[0]["data"]["verdict"] == "pass"
    assert told[0]["data"]["url"] == f"https://tacit.test/candidates/{ID}"
    decided = told[1]["data"]
    assert (decided["candidate_id"], decided["outcome"], decided["by"], decided["reason"]) == (
        ID,
        "rejected",
        "ada",
        "too terse",
    )
    assert told[2]["data"]["back_to"] == "r-1"
    assert bench.log() == [("delivered", 1)] * 3


def test_delivery_is_signed_as_standard_webhooks_says(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    bench.office.submit(CANDIDATE)
    bench.courier.step()
    (request,) = bench.receiver.taken
    headers = dict(request.headers)
    Webhook(bench.courier.secret("ops")).verify(request.content, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(bench.courier.secret("other")).verify(request.content, headers)
    assert headers["webhook-id"] == "ops-1"


def test_refused_delivery_is_tried_again_later_under_the_same_id(
    sqlite_database: Database,
) -> None:
    bench = Bench(sqlite_database)
    bench.receiver.status = 500
    bench.office.submit(CANDIDATE)
    bench.courier.step()
    bench.courier.step()
    assert bench.log() == [("pending", 1)]
    (row,) = bench.courier.outbox.log()
    assert (row.status_code, row.error) == (500, "500: said no")
    bench.clock.advance(5)
    bench.courier.step()
    bench.clock.advance(9)
    bench.courier.step()
    assert bench.log() == [("pending", 2)]
    bench.receiver.status = 200
    bench.clock.advance(1)
    bench.courier.step()
    assert bench.log() == [("delivered", 3)]
    assert {request.headers["webhook-id"] for request in bench.receiver.taken} == {"ops-1"}


@pytest.mark.parametrize(("status", "tries"), [(500, MAX_ATTEMPTS), (410, 1), (302, MAX_ATTEMPTS)])
def test_delivery_is_given_up_in_the_end(
    sqlite_database: Database, status: int, tries: int
) -> None:
    bench = Bench(sqlite_database)
    bench.receiver.status = status
    bench.office.submit(CANDIDATE)
    for _ in range(MAX_ATTEMPTS + 3):
        bench.courier.step()
        bench.clock.advance(3600)
    assert bench.log() == [("given_up", tries)]
    assert len(bench.receiver.taken) == tries


def test_two_couriers_deliver_once_and_a_dead_one_is_taken_over(
    sqlite_database: Database,
) -> None:
    bench = Bench(sqlite_database)
    other = bench.another(sqlite_database, bench.courier.outbox.endpoints)
    bench.office.submit(CANDIDATE)
    bench.courier.outbox.follow(bench.clock())
    assert other.outbox.follow(bench.clock()) == 0
    (due,) = other.outbox.due(bench.clock())
    assert bench.courier.outbox.claim(due, bench.clock()) is not None  # and then it dies
    other.deliver(due)
    assert bench.receiver.taken == []
    bench.clock.advance(121)
    other.step()
    assert len(bench.receiver.taken) == 1


def test_what_the_gate_decides_at_once_waits_for_nobody(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    bench.office.submit(CANDIDATE, failing_verdict(CANDIDATE))
    with sqlite_database.session() as session:
        bench.office.gatekeeper.settle(session, ID)
    bench.courier.step()
    assert [message["type"] for message in bench.receiver.bodies] == ["candidate.decided"]


def test_new_endpoint_is_not_told_the_past_and_hears_what_it_asked_for(
    sqlite_database: Database,
) -> None:
    bench = Bench(sqlite_database)
    bench.office.submit(CANDIDATE)
    asked = WebhookSettings(url="https://late.test", events=("candidate.decided",))
    late = bench.another(sqlite_database, {"late": asked})
    late.step()
    bench.office.submit(numbered(2))
    bench.office.gatekeeper.decide(ID, DecisionOutcome.APPROVED, by="ada", reason="good")
    late.step()
    assert [message["type"] for message in bench.receiver.bodies] == ["candidate.decided"]


def test_slack_gets_text_in_which_nothing_is_markup(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database, format="slack")
    bench.office.submit(CANDIDATE)
    reason = "<!channel> & <https://evil.test|click>"
    bench.office.gatekeeper.decide(ID, DecisionOutcome.REJECTED, by="ada", reason=reason)
    bench.courier.step()
    (told,) = bench.receiver.bodies
    assert told["text"].startswith(f"Candidate {ID} was rejected by ada: &lt;!channel&gt; &amp;")
    assert told["text"].endswith(f"<https://tacit.test/candidates/{ID}|Look at it>")


def test_secret_address_comes_from_the_environment_and_never_into_the_log(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(sqlite_database, url=None, url_variable="OPS_HOOK")
    bench.office.submit(CANDIDATE)
    bench.courier.step()
    assert "OPS_HOOK is not set" in str(bench.courier.outbox.log()[0].error)
    monkeypatch.setenv("OPS_HOOK", "https://hook.test/secret")
    bench.clock.advance(60)
    bench.courier.step()
    assert bench.receiver.taken[0].url == "https://hook.test/secret"

    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route to https://hook.test/secret")

    bench.courier._client = httpx.Client(transport=httpx.MockTransport(away))
    bench.courier.outbox.put_test("ops", bench.clock())
    bench.courier.step()
    assert "ConnectError" in {row.error for row in bench.courier.outbox.log()}


def test_test_message_goes_to_known_endpoints_alone(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    bench.courier.deliver(bench.courier.outbox.put_test("ops", bench.clock()))
    assert bench.receiver.bodies[0]["type"] == "webhook.test"
    with pytest.raises(NotFoundError):
        bench.courier.outbox.put_test("nowhere", bench.clock())


def test_thread_delivers_and_outlives_the_unforeseen(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    bench.courier._poll_s = 0.01
    bench.office.submit(CANDIDATE)
    with sqlite_database.session() as session:
        session.execute(update(WebhookDeliveryRow).values(endpoint="ops"))
    clock = FakeClock(bench.clock.moment)
    crashes = iter([RuntimeError("unforeseen")])

    def sometimes() -> Any:
        for error in crashes:
            raise error
        return clock()

    bench.courier._clock = sometimes
    with bench.courier:
        for _ in range(500):
            if bench.receiver.taken:
                break
            bench.courier._stop.wait(0.01)
    assert len(bench.receiver.taken) == 1


def test_api_is_for_admins_and_says_how_a_test_went(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    bench.courier._clock = utc_now
    keys = KeyStore(sqlite_database)
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(create_webhook_router(bench.courier, keys, policy="default"))
    reviewer = keys.create("ada", scopes={Scope.READ, Scope.REVIEW})
    admin = {"Authorization": f"Bearer {keys.create('root', scopes={Scope.ADMIN})}"}
    with TestClient(app) as client:
        path = "/v1/outbound-webhooks"
        refused = client.get(path, headers={"Authorization": f"Bearer {reviewer}"})
        assert refused.status_code == 403
        (row,) = client.get(path, headers=admin).json()["webhooks"]
        assert (row["name"], row["to"]) == ("ops", "https://hook.test/x")
        assert row["secret"] == bench.courier.secret("ops")
        bench.receiver.status = 503
        tried = client.post(f"{path}/ops/test", headers=admin).json()
        assert (tried["state"], tried["error"]) == ("pending", "503: said no")
        (logged,) = client.get(f"{path}/deliveries", headers=admin).json()["deliveries"]
        assert logged["delivery_id"] == tried["delivery_id"]


@pytest.mark.parametrize("settings", [{}, {"url": "https://a.test", "url_variable": "A"}])
def test_endpoint_has_exactly_one_address(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one of url and url_variable"):
        WebhookSettings(**settings)
