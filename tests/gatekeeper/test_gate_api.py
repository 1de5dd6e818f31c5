"""Gate policies are sent by admins and tried out on what was; tokens are issued to reviewers."""

from typing import Any

import pytest
import yaml

from gatekeeper.policy import DEFAULT_PATH
from tacit.contracts import DecisionOutcome
from tacit.database import Database
from tests.builders import comparison, suite_result
from tests.gatekeeper.builders import failing_verdict, good_report, holdout, numbered
from tests.gatekeeper.scenes import Desk, desk

CANDIDATE = numbered(1)
ID = CANDIDATE.candidate_id


def policy(**changes: Any) -> dict[str, Any]:
    return yaml.safe_load(DEFAULT_PATH.read_text()) | changes


def post(made: Desk, path: str, body: Any, who: str = "reviewer") -> Any:
    with made.client() as client:
        headers = {"Authorization": f"Bearer {made.keys[who]}"}
        return client.post(f"/v1{path}", json=body, headers=headers)


def strict() -> dict[str, Any]:
    criteria = policy()["criteria"]
    return policy(criteria=[c | {"margin": 0.0} if "margin" in c else c for c in criteria])


def test_dry_run_says_what_another_policy_would_have_decided(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    slightly = suite_result(versus_champion=comparison(-0.02, half_width=0.005))
    made.put(CANDIDATE, evidence=good_report(CANDIDATE, suites=(slightly, holdout())))
    lost = numbered(2)
    made.put(lost, verdict=failing_verdict(lost))  # its report is not the one it was judged on
    answer = post(made, "/gate/dry-run", strict(), who="reader").json()["candidates"]
    rows = {row["candidate_id"]: row for row in answer}
    assert rows[lost.candidate_id]["would_be"] is None
    assert "which was judged" in rows[lost.candidate_id]["because"][0]
    assert post(made, "/gate/dry-run", policy(), who="sender").status_code == 403


def test_dry_run_names_the_criteria_and_changes_nothing(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    (row,) = post(made, "/gate/dry-run", policy()).json()["candidates"]
    assert (row["was"], row["would_be"], row["because"]) == ("pass", "pass", [])
    (row,) = post(made, "/gate/dry-run", strict()).json()["candidates"]
    assert (row["was"], row["would_be"]) == ("pass", "inconclusive")
    assert row["because"][0].startswith("kept: old-world: ")
    assert len(made.office.ledger.entries()) == 2


def test_policy_is_sent_by_admins_alone_and_in_full(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    assert post(made, "/gate/policy", policy()).status_code == 403
    assert post(made, "/gate/policy", policy(version=2), who="admin").status_code == 422
    answer = post(made, "/gate/policy", policy(), who="admin").json()
    assert answer["sent_by"] == "root"
    (entry,) = made.office.ledger.find(answer["digest"])
    assert (entry.kind, entry.body()["by"]) == ("gate_policy_sent", "root")


@pytest.mark.parametrize(("who", "status"), [("reader", 403), ("sender", 403), ("elsewhere", 403)])
def test_who_is_no_reviewer_gets_no_token(sqlite_database: Database, who: str, status: int) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    body = {"outcome": "approved", "reason": "good"}
    assert post(made, f"/candidates/{ID}/tokens", body, who=who).status_code == status


def test_token_is_bound_to_who_asked(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    body = {"outcome": "approved", "reason": "good"}
    answer = post(made, f"/candidates/{ID}/tokens", body).json()
    assert (answer["reviewer"], answer["outcome"]) == ("ada", "approved")
    assert answer["token"].startswith("tacit-review.")
    body = {"outcome": "expired", "reason": "good"}
    assert post(made, f"/candidates/{ID}/tokens", body).status_code == 422
    made.office.gatekeeper.decide(ID, DecisionOutcome.REJECTED, by="bob", reason="no")
    body = {"outcome": "approved", "reason": "good"}
    assert post(made, f"/candidates/{ID}/tokens", body).status_code == 409
