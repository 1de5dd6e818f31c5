"""Decisions: each test is one way round the gate, and each fails closed."""

import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from gatekeeper.cases import CaseState
from gatekeeper.decide import SignedDecision
from gatekeeper.gate import judge
from gatekeeper.policy import DEFAULT_PATH
from gatekeeper.refusals import MAX_REASON_LENGTH
from gatekeeper.tables import DecisionRow, LedgerRow, VerdictRow
from tacit.config import GatekeeperSettings
from tacit.contracts import Decision, DecisionOutcome
from tacit.database import Database
from tacit.errors import (
    ConfigError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotAllowedError,
    NotFoundError,
)
from tests.builders import digest
from tests.gatekeeper.builders import (
    DAY_S,
    failing_verdict,
    good_report,
    new_signer,
    numbered,
    office,
    passing_verdict,
    shipped_policy,
)

APPROVED, REJECTED = DecisionOutcome.APPROVED, DecisionOutcome.REJECTED
EXPIRED = DecisionOutcome.EXPIRED
CANDIDATE = numbered(1)
ID = CANDIDATE.candidate_id


def test_approval_binds_what_was_judged_and_is_in_the_ledger(database: Database) -> None:
    desk = office(database)
    verdict = desk.submit(CANDIDATE)
    decision, envelope = desk.gatekeeper.decide(ID, APPROVED, by="ada", reason=" better ")
    assert decision.candidate_digest == CANDIDATE.digest()
    assert decision.weights == CANDIDATE.weights
    assert decision.batch_digest == CANDIDATE.batch_digest
    assert decision.report_digest == good_report(CANDIDATE).digest()
    assert decision.verdict_digest == verdict.digest()
    assert (decision.decided_by, decision.reason) == ("ada", "better")
    assert decision.valid_until == desk.clock() + timedelta(days=7)
    assert Decision.model_validate(desk.signer.open(envelope)) == decision
    assert desk.gatekeeper.decision_on(CANDIDATE.digest()) == SignedDecision(decision, envelope)
    newest = desk.ledger.entries(1)[0]
    assert newest.subject == decision.decision_id
    assert newest.body()["decision_digest"] == decision.digest()
    assert desk.ledger.verify().ok


def test_second_decision_is_refused_and_names_the_first(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE)
    desk.gatekeeper.decide(ID, REJECTED, by="ada", reason="too terse")
    with pytest.raises(ConflictError, match=r"rejected by ada at .*: too terse"):
        desk.gatekeeper.decide(ID, APPROVED, by="bob", reason="fine by me")


def test_of_racing_decisions_one_wins_and_the_others_learn_who(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE)
    people = [f"p{i}" for i in range(6)]
    barrier = threading.Barrier(len(people))
    won: list[str] = []
    refused: list[str] = []

    def decide(person: str) -> None:
        outcome = APPROVED if person in {"p0", "p2", "p4"} else REJECTED
        barrier.wait()
        try:
            desk.gatekeeper.decide(ID, outcome, by=person, reason="mine")
            won.append(person)
        except ConflictError as error:
            refused.append(error.got)

    threads = [threading.Thread(target=decide, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(refused) == len(people) - 1
    assert all(f"by {won[0]} " in got for got in refused)
    assert [entry.kind for entry in desk.ledger.entries()].count("decision") == 1


def test_approving_a_fail_is_refused_and_says_why(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE, failing_verdict(CANDIDATE))
    with pytest.raises(NotAllowedError, match=r"file not found.*only be rejected"):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="I insist")
    assert desk.gatekeeper.decision_on(CANDIDATE.digest()) is None


def test_gate_rejects_a_failing_candidate_itself(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE, failing_verdict(CANDIDATE))
    with desk.db.session() as session:
        decision, _ = desk.gatekeeper.reject_failed(session, ID)
    assert (decision.outcome, decision.decided_by) == (REJECTED, "gate")
    assert "complete" in decision.reason
    case, found = desk.gatekeeper.case(ID)
    assert desk.gatekeeper.state(case, found) is CaseState.REJECTED


def test_failure_too_long_for_a_reason_is_rejected_all_the_same(database: Database) -> None:
    desk = office(database)
    evidence = good_report(CANDIDATE, errors=("x" * 99_000, "nul \x00"))
    desk.submit(CANDIDATE, judge(CANDIDATE, evidence, shipped_policy()))
    with desk.db.session() as session:
        decision, _ = desk.gatekeeper.reject_failed(session, ID)
    assert len(decision.reason) <= MAX_REASON_LENGTH


def test_gate_does_not_reject_what_passed(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE)
    with desk.db.session() as session, pytest.raises(ConflictError, match="failed the gate"):
        desk.gatekeeper.reject_failed(session, ID)


@pytest.mark.parametrize("outcome", [APPROVED, REJECTED])
@pytest.mark.parametrize("reason", ["", "  \n", "a\x00b", "\ud800", "x" * (MAX_REASON_LENGTH + 1)])
def test_decision_needs_a_usable_reason(
    sqlite_database: Database, outcome: DecisionOutcome, reason: str
) -> None:
    desk = office(sqlite_database)
    desk.submit(CANDIDATE)
    with pytest.raises(InvalidInputError, match="reason"):
        desk.gatekeeper.decide(ID, outcome, by="ada", reason=reason)


def test_nobody_decides_in_the_name_of_the_gate(sqlite_database: Database) -> None:
    desk = office(sqlite_database)
    desk.submit(CANDIDATE)
    for name in ("gate", "", " "):
        with pytest.raises(InvalidInputError, match="person who decides"):
            desk.gatekeeper.decide(ID, APPROVED, by=name, reason="good")


def test_expired_candidate_cannot_be_approved_and_is_closed_by_the_gate(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE)
    desk.clock.advance(7 * DAY_S)
    assert desk.gatekeeper.pending("default") == []
    with pytest.raises(ConflictError, match="decided before"):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="late but good")
    signed = desk.gatekeeper.decision_on(CANDIDATE.digest())
    assert signed is not None
    assert (signed.decision.outcome, signed.decision.decided_by) == (EXPIRED, "gate")
    assert signed.decision.reason.startswith("expired")
    assert desk.gatekeeper.decision_on(CANDIDATE.digest()) == signed
    case, found = desk.gatekeeper.case(ID)
    assert desk.gatekeeper.state(case, found) is CaseState.EXPIRED
    assert desk.ledger.verify().ok


def test_clock_set_back_does_not_revive_an_expired_candidate(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE)
    desk.clock.advance(8 * DAY_S)
    desk.submit(numbered(2))
    desk.clock.advance(-8 * DAY_S)
    with pytest.raises(ConflictError, match="decided before"):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="it is last week again")
    assert [case.candidate_id for case in desk.gatekeeper.pending("default")] == [
        numbered(2).candidate_id
    ]


def test_approval_of_a_verdict_the_reviewer_did_not_see_is_refused(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE)
    with pytest.raises(ConflictError, match="verdict that stands"):
        desk.gatekeeper.decide(
            ID, APPROVED, by="ada", reason="good", verdict_digest=digest("another")
        )


def test_policy_edited_after_the_verdict_blocks_approval(
    sqlite_database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(DEFAULT_PATH.read_text())
    desk = office(sqlite_database, settings=GatekeeperSettings(gate_policy_path=path))
    desk.submit(CANDIDATE)
    path.write_text(DEFAULT_PATH.read_text().replace("margin: 0.03", "margin: 0.01"))
    with pytest.raises(ConflictError, match="edited after the verdict"):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="good")
    path.write_text("version: [")
    with pytest.raises(ConfigError):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="good")
    desk.gatekeeper.decide(ID, REJECTED, by="ada", reason="rejecting needs no policy")


def test_policy_edited_after_a_fail_does_not_turn_it(
    sqlite_database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(DEFAULT_PATH.read_text())
    desk = office(sqlite_database, settings=GatekeeperSettings(gate_policy_path=path))
    desk.submit(CANDIDATE, failing_verdict(CANDIDATE))
    path.write_text("version: 1\ncriteria: [{name: n, type: non_negotiable}]")
    with pytest.raises(NotAllowedError):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="passes now")


def test_verdict_about_something_else_cannot_be_submitted(database: Database) -> None:
    desk = office(database)
    with pytest.raises(InvalidInputError), desk.db.session() as session:
        desk.gatekeeper.submit(session, CANDIDATE, passing_verdict(numbered(2)))


def test_submitting_again_changes_nothing_and_a_second_verdict_is_refused(
    database: Database,
) -> None:
    desk = office(database)
    verdict = desk.submit(CANDIDATE, failing_verdict(CANDIDATE))
    desk.submit(CANDIDATE, verdict)
    with pytest.raises(ConflictError, match="judged fail"):
        desk.submit(CANDIDATE, passing_verdict(CANDIDATE))
    assert [entry.kind for entry in desk.ledger.entries()] == ["verdict", "gate_policy"]


def test_verdict_altered_in_the_database_does_not_count(sqlite_database: Database) -> None:
    desk = office(sqlite_database)
    desk.submit(CANDIDATE, failing_verdict(CANDIDATE))
    desk.submit(numbered(2))
    with desk.db.session() as session:
        passing = session.get_one(VerdictRow, numbered(2).candidate_id).payload
        session.execute(
            update(VerdictRow)
            .where(VerdictRow.candidate_id == ID)
            .values(payload=passing, outcome="pass")
        )
    with pytest.raises(IntegrityError, match=numbered(2).candidate_id):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="it says pass")


def test_expiry_prolonged_in_the_database_does_not_count(sqlite_database: Database) -> None:
    desk = office(sqlite_database)
    desk.submit(CANDIDATE)
    desk.clock.advance(8 * DAY_S)
    with desk.db.session() as session:
        later = desk.clock() + timedelta(days=30)
        session.execute(update(VerdictRow).values(expires_at=later))
    with pytest.raises(ConflictError, match="decided before"):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="still open")


def put_decision(db: Database, decision: Decision, envelope: str, *, subject: str) -> None:
    with db.session() as session:
        session.add(
            DecisionRow(
                subject=subject,
                policy=decision.policy,
                weights=decision.weights,
                outcome=decision.outcome,
                digest=digest("forged"),
                payload=decision.canonical_json().decode(),
                envelope=envelope,
                decided_at=decision.decided_at,
            )
        )


def test_forged_approval_is_refused(database: Database) -> None:
    desk, forger = office(database), new_signer()
    verdict = desk.submit(CANDIDATE)
    forged = Decision(
        policy="default",
        outcome=APPROVED,
        weights=CANDIDATE.weights,
        candidate_digest=CANDIDATE.digest(),
        report_digest=verdict.report_digest,
        batch_digest=verdict.batch_digest,
        verdict_digest=verdict.digest(),
        decided_by="ada",
        reason="forged",
        decided_at=desk.clock(),
        valid_until=None,
    )
    envelope = forger.seal(forged.model_dump(mode="json"))
    put_decision(desk.db, forged, envelope, subject=CANDIDATE.digest())
    with pytest.raises(IntegrityError, match="does not verify"):
        desk.gatekeeper.decision_on(CANDIDATE.digest())


def test_approval_replayed_on_another_candidate_is_refused(database: Database) -> None:
    desk, other = office(database), numbered(2)
    desk.submit(CANDIDATE)
    desk.submit(other)
    signed = desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="good")
    put_decision(desk.db, *signed, subject=other.digest())
    with pytest.raises(IntegrityError, match="expected the decision on"):
        desk.gatekeeper.decision_on(other.digest())
    with pytest.raises(IntegrityError):
        desk.gatekeeper.decide(other.candidate_id, APPROVED, by="ada", reason="good")


def test_altered_outcome_column_does_not_turn_a_rejection(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE)
    signed = desk.gatekeeper.decide(ID, REJECTED, by="ada", reason="no")
    with desk.db.session() as session:
        payload = signed.decision.canonical_json().decode().replace("rejected", "approved")
        session.execute(update(DecisionRow).values(outcome="approved", payload=payload))
    assert desk.gatekeeper.decision_on(CANDIDATE.digest()) == signed


def test_tampered_ledger_stops_decisions(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE)
    with desk.db.session() as session:
        row = session.scalars(select(LedgerRow).order_by(LedgerRow.sequence.desc())).first()
        assert row is not None
        envelope = json.loads(row.signature)
        envelope["signatures"][0]["sig"] = "AAAA"
        row.signature = json.dumps(envelope)
    with pytest.raises(IntegrityError):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="good")
    assert not desk.ledger.verify().ok


def test_genesis_is_open_once_for_a_line_and_signed(database: Database) -> None:
    desk = office(database)
    with desk.db.session() as session:
        decision, envelope = desk.gatekeeper.genesis(session, "default", digest("w"), by="ada")
        desk.gatekeeper.genesis(session, "other", digest("w"), by="ada")
    assert Decision.model_validate(desk.signer.open(envelope)) == decision
    for weights in ("w", "w2"):
        with pytest.raises(ConflictError, match="no history"), desk.db.session() as session:
            desk.gatekeeper.genesis(session, "default", digest(weights), by="eve")


def test_genesis_is_no_way_round_a_verdict(database: Database) -> None:
    desk = office(database)
    desk.submit(CANDIDATE, failing_verdict(CANDIDATE))
    with pytest.raises(ConflictError), desk.db.session() as session:
        desk.gatekeeper.genesis(session, "default", CANDIDATE.weights, by="eve")


def test_unknown_candidate_is_not_found(database: Database) -> None:
    desk = office(database)
    with pytest.raises(NotFoundError):
        desk.gatekeeper.decide("c-nobody", APPROVED, by="ada", reason="good")
    with pytest.raises(NotFoundError):
        desk.gatekeeper.verdict_of("c-nobody")
    assert desk.gatekeeper.decision_on(digest("nobody")) is None


def test_swapped_report_never_gets_as_far_as_a_person(database: Database) -> None:
    desk, other = office(database), numbered(2)
    swapped = judge(CANDIDATE, good_report(other), shipped_policy(), clock=desk.clock)
    desk.submit(CANDIDATE, swapped)
    with pytest.raises(NotAllowedError, match="something else"):
        desk.gatekeeper.decide(ID, APPROVED, by="ada", reason="looks good")
