"""The audit page: finding entries, reading one in full, verifying, taking a copy."""

import re

import pytest
from fastapi.testclient import TestClient

from gatekeeper.ledger import verify_export
from gatekeeper.pages import audit as audit_page
from gatekeeper.proofs import InclusionProof, check_inclusion
from tacit.database import Database
from tests.gatekeeper.forms import log_in
from tests.gatekeeper.scenes import Desk, desk


@pytest.fixture
def made(sqlite_database: Database) -> Desk:
    return filled(sqlite_database)


def filled(database: Database) -> Desk:
    """61 entries: a start, and memos and notes in turn."""
    desk_made = desk(database)
    with database.session() as session:
        for number in range(61):
            kind = "start" if number == 0 else "note" if number % 2 else "memo"
            desk_made.office.ledger.append(session, kind, f"s-{number}", {"by": f"p-{number}"})
    return desk_made


def listed(client: TestClient, path: str) -> list[int]:
    page = client.get(path)
    assert page.status_code == 200, page.text
    return [int(number) for number in re.findall(r'href="/audit/(\d+)"', page.text)]


def test_entries_are_found_by_kind_words_and_page(database: Database) -> None:
    made = filled(database)
    with made.client() as client:
        log_in(client, made)
        assert listed(client, "/audit") == list(range(60, 10, -1))
        assert listed(client, "/audit?before=11") == list(range(10, -1, -1))
        assert listed(client, "/audit?kind=start") == [0]
        assert listed(client, "/audit?q=p-7") == [7]
        assert listed(client, "/audit?q=P-59&kind=note") == [59]
        assert listed(client, "/audit?q=p_7") == []
        assert listed(client, "/audit?q=%00&kind=%00") == listed(client, "/audit")


def test_one_entry_is_shown_as_it_was_hashed(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made)
        page = client.get("/audit/8").text
        assert "&#34;by&#34;: &#34;p-8&#34;" in page
        assert made.review.logbook.entry(8).leaf_hash in page
        assert 'href="/audit/9"' in page
        assert 'href="/audit/7"' in page
        proof = client.get("/audit/8/proof.json").json()["proofs"][0]
        check_inclusion(InclusionProof.model_validate(proof), made.office.signer)
        for beyond in ("61", "-1", str(2**70)):
            assert client.get(f"/audit/{beyond}").status_code == 404
        assert client.get("/audit/x").status_code == 422


def test_a_long_ledger_is_verified_when_somebody_asks(
    made: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_page, "NUM_VERIFIED_AT_ONCE", 10)
    with made.client() as client:
        log_in(client, made)
        page = client.get("/audit").text
        assert "61 entries" in page
        assert "Intact" not in page
        assert "Intact" in client.get("/audit?verify=1").text


def test_the_export_verifies_on_another_machine(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made)
        export = client.get("/audit/ledger.json").json()
    assert verify_export(export, made.office.signer).ok
    export["entries"][3]["subject"] = "another"
    assert not verify_export(export, made.office.signer).ok
