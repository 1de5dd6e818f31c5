"""What the service hands the review desk, kept in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gatekeeper.dossier import LoopStatus
from tacit.contracts import Digest, EvalReport, EventStatus, PolicyCandidate, ScreenedEvent
from tacit.cycles import CycleState
from tacit.errors import NotFoundError
from tests.builders import digest


@dataclass
class MemoryReader:
    """A CandidateReader on dictionaries."""

    candidates: dict[str, PolicyCandidate] = field(default_factory=dict)
    reports: dict[Digest, EvalReport] = field(default_factory=dict)
    events: list[ScreenedEvent] = field(default_factory=list)
    url: str | None = "http://127.0.0.1:5000/#/experiments/1/runs/4f2a"

    def candidate(self, candidate_id: str) -> PolicyCandidate:
        if candidate_id not in self.candidates:
            raise NotFoundError("a candidate", got=candidate_id)
        return self.candidates[candidate_id]

    def report(self, candidate_digest: Digest) -> EvalReport | None:
        return self.reports.get(candidate_digest)

    def learned(self, candidate_id: str) -> Sequence[ScreenedEvent]:
        return self.events

    def mlflow_url(self, candidate_id: str) -> str | None:
        return self.url

    def status(self) -> LoopStatus:
        return LoopStatus(
            policy="default",
            cycle_id="default-7",
            cycle_state=CycleState.AWAITING_DECISION,
            events={
                EventStatus.ACCEPTED: 1_284,
                EventStatus.HOLDOUT: 141,
                EventStatus.QUARANTINED: 38,
                EventStatus.HELD: 3,
                EventStatus.DEAD_LETTER: 0,
            },
            release_id="r-default-6",
            weights=digest("champion"),
            mlflow_url="http://127.0.0.1:5000",
        )
