"""Reading cases: what waits, what was decided, and where each candidate stands now."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.orm import Session

from gatekeeper.approvals import find_approvals
from gatekeeper.cases import Case, CaseState, SignedDecision, cases_of, find_case, find_decision
from gatekeeper.ledger import Ledger
from tacit.contracts import Approval, GateVerdict
from tacit.database import Database
from tacit.errors import NotFoundError
from tacit.signing import Signer


class CaseBook:
    """The read side of the gatekeeper; every signature is verified on the way out."""

    def __init__(
        self, db: Database, signer: Signer, ledger: Ledger, *, clock: Callable[[], datetime]
    ) -> None:
        self._db = db
        self._signer = signer
        self._ledger = ledger
        self.clock = clock

    def pending(self, policy: str) -> list[Case]:
        """Candidates that wait for a person, newest first."""
        return [
            case
            for case, decision in self.cases(policy)
            if self.state(case, decision) is CaseState.PENDING
        ]

    def cases(self, policy: str) -> list[tuple[Case, SignedDecision | None]]:
        """All candidates of a line that were judged, newest first, with what was decided."""
        with self._db.reader() as session:
            return [
                (case, find_decision(session, case.verdict.candidate_digest, self._signer))
                for case in cases_of(session, policy, self._signer)
            ]

    def case(self, candidate_id: str) -> tuple[Case, SignedDecision | None]:
        """One candidate with what was decided. Raises NotFoundError, IntegrityError."""
        with self._db.reader() as session:
            case = find_case(session, candidate_id, self._signer)
            return case, find_decision(session, case.verdict.candidate_digest, self._signer)

    def decision_id_of(self, candidate_id: str) -> str | None:
        """Id of the decision on a candidate; None if it was not judged or not decided."""
        try:
            _, decided = self.case(candidate_id)
        except NotFoundError:
            return None
        return None if decided is None else decided.decision.decision_id

    def approvals(self, case: Case) -> list[Approval]:
        """Who approved ``case`` so far, oldest first. Raises IntegrityError."""
        with self._db.reader() as session:
            return find_approvals(session, case, self._signer)

    def state(self, case: Case, decided: SignedDecision | None) -> CaseState:
        """Where ``case`` stands at this moment."""
        with self._db.reader() as session:
            now = self._now(session)
        return case.state(None if decided is None else decided.decision, now=now)

    def verdict_of(self, candidate_id: str) -> GateVerdict:
        """The verdict on a candidate. Raises NotFoundError, IntegrityError."""
        return self.case(candidate_id)[0].verdict

    def _now(self, session: Session) -> datetime:
        return self._ledger.now(session, self.clock())
