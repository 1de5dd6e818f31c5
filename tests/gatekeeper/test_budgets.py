"""Budgets on the overview: what is used, what is left, and a policy that cannot be read."""

from pathlib import Path

from gatekeeper.campaign import SPENT, Campaign
from gatekeeper.pages.budgets import budgets
from tacit.config import GatekeeperSettings
from tacit.contracts import CampaignShare
from tacit.database import Database
from tests.builders import digest
from tests.gatekeeper.builders import numbered, passing_verdict, shipped_policy
from tests.gatekeeper.forms import log_in
from tests.gatekeeper.scenes import Desk, desk


def share(number: int) -> CampaignShare:
    return CampaignShare(
        campaign="default-1",
        alpha=0.05,
        before=0.001 * number,
        spent=0.001,
        evidence=digest(f"evidence-{number}"),
        is_exhausted=False,
    )


def spend(made: Desk, *numbers: int) -> None:
    with made.office.db.session() as session:
        for number in numbers:
            body = {"candidate_id": f"c-{number}", "share": share(number).model_dump(mode="json")}
            made.office.ledger.append(session, SPENT, "default", body)


def test_overview_says_how_many_candidates_the_error_budget_is_enough_for(
    sqlite_database: Database,
) -> None:
    made = desk(sqlite_database)
    spend(made, 0, 1)
    with made.client() as client:
        log_in(client, made)
        page = client.get("/").text
        assert "4.0% used" in page
        assert "enough for 48 more candidates" in page
        spend(made, *range(2, 50))
        assert "nothing left: a person decides on every candidate" in client.get("/").text


def test_drift_is_that_of_what_serves() -> None:
    verdict = passing_verdict(numbered(1))
    row = next(row for row in verdict.criteria if row.name.startswith("drift: "))
    lost = row.model_copy(update={"observed": -0.005})
    served = verdict.model_copy(update={"criteria": (lost,)})
    found = budgets(shipped_policy(), Campaign("default-1", {}), served)
    assert [budget.title for budget in found] == [
        "Error budget of the campaign",
        f"Drift on {row.name.removeprefix('drift: ')}",
    ]
    assert found[1].share == 0.25
    assert found[1].text == "1.5 of 2.0 points left since the first release"
    # Before anything came through the gate there is no drift to speak of.
    assert len(budgets(shipped_policy(), Campaign("default-1", {}), None)) == 1


def test_an_unreadable_policy_takes_the_budgets_away_and_not_the_page(
    sqlite_database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text("version: 9")
    made = desk(sqlite_database, settings=GatekeeperSettings(gate_policy_path=path))
    with made.client() as client:
        log_in(client, made)
        page = client.get("/")
    assert page.status_code == 200
    assert "Budgets" not in page.text
