"""Why a decision is refused. Everything that stands between a request and a signature is here."""

from datetime import datetime

from gatekeeper.cases import GATE, Case, SignedDecision
from tacit.contracts import DecisionOutcome, GateVerdict, PolicyCandidate, VerdictOutcome
from tacit.errors import ConflictError, InvalidInputError

MAX_REASON_LENGTH = 4_000


def require_about(verdict: GateVerdict, candidate: PolicyCandidate) -> None:
    """Raises InvalidInputError unless ``verdict`` is on exactly this candidate and batch."""
    about = (verdict.policy, verdict.candidate_digest, verdict.batch_digest)
    if about != (candidate.policy, candidate.digest(), candidate.batch_digest):
        raise InvalidInputError(
            f"a verdict on {candidate.candidate_id}", got=f"one on {verdict.candidate_digest}"
        )


def require_text(*, by: str, reason: str) -> None:
    """Raises InvalidInputError without a person's name and a usable reason."""
    if not by.strip() or by == GATE:
        raise InvalidInputError("the name of a person who decides", got=repr(by))
    if len(reason) > MAX_REASON_LENGTH or storable(reason) != reason:
        raise InvalidInputError(
            f"a reason of at most {MAX_REASON_LENGTH} characters, none of them NUL or half a pair",
            got=f"{len(reason)} characters",
        )
    if not reason.strip():
        raise InvalidInputError(
            "a reason", got="nothing", mend="Say in a sentence why; it goes into the ledger."
        )


def require_decidable(outcome: DecisionOutcome) -> None:
    """Raises InvalidInputError for an outcome that no person can give."""
    if outcome not in {DecisionOutcome.APPROVED, DecisionOutcome.REJECTED}:
        raise InvalidInputError("outcome approved or rejected", got=outcome)


def require_open(case: Case, found: SignedDecision | None, *, now: datetime) -> None:
    """Raises ConflictError if ``case`` is decided (naming who decided) or has expired."""
    if found is not None:
        decision = found.decision
        raise ConflictError(
            f"{case.candidate_id} to be undecided",
            got=f"{decision.outcome} by {decision.decided_by} at "
            f"{decision.decided_at.isoformat()}: {decision.reason}",
            mend="A decision is final; the next candidate gets its own.",
        )
    if now >= case.expires_at:
        raise ConflictError(
            f"{case.candidate_id} to be decided before {case.expires_at.isoformat()}",
            got=f"{now.isoformat()}",
            mend="Its evidence is too old; the next cycle makes a new candidate.",
        )


def failed_rows(verdict: GateVerdict) -> str:
    """The criteria that failed and why, in a line that fits a decision's reason."""
    rows = [row for row in verdict.criteria if row.outcome is VerdictOutcome.FAIL]
    return storable("; ".join(f"{row.name} ({row.why})" for row in rows))[: MAX_REASON_LENGTH - 100]


def storable(text: str) -> str:
    """``text`` without what UTF-8 or PostgreSQL cannot keep."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
