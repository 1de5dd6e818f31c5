"""The JSON API decides only for reviewers, and only on the evidence that was judged."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from gatekeeper.ledger import verify_export
from tacit.database import Database
from tests.builders import digest
from tests.gatekeeper.builders import failing_verdict, good_report, numbered
from tests.gatekeeper.helpdesk import helpdesk_report
from tests.gatekeeper.scenes import Desk, desk

CANDIDATE = numbered(1)
ID = CANDIDATE.candidate_id


def call(
    client: TestClient,
    made: Desk,
    method: str,
    path: str,
    *,
    who: str = "reviewer",
    body: Any = None,
) -> Any:
    headers = {"Authorization": f"Bearer {made.keys[who]}"}
    return client.request(method, f"/v1{path}", json=body, headers=headers)


def test_candidate_is_listed_shown_and_approved(database: Database) -> None:
    made = desk(database)
    made.put(CANDIDATE, evidence=good_report(CANDIDATE))
    with made.client() as client:
        listed = call(client, made, "GET", "/candidates?policy=default", who="reader").json()
        assert [
            (row["candidate_id"], row["state"], row["verdict"]) for row in listed["candidates"]
        ] == [(ID, "pending", "pass")]
        shown = call(client, made, "GET", f"/candidates/{ID}", who="reader").json()
        assert shown["decision"] is None
        assert [suite["name"] for suite in shown["report"]["suites"]] == ["old-world", "holdout"]
        assert "items" not in shown["report"]["suites"][0]
        body = {"reason": "better", "verdict_digest": shown["verdict_digest"]}
        answer = call(client, made, "POST", f"/candidates/{ID}/approve", body=body)
        assert answer.status_code == 200
        assert answer.json()["decision"]["decided_by"] == "ada"
        shown = call(client, made, "GET", f"/candidates/{ID}").json()
        assert (shown["state"], shown["decision"]["reason"]) == ("approved", "better")


@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize("who", ["sender", "reader", "elsewhere"])
def test_who_is_no_reviewer_of_the_line_decides_nothing(
    sqlite_database: Database, verb: str, who: str
) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        answer = call(
            client, made, "POST", f"/candidates/{ID}/{verb}", who=who, body={"reason": "mine"}
        )
        assert answer.status_code == 403
        anonymous = client.post(f"/v1/candidates/{ID}/{verb}", json={"reason": "mine"})
        assert anonymous.status_code == 401
    assert made.office.gatekeeper.decision_on(CANDIDATE.digest()) is None


@pytest.mark.parametrize("path", ["/candidates", f"/candidates/{ID}", "/ledger", "/ledger/verify"])
def test_reading_needs_scope_read(sqlite_database: Database, path: str) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        assert call(client, made, "GET", path, who="sender").status_code == 403
        assert client.get(f"/v1{path}").status_code == 401
        assert call(client, made, "GET", path, who="reader").status_code == 200


def test_key_of_another_line_sees_no_candidate(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        for path in ("/candidates?policy=default", f"/candidates/{ID}"):
            assert call(client, made, "GET", path, who="elsewhere").status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"reason": ""}, 422),
        ({"reason": "   "}, 422),
        ({}, 422),
        ({"reason": "a\x00b"}, 422),
        ({"reason": "x" * 5_000}, 422),
        ({"reason": "good", "force": True}, 422),
        ({"reason": "good", "verdict_digest": digest("another")}, 409),
    ],
)
def test_bad_request_decides_nothing_and_says_what_was_expected(
    sqlite_database: Database, body: Any, status: int
) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        answer = call(client, made, "POST", f"/candidates/{ID}/approve", body=body)
    assert answer.status_code == status
    assert answer.json()["error"]["expected"]
    assert made.office.gatekeeper.decision_on(CANDIDATE.digest()) is None


def test_approving_a_fail_is_refused_with_the_reason(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    broken = good_report(CANDIDATE, errors=("suite safety: file not found",))
    made.put(CANDIDATE, evidence=broken, verdict=failing_verdict(CANDIDATE))
    with made.client() as client:
        answer = call(client, made, "POST", f"/candidates/{ID}/approve", body={"reason": "please"})
    assert answer.status_code == 403
    assert "file not found" in answer.json()["error"]["got"]


def test_report_swapped_after_the_verdict_blocks_approval_but_not_rejection(
    sqlite_database: Database,
) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    made.reader.reports[CANDIDATE.digest()] = helpdesk_report(CANDIDATE)
    with made.client() as client:
        for method, path in (("GET", f"/candidates/{ID}"), ("POST", f"/candidates/{ID}/approve")):
            answer = call(client, made, method, path, body={"reason": "good"})
            assert answer.status_code == 409
            assert "which was judged" in answer.json()["error"]["expected"]
        rejected = call(client, made, "POST", f"/candidates/{ID}/reject", body={"reason": "odd"})
        assert rejected.status_code == 200


def test_candidate_swapped_after_the_verdict_blocks_approval(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    made.reader.candidates[ID] = numbered(2)
    with made.client() as client:
        answer = call(client, made, "POST", f"/candidates/{ID}/approve", body={"reason": "good"})
    assert answer.status_code == 409


def test_second_decision_gets_who_decided(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        call(client, made, "POST", f"/candidates/{ID}/reject", body={"reason": "first"})
        answer = call(client, made, "POST", f"/candidates/{ID}/approve", body={"reason": "second"})
    assert answer.status_code == 409
    assert "rejected by ada" in answer.json()["error"]["got"]


def test_ledger_is_exported_and_verifies_elsewhere(database: Database) -> None:
    made = desk(database)
    made.put(CANDIDATE)
    with made.client() as client:
        export = call(client, made, "GET", "/ledger", who="reader").json()
        check = call(client, made, "GET", "/ledger/verify", who="reader").json()
    assert check["ok"]
    assert verify_export(export, made.office.signer).root == check["root"]


def test_unknown_candidate_is_404(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    with made.client() as client:
        assert call(client, made, "GET", "/candidates/c-none").status_code == 404
        answer = call(client, made, "POST", "/candidates/c-none/approve", body={"reason": "x"})
        assert answer.status_code == 404
