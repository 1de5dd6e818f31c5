"""Every way of going round the gate that was thought of, and the test in which it fails closed.

Those that belong to one module are tested beside it and named in ``WAYS``; those that take several
are here.
"""

import importlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from deploy.release import ReleaseDesk
from gatekeeper.cases import CaseState
from gatekeeper.ledger import Ledger
from gatekeeper.tables import LedgerRow, VerdictRow
from tacit.checkpoints import CheckpointStore
from tacit.contracts import DecisionOutcome
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError
from tacit.keys import KeyStore
from tests.builders import MOMENT, digest
from tests.gatekeeper.builders import DAY_S, FakeClock, good_report, new_signer, numbered, office
from tests.gatekeeper.scenes import Desk, desk

CANDIDATE = numbered(1)
ID = CANDIDATE.candidate_id
HERE = "tests.gatekeeper."

WAYS = {
    "a forged approval": "test_decide:test_forged_approval_is_refused",
    "an approval replayed": "test_decide:test_approval_replayed_on_another_candidate_is_refused",
    "a used token": "test_review_tokens:test_token_decides_as_its_reviewer_and_works_once",
    "a tag without a token": (
        "test_review_tokens:test_tag_with_a_token_decides_and_any_other_tag_does_not"
    ),
    "an expired candidate": (
        "test_decide:test_expired_candidate_cannot_be_approved_and_is_closed_by_the_gate"
    ),
    "an approval of another verdict": (
        "test_decide:test_approval_of_a_verdict_the_reviewer_did_not_see_is_refused"
    ),
    "a swapped report, when judged": (
        "test_decide:test_swapped_report_never_gets_as_far_as_a_person"
    ),
    "a swapped report, on the page": (
        "test_pages:test_swapped_report_shows_an_error_instead_of_a_form"
    ),
    "a policy edited after the verdict": (
        "test_decide:test_policy_edited_after_the_verdict_blocks_approval"
    ),
    "a policy that one person answers for": (
        "test_approvals:test_policy_that_one_person_answers_for_promotes_nothing_by_itself"
    ),
    "the sender of a policy as its approver": (
        "test_approvals:test_who_sent_a_policy_change_is_not_its_only_approver"
    ),
    "a policy changed by nobody known": (
        "test_approvals:test_policy_changed_by_nobody_known_takes_two_people"
    ),
    "a reviewer without the role": ("test_api:test_who_is_no_reviewer_of_the_line_decides_nothing"),
    "one person as two": "test_approvals:test_four_eyes_means_two_people_and_one_no_is_enough",
    "a fail overridden": "test_approvals:test_some_fails_nobody_can_override",
    "a clock set back": ("test_decide:test_clock_set_back_does_not_revive_an_expired_candidate"),
    "two racing decisions": (
        "test_decide:test_of_racing_decisions_one_wins_and_the_others_learn_who"
    ),
    "a form of another site": (
        "test_pages:test_form_without_the_token_of_this_session_decides_nothing"
    ),
    "a script in a prompt": "test_pages:test_stored_script_is_text",
    "a verdict altered": "test_decide:test_verdict_altered_in_the_database_does_not_count",
    "a tampered ledger": ("test_ledger:test_each_row_altered_in_turn_is_named_and_only_it"),
    "a genesis after a verdict": "test_decide:test_genesis_is_no_way_round_a_verdict",
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_has_its_test(way: str) -> None:
    module, _, name = WAYS[way].partition(":")
    assert callable(getattr(importlib.import_module(HERE + module), name))


def post(made: Desk, path: str, who: str, **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {made.keys[who]}"}
    with made.client() as client:
        return client.post(f"/v1/candidates/{ID}/{path}", json=body, headers=headers)


def state(made: Desk) -> CaseState:
    gatekeeper = made.office.gatekeeper
    return gatekeeper.state(*gatekeeper.case(ID))


@pytest.mark.parametrize("who", ["sender", "reader", "elsewhere"])
@pytest.mark.parametrize("path", ["approve", "reject", "tokens"])
def test_key_that_sends_feedback_or_reads_does_not_decide(
    sqlite_database: Database, who: str, path: str
) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    body = {"outcome": "approved"} if path == "tokens" else {}
    assert post(made, path, who, reason="mine", **body).status_code == 403
    assert state(made) is CaseState.PENDING


def test_revoked_reviewer_does_not_decide(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    KeyStore(sqlite_database).revoke("ada")
    assert post(made, "approve", "reviewer", reason="still me").status_code == 401
    assert state(made) is CaseState.PENDING


def test_report_swapped_after_the_verdict_stops_the_api(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    made.reader.reports[CANDIDATE.digest()] = good_report(CANDIDATE, errors=("x",))
    assert post(made, "approve", "reviewer", reason="good").status_code == 409
    made.reader.candidates[ID] = numbered(2)
    assert post(made, "approve", "reviewer", reason="good").status_code == 409
    assert state(made) is CaseState.PENDING


def test_candidate_whose_verdict_was_taken_away_is_unknown(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with sqlite_database.session() as session:
        session.execute(delete(VerdictRow))
    assert post(made, "approve", "reviewer", reason="good").status_code == 404


def test_clock_set_back_after_an_approval_ended_does_not_promote_it(
    database: Database, tmp_path: Path
) -> None:
    clock = FakeClock()
    signer = new_signer()
    ledger = Ledger(database, signer, clock=clock)
    releases = ReleaseDesk(
        database, CheckpointStore(tmp_path), signer, ledger.append, clock=ledger.moment
    )
    clock.advance(8 * DAY_S)
    with database.session() as session:
        ledger.append(session, "verdict", "c-later", {})
    clock.advance(-8 * DAY_S)
    assert releases._clock() == MOMENT + timedelta(days=8)


@pytest.mark.parametrize("column", ["entry", "subject", "kind", "leaf_hash", "root", "signature"])
def test_every_row_of_a_real_story_altered_in_turn_is_found(
    sqlite_database: Database, column: str
) -> None:
    desk_office = office(sqlite_database)
    desk_office.submit(CANDIDATE)
    desk_office.gatekeeper.decide(ID, DecisionOutcome.APPROVED, by="ada", reason="good")
    desk_office.submit(numbered(2))
    with sqlite_database.reader() as session:
        rows = {
            row.sequence: getattr(row, column) for row in session.scalars(select(LedgerRow)).all()
        }
    assert len(rows) == 5
    for sequence, text in rows.items():
        here = update(LedgerRow).where(LedgerRow.sequence == sequence)
        for other in (text[:-2] + ("00" if text[-2:] != "00" else "11"), ""):
            with sqlite_database.session() as session:
                session.execute(here.values({column: other}))
            named = {p.split(":")[0] for p in desk_office.ledger.verify().problems}
            assert named == {f"entry {sequence}"}, (column, other)
        with sqlite_database.session() as session:
            session.execute(here.values({column: text}))
    assert desk_office.ledger.verify().ok


def test_nothing_is_decided_on_a_ledger_whose_last_entry_was_cut_and_forged(
    sqlite_database: Database,
) -> None:
    desk_office, forger = office(sqlite_database), new_signer()
    desk_office.submit(CANDIDATE)
    with sqlite_database.session() as session:
        last = session.scalars(select(LedgerRow).order_by(LedgerRow.sequence.desc())).first()
        assert last is not None
        last.signature = forger.seal(desk_office.signer.open(last.signature))
    with pytest.raises(IntegrityError):
        desk_office.gatekeeper.decide(ID, DecisionOutcome.APPROVED, by="ada", reason="good")


def test_decision_is_never_taken_back_by_a_later_one(sqlite_database: Database) -> None:
    desk_office = office(sqlite_database)
    desk_office.submit(CANDIDATE)
    desk_office.gatekeeper.decide(ID, DecisionOutcome.REJECTED, by="ada", reason="no")
    with sqlite_database.session() as session:
        assert desk_office.gatekeeper.supersede(session, "default", by="anything") == 0
    for outcome in (DecisionOutcome.APPROVED, DecisionOutcome.REJECTED):
        with pytest.raises(ConflictError, match="rejected by ada"):
            desk_office.gatekeeper.decide(
                ID, outcome, by="bob", reason="yes", verdict_digest=digest("x")
            )
