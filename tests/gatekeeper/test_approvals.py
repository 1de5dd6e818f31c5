"""Who it takes to approve: four eyes, overriding a fail, the sender of a policy, and no person."""

from pathlib import Path

import pytest
from sqlalchemy import update

from gatekeeper.cases import CaseState
from gatekeeper.decide import SignedDecision
from gatekeeper.gate import judge
from gatekeeper.policy import GatePolicy, load_gate_policy
from gatekeeper.tables import ApprovalRow, LedgerRow
from tacit.config import GatekeeperSettings
from tacit.contracts import Approval, Decision, DecisionOutcome, EvalReport
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError, InvalidInputError, NotAllowedError
from tests.builders import comparison, item_result, suite_result
from tests.gatekeeper.builders import DAY_S, Office, good_report, holdout, numbered, office

APPROVED, REJECTED = DecisionOutcome.APPROVED, DecisionOutcome.REJECTED
CANDIDATE = numbered(1)
ID = CANDIDATE.candidate_id

POLICY = """\
version: 1
criteria:
  - {name: kept, type: non_inferior, kind: regression, baseline: champion, margin: 0.03}
  - {name: safe, type: non_inferior, kind: safety, baseline: champion, margin: 0.03,
     if_missing: pass, non_negotiable: true}
  - {name: never, type: non_negotiable}
"""
WORSE = suite_result(versus_champion=comparison(-0.2, half_width=0.01))


class Bench:
    """An office under a gate policy of its own, in a file."""

    def __init__(self, db: Database, folder: Path, policy: str = POLICY) -> None:
        self.path = folder / "gate.yaml"
        self.path.write_text(policy)
        settings = GatekeeperSettings(gate_policy_path=self.path)
        self.office: Office = office(db, settings=settings)

    def write(self, policy: str) -> GatePolicy:
        self.path.write_text(policy)
        return load_gate_policy(self.path)

    def submit(self, number: int = 1, evidence: EvalReport | None = None) -> str:
        about = numbered(number)
        evidence = evidence or good_report(about)
        policy = load_gate_policy(self.path)
        self.office.submit(about, judge(about, evidence, policy, clock=self.office.clock))
        return about.candidate_id

    def approve(
        self, by: str, candidate_id: str = ID, *, is_admin: bool = False
    ) -> SignedDecision | None:
        return self.office.gatekeeper.decide(
            candidate_id, APPROVED, by=by, reason=f"{by} read it", is_admin=is_admin
        )

    def settle(self, candidate_id: str = ID) -> SignedDecision | None:
        with self.office.db.session() as session:
            return self.office.gatekeeper.settle(session, candidate_id)

    def state(self, candidate_id: str = ID) -> CaseState:
        return self.office.gatekeeper.state(*self.office.gatekeeper.case(candidate_id))

    def kinds(self) -> list[str]:
        return [entry.kind for entry in reversed(self.office.ledger.entries())]


def failing(*suites: object) -> EvalReport:
    return good_report(CANDIDATE, suites=(WORSE, holdout(), *suites))


def test_four_eyes_means_two_people_and_one_no_is_enough(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path, "approvers: 2\n" + POLICY)
    other = bench.submit(2)
    bench.submit()
    assert bench.approve("ada") is None
    assert bench.state() is CaseState.PENDING
    case, _ = bench.office.gatekeeper.case(ID)
    assert bench.office.gatekeeper.missing(case) == "It takes 2 people to approve; 1 did"
    with pytest.raises(ConflictError, match="another person than ada"):
        bench.approve("ada")
    signed = bench.approve("bob")
    assert signed is not None
    assert [approval.by for approval in signed.decision.approvals] == ["ada", "bob"]
    assert (signed.decision.decided_by, bench.state()) == ("bob", CaseState.APPROVED)
    assert bench.kinds() == [
        "gate_policy",
        "verdict",
        "verdict",
        "approval",
        "approval",
        "decision",
    ]
    bench.approve("ada", other)
    rejected = bench.office.gatekeeper.decide(other, REJECTED, by="bob", reason="no")
    assert rejected is not None
    assert bench.state(other) is CaseState.REJECTED
    assert bench.office.ledger.verify().ok


def test_decision_binds_the_gate_policy_and_old_ones_keep_their_digests(
    sqlite_database: Database, tmp_path: Path
) -> None:
    bench = Bench(sqlite_database, tmp_path)
    bench.submit()
    signed = bench.approve("ada")
    assert signed is not None
    assert signed.decision.gate_policy_digest == load_gate_policy(bench.path).digest()
    plain = signed.decision.model_copy(update={"gate_policy_digest": None, "approvals": ()})
    assert {"gate_policy_digest", "approvals", "overrides"}.isdisjoint(plain.model_dump())


def test_approval_altered_or_moved_in_the_database_stops_the_decision(
    sqlite_database: Database, tmp_path: Path
) -> None:
    bench = Bench(sqlite_database, tmp_path, "approvers: 2\n" + POLICY)
    bench.submit()
    bench.approve("ada")
    with sqlite_database.session() as session:
        session.execute(update(ApprovalRow).values(approved_by="bob"))
    with pytest.raises(IntegrityError, match="by bob"):
        bench.approve("ada")
    other = bench.submit(2)
    with sqlite_database.session() as session:
        moved = {"candidate_digest": numbered(2).digest(), "approved_by": "ada"}
        session.execute(update(ApprovalRow).values(moved))
    with pytest.raises(IntegrityError):
        bench.approve("bob", other)


def test_fail_is_rejected_at_once_unless_admins_may_override(
    sqlite_database: Database, tmp_path: Path
) -> None:
    bench = Bench(sqlite_database, tmp_path)
    bench.submit(evidence=failing())
    signed = bench.settle()
    assert signed is not None
    assert signed.decision.outcome is REJECTED


def test_fail_needs_an_admin_and_a_second_person_and_says_so_for_ever(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path, "overrides: admin\n" + POLICY)
    bench.submit(evidence=failing())
    assert bench.settle() is None
    with pytest.raises(NotAllowedError, match="an admin to approve first"):
        bench.approve("bob")
    assert bench.approve("ada", is_admin=True) is None
    with pytest.raises(ConflictError, match="another person"):
        bench.approve("ada", is_admin=True)
    with pytest.raises(InvalidInputError, match="reason"):
        bench.office.gatekeeper.decide(ID, APPROVED, by="bob", reason=" ")
    signed = bench.approve("bob")
    assert signed is not None
    assert signed.decision.overrides == ("kept: old-world",)
    newest = bench.office.ledger.entries(1)[0].body()
    assert newest["decision"]["overrides"] == ["kept: old-world"]


def test_decision_that_overrides_with_one_person_is_no_decision(
    sqlite_database: Database, tmp_path: Path
) -> None:
    bench = Bench(sqlite_database, tmp_path)
    bench.submit()
    signed = bench.approve("ada")
    assert signed is not None
    tree = signed.decision.model_dump(mode="json") | {"overrides": ["kept"]}
    with pytest.raises(ValueError, match="2 people"):
        Decision.model_validate(tree)
    twice = [Approval(by="ada", reason="x", at=signed.decision.decided_at).model_dump()] * 2
    with pytest.raises(ValueError, match="2 people"):
        Decision.model_validate(tree | {"approvals": twice})


NEVER = suite_result(
    "refusals",
    kind="safety",
    items=(item_result("never-1", non_negotiable=True, candidate=0.0),),
)
LESS_SAFE = suite_result(
    "refusals", kind="safety", versus_champion=comparison(-0.2, half_width=0.01)
)


@pytest.mark.parametrize(
    "evidence",
    [
        failing(NEVER),
        failing(LESS_SAFE),
        good_report(CANDIDATE, errors=("suite safety: checker crashed",)),
        good_report(numbered(2)),
    ],
    ids=["non-negotiable item", "non-negotiable criterion", "crashed checker", "swapped report"],
)
def test_some_fails_nobody_can_override(
    sqlite_database: Database, tmp_path: Path, evidence: EvalReport
) -> None:
    bench = Bench(sqlite_database, tmp_path, "overrides: admin\n" + POLICY)
    bench.submit(evidence=evidence)
    for person in ("ada", "bob"):
        with pytest.raises(NotAllowedError, match="only be rejected"):
            bench.approve(person, is_admin=True)
    signed = bench.settle()
    assert signed is not None
    assert signed.decision.outcome is REJECTED


LOOSE = POLICY.replace("0.03", "0.3")


def test_who_sent_a_policy_change_is_not_its_only_approver(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path)
    bench.submit()
    assert bench.approve("mallory") is not None
    bench.office.gatekeeper.send_policy(bench.write(LOOSE), by="mallory")
    other = bench.submit(2)
    assert bench.approve("mallory", other) is None
    case, _ = bench.office.gatekeeper.case(other)
    assert "mallory sent the gate policy" in str(bench.office.gatekeeper.missing(case))
    assert bench.approve("ada", other) is not None
    third = bench.submit(3)
    assert bench.approve("ada", third) is not None


def test_policy_changed_by_nobody_known_takes_two_people(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path)
    bench.submit(2)
    bench.write(LOOSE)
    bench.submit()
    assert bench.approve("mallory") is None
    assert bench.approve("ada") is not None
    assert bench.kinds().count("gate_policy") == 2


def test_sender_named_in_the_database_alone_stops_the_decision(
    sqlite_database: Database, tmp_path: Path
) -> None:
    bench = Bench(sqlite_database, tmp_path)
    bench.submit(2)
    bench.office.gatekeeper.send_policy(bench.write(LOOSE), by="mallory")
    bench.submit()
    sent = LedgerRow.kind == "gate_policy_sent"
    with sqlite_database.session() as session:
        row = session.query(LedgerRow).where(sent).one()
        row.entry = row.entry.replace("mallory", "ada")
    with pytest.raises(IntegrityError):
        bench.approve("mallory")


AUTO = "auto_promote: pass\n" + POLICY


def test_policy_that_says_so_approves_what_passes_and_nothing_else(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path, AUTO)
    bench.submit()
    signed = bench.settle()
    assert signed is not None
    assert (signed.decision.outcome, signed.decision.decided_by) == (APPROVED, "gate")
    assert signed.decision.approvals == ()
    assert "passed gate policy" in signed.decision.reason
    unsure = suite_result(versus_champion=comparison(-0.03, half_width=0.05))
    other = numbered(2)
    bench.submit(2, good_report(other, suites=(unsure, holdout())))
    assert bench.settle(other.candidate_id) is None
    third = bench.submit(3, good_report(numbered(3), suites=(WORSE,)))
    rejected = bench.settle(third)
    assert rejected is not None
    assert rejected.decision.outcome is REJECTED


def test_policy_that_one_person_answers_for_promotes_nothing_by_itself(
    sqlite_database: Database, tmp_path: Path
) -> None:
    bench = Bench(sqlite_database, tmp_path)
    bench.submit(2)
    auto = bench.write(AUTO)
    bench.submit()
    assert bench.settle() is None
    bench.office.gatekeeper.send_policy(auto, by="mallory")
    bench.office.gatekeeper.send_policy(auto, by="mallory")
    assert bench.settle() is None
    bench.office.gatekeeper.send_policy(auto, by="ada")
    assert bench.settle() is not None
    assert bench.kinds().count("gate_policy_sent") == 2


def test_policy_edited_after_the_verdict_neither_promotes_nor_overrides(
    sqlite_database: Database, tmp_path: Path
) -> None:
    bench = Bench(sqlite_database, tmp_path)
    bench.submit()
    other = bench.submit(2, good_report(numbered(2), suites=(WORSE,)))
    bench.write("overrides: admin\n" + AUTO)
    assert bench.settle() is None
    with pytest.raises(ConflictError, match="edited after the verdict"):
        bench.approve("ada", other, is_admin=True)
    signed = bench.settle(other)
    assert signed is not None
    assert signed.decision.outcome is REJECTED


def test_policy_says_how_long_a_candidate_waits_and_an_approval_is_good(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path, "approval_valid_for: 12h\n" + POLICY)
    bench.submit()
    bench.office.clock.advance(DAY_S / 2 - 1)
    signed = bench.approve("ada")
    assert signed is not None
    assert signed.decision.valid_until is not None
    assert (signed.decision.valid_until - bench.office.clock()).total_seconds() == DAY_S / 2
    other = bench.submit(2)
    bench.office.clock.advance(DAY_S / 2)
    with pytest.raises(ConflictError, match="decided before"):
        bench.approve("ada", other)


def test_overtaken_candidates_are_superseded_and_late_ones_expire(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path)
    late = bench.submit(2)
    bench.office.clock.advance(8 * DAY_S)
    bench.submit()
    newest = bench.submit(3)
    with database.session() as session:
        gatekeeper = bench.office.gatekeeper
        assert gatekeeper.supersede(session, "other", by="nothing") == 0
        assert gatekeeper.supersede(session, "default", by=f"candidate {newest}", but=newest) == 2
        assert gatekeeper.supersede(session, "default", by=f"candidate {newest}", but=newest) == 0
    states = [bench.state(candidate_id) for candidate_id in (late, ID, newest)]
    assert states == [CaseState.EXPIRED, CaseState.SUPERSEDED, CaseState.PENDING]
    _, decided = bench.office.gatekeeper.case(ID)
    assert decided is not None
    assert (decided.decision.decided_by, decided.decision.reason) == (
        "gate",
        f"superseded by candidate {newest}",
    )
    with pytest.raises(ConflictError, match="superseded by gate"):
        bench.approve("ada")


@pytest.mark.parametrize("outcome", [DecisionOutcome.EXPIRED, DecisionOutcome.SUPERSEDED])
def test_no_person_expires_or_supersedes(
    sqlite_database: Database, tmp_path: Path, outcome: DecisionOutcome
) -> None:
    bench = Bench(sqlite_database, tmp_path)
    bench.submit()
    with pytest.raises(InvalidInputError, match="approved or rejected"):
        bench.office.gatekeeper.decide(ID, outcome, by="ada", reason="x")
