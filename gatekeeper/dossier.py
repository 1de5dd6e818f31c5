"""Everything a reviewer looks at before deciding on a candidate, checked to belong together.

The gatekeeper may not import the stages that made the evidence, so the service hands it a
``CandidateReader``. What the reader returns is shown only if it has the digests that were judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from gatekeeper.cases import Case, CaseState, SignedDecision
from gatekeeper.decide import Gatekeeper
from gatekeeper.gate import NO_REPORT
from tacit.contracts import (
    Digest,
    EvalReport,
    EventStatus,
    Part,
    PolicyCandidate,
    Purpose,
    ScreenedEvent,
)
from tacit.contracts.base import Name
from tacit.cycles import CycleState
from tacit.errors import IntegrityError


class LoopStatus(Part):
    """Where the loop of a policy line stands."""

    policy: Name
    cycle_id: str | None = None
    """The cycle under way; None before the first."""
    cycle_state: CycleState | None = None
    cycle_purpose: Purpose | None = None
    last_state: CycleState | None = None
    """How the cycle before it ended."""
    last_reason: str | None = None
    """Why that one was rejected or failed."""
    events: Mapping[EventStatus, int] = Field(default_factory=dict)
    """Number of feedback events by status."""
    num_trainable: int = 0
    """Interactions whose feedback the next batch could take."""
    num_needed: int = 0
    """As many of them start a cycle."""
    release_id: str | None = None
    """What serves; None before the first release."""
    weights: Digest | None = None
    """Checkpoint of that release."""
    rollout: str | None = None
    """A newer release that not everybody is answered by yet, and how far it has come."""
    mlflow_url: str | None = None


class CandidateReader(Protocol):
    """What the gatekeeper asks the rest of the service."""

    def candidate(self, candidate_id: str) -> PolicyCandidate:
        """The candidate. Raises NotFoundError."""
        ...

    def report(self, candidate_digest: Digest) -> EvalReport | None:
        """The report about a candidate, if it was evaluated."""
        ...

    def learned(self, candidate_id: str) -> Sequence[ScreenedEvent]:
        """The feedback in the candidate's batch, in training order."""
        ...

    def mlflow_url(self, candidate_id: str) -> str | None:
        """Where a person sees the candidate's MLflow run."""
        ...

    def status(self) -> LoopStatus:
        """Where the loop stands now."""
        ...


@dataclass(frozen=True)
class Dossier:
    """One candidate with its verdict, its evidence and what was decided."""

    candidate: PolicyCandidate
    case: Case
    state: CaseState
    decided: SignedDecision | None
    report: EvalReport | None


def open_dossier(gatekeeper: Gatekeeper, candidates: CandidateReader, candidate_id: str) -> Dossier:
    """The dossier of a candidate.

    Raises NotFoundError; IntegrityError if candidate or report are not those that were judged.
    """
    case, decided = gatekeeper.case(candidate_id)
    candidate, report = read_evidence(case, candidates)
    return Dossier(candidate, case, gatekeeper.state(case, decided), decided, report)


def read_evidence(
    case: Case, candidates: CandidateReader
) -> tuple[PolicyCandidate, EvalReport | None]:
    """Candidate and report of a case.

    Raises NotFoundError; IntegrityError if they are not those that were judged.
    """
    candidate = candidates.candidate(case.candidate_id)
    if candidate.digest() != case.verdict.candidate_digest:
        raise IntegrityError(
            f"candidate {case.verdict.candidate_digest}, which was judged", got=candidate.digest()
        )
    report = candidates.report(case.verdict.candidate_digest)
    found = NO_REPORT if report is None else report.digest()
    if found != case.verdict.report_digest:
        raise IntegrityError(
            f"report {case.verdict.report_digest}, which was judged",
            got=found,
            mend="The stored report was altered or swapped: reject the candidate.",
        )
    return candidate, report
