"""The campaign's error budget: what is spent stays spent, and fifty retries do not buy a pass."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import select
from typer.testing import CliRunner

from gatekeeper.campaign import Campaign, Campaigns, evidence_digest
from gatekeeper.campaign_api import create_router
from gatekeeper.gate import judge
from gatekeeper.tables import LedgerRow
from tacit.cli import app
from tacit.config import GatekeeperSettings
from tacit.contracts import EvalReport, GateVerdict, PolicyCandidate, VariantChoice, VerdictOutcome
from tacit.contracts.candidate import VariantResult
from tacit.database import Database
from tacit.errors import ConflictError, InvalidInputError
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tacit.merkle import leaf_hash
from tests.builders import digest, suite_result
from tests.gatekeeper.builders import (
    Office,
    good_report,
    holdout,
    numbered,
    office,
    shipped_policy,
)

PASS, INCONCLUSIVE = VerdictOutcome.PASS, VerdictOutcome.INCONCLUSIVE


def desk(there: Office) -> Campaigns:
    return Campaigns(there.db, there.ledger)


def judged(
    there: Office, about: PolicyCandidate, evidence: EvalReport | None = None
) -> GateVerdict:
    """The verdict as the loop makes it: share, judge, record in one transaction."""
    evidence = evidence or good_report(about)
    policy, campaigns = shipped_policy(), desk(there)
    share = campaigns.current("default").share(about, evidence, policy)
    verdict = judge(about, evidence, policy, share=share)
    with there.db.session() as session:
        campaigns.spend(session, "default", about.candidate_id, share)
    return verdict


def test_each_candidate_spends_a_fiftieth_and_the_verdict_says_so(database: Database) -> None:
    there = office(database)
    first, second = judged(there, numbered(1)), judged(there, numbered(2))
    assert first.outcome is second.outcome is PASS
    assert first.campaign is not None
    assert second.campaign is not None
    assert (first.campaign.before, first.campaign.spent) == (0, pytest.approx(0.001))
    assert second.campaign.before == pytest.approx(0.001)
    assert second.campaign.left == pytest.approx(0.048)
    assert second.criteria[-1].name == "campaign"
    assert desk(there).current("default").spent == pytest.approx(0.002)


def test_after_fifty_candidates_a_person_decides_until_a_campaign_is_started(
    sqlite_database: Database,
) -> None:
    there = office(sqlite_database)
    outcomes = [judged(there, numbered(number)).outcome for number in range(52)]
    assert outcomes == [PASS] * 50 + [INCONCLUSIVE] * 2
    assert desk(there).current("default").spent == pytest.approx(0.05)
    started = desk(there).start("default", by="ada", reason="the suites are new")
    assert (started.campaign_id, started.spent) == ("default-2", 0)
    assert judged(there, numbered(53)).outcome is PASS
    assert not there.ledger.verify().problems
    assert [entry.kind for entry in there.ledger.entries(2)] == ["alpha_spent", "campaign_started"]


def test_the_same_evidence_again_costs_nothing_and_says_the_same(database: Database) -> None:
    there = office(database)
    first, again = judged(there, numbered(1)), judged(there, numbered(1))
    assert again.campaign is not None
    assert again.campaign.spent == 0
    assert again.outcome is first.outcome
    assert [row.outcome for row in again.criteria] == [row.outcome for row in first.criteria]
    assert desk(there).current("default").spent == pytest.approx(0.001)


@pytest.mark.parametrize(
    "changed",
    [
        {"suites": (suite_result(suite_digest=digest("edited")), holdout())},
        {"champion": digest("another")},
        {"anchor": digest("another")},
    ],
)
def test_other_suites_or_baselines_are_another_draw(changed: dict[str, object]) -> None:
    one, other = good_report(numbered(1)), good_report(numbered(1), **changed)
    assert evidence_digest(one, shipped_policy()) != evidence_digest(other, shipped_policy())


def test_an_edited_gate_policy_is_another_draw() -> None:
    policy = shipped_policy()
    edited = policy.model_copy(update={"criteria": policy.criteria[:-1]})
    evidence = good_report(numbered(1))
    assert evidence_digest(evidence, policy) != evidence_digest(evidence, edited)


def test_each_variant_that_was_measured_is_a_draw() -> None:
    variants = tuple(
        VariantResult(
            alpha=alpha, weights=digest(f"{alpha}"), stands=False, why="", versus_champion={}
        )
        for alpha in (1.0, 0.25, 0.5)
    )
    choice = VariantChoice(alpha=0.25, trained=digest("1.0"), reason="", variants=variants)
    about = numbered(1).model_copy(update={"choice": choice})
    share = Campaign("default-1", {}).share(about, good_report(about), shipped_policy())
    assert share.spent == pytest.approx(0.003)


def test_of_two_who_judge_at_once_the_second_judges_again(database: Database) -> None:
    there, policy = office(database), shipped_policy()
    shares = [
        desk(there).current("default").share(numbered(n), good_report(numbered(n)), policy)
        for n in (1, 2)
    ]
    with there.db.session() as session:
        desk(there).spend(session, "default", "c-1", shares[0])
    with (
        pytest.raises(ConflictError, match="Judge the report again"),
        there.db.session() as session,
    ):
        desk(there).spend(session, "default", "c-2", shares[1])


def test_a_verdict_that_is_not_kept_spends_nothing(database: Database) -> None:
    there, policy = office(database), shipped_policy()
    share = desk(there).current("default").share(numbered(1), good_report(numbered(1)), policy)

    def fail() -> None:
        with there.db.session() as session:
            desk(there).spend(session, "default", "c-1", share)
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert desk(there).current("default").spent == 0


def test_lines_have_campaigns_of_their_own(database: Database) -> None:
    there = office(database)
    judged(there, numbered(1))
    assert desk(there).current("other").spent == 0


@pytest.mark.parametrize("hashed_again", [False, True])
def test_an_altered_entry_is_not_counted_on(sqlite_database: Database, hashed_again: bool) -> None:
    there = office(sqlite_database)
    judged(there, numbered(1))
    with sqlite_database.session() as session:
        row = session.scalars(select(LedgerRow).where(LedgerRow.kind == "alpha_spent")).one()
        row.entry = row.entry.replace("0.001", "0.000")
        if hashed_again:
            row.leaf_hash = leaf_hash(row.entry.encode()).hex()
    with pytest.raises(ConflictError, match="as it was signed"):
        desk(there).current("default")


def test_what_was_spent_cannot_be_taken_out(sqlite_database: Database) -> None:
    there = office(sqlite_database)
    for number in (1, 2, 3):
        judged(there, numbered(number))
    with sqlite_database.session() as session:
        spent = select(LedgerRow).where(LedgerRow.kind == "alpha_spent")
        session.delete(session.scalars(spent.order_by(LedgerRow.sequence)).all()[1])
    with pytest.raises(ConflictError, match="one before it missing"):
        desk(there).current("default")


def test_a_campaign_needs_a_reason(database: Database) -> None:
    with pytest.raises(InvalidInputError):
        desk(office(database)).start("default", by="ada", reason=" ")


@pytest.fixture
def client(sqlite_database: Database) -> Iterator[TestClient]:
    there = office(sqlite_database)
    judged(there, numbered(1))
    app = FastAPI()
    install_error_handlers(app)
    keys = KeyStore(sqlite_database)
    app.include_router(
        create_router(desk(there), keys, GatekeeperSettings(), policy="default"),
    )
    with TestClient(app) as client:
        client.headers["x-reader"] = keys.create("reader", scopes={Scope.READ})
        client.headers["x-admin"] = keys.create("ada", scopes={Scope.ADMIN})
        yield client


def call(client: TestClient, verb: str, who: str, **content: object) -> Response:
    headers = {"Authorization": f"Bearer {client.headers[who]}"}
    return client.request(verb, "/v1/campaign", headers=headers, **content)  # type: ignore[arg-type]


def test_the_api_says_what_is_left_and_only_an_admin_starts_another(client: TestClient) -> None:
    shown = call(client, "GET", "x-reader").json()
    assert (shown["campaign"], shown["num_judged"], shown["num_left"]) == ("default-1", 1, 49)
    body = {"reason": "new suites"}
    assert call(client, "POST", "x-reader", json=body).status_code == 403
    assert call(client, "GET", "x-reader").json() == shown
    started = call(client, "POST", "x-admin", json=body).json()
    assert (started["campaign"], started["spent"], started["num_left"]) == ("default-2", 0, 50)


def test_the_command_shows_and_starts_campaigns(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request(method: str, url: str, *, timeout: float, **content: Any) -> Response:
        return client.request(method, url, **content)

    monkeypatch.setattr("tacit.remote.httpx.request", request)
    options = ["--url", "http://testserver", "--key", client.headers["x-admin"]]
    shown = CliRunner().invoke(app, ["gate", "campaign", "show", *options])
    said = " ".join(shown.output.split())
    assert "0.001 of 0.05 spent on 1 candidates, enough for 49 more" in said
    run = ["gate", "campaign", "start", "--reason", "new suites", *options]
    assert "default-2" in CliRunner().invoke(app, run).output
