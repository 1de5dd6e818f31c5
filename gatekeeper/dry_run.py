"""What a gate policy would have said about every candidate so far. Changes nothing."""

from collections.abc import Iterator

from gatekeeper.casebook import CaseBook
from gatekeeper.cases import CaseState
from gatekeeper.dossier import CandidateReader, read_evidence
from gatekeeper.gate import judge
from gatekeeper.policy import GatePolicy
from tacit.contracts import Part, VerdictOutcome
from tacit.contracts.base import Name, UtcDatetime
from tacit.errors import TacitError


class DryRun(Part):
    """One past candidate under another policy."""

    candidate_id: str
    created_at: UtcDatetime
    state: CaseState
    was: VerdictOutcome
    would_be: VerdictOutcome | None
    """None where the evidence is no longer there as it was judged."""
    because: tuple[str, ...]
    """Criteria that do not pass under the policy, each with what was found; or what is wrong with
    the evidence."""


def dry_run(
    policy: GatePolicy, gatekeeper: CaseBook, candidates: CandidateReader, *, line: Name
) -> Iterator[DryRun]:
    """Every judged candidate of the policy line ``line``, newest first."""
    for case, decided in gatekeeper.cases(line):
        would_be: VerdictOutcome | None = None
        because: tuple[str, ...]
        try:
            candidate, report = read_evidence(case, candidates)
        except TacitError as error:
            because = (str(error),)
        else:
            verdict = judge(candidate, report, policy)
            would_be = verdict.outcome
            because = tuple(
                f"{row.name}: {row.why}"
                for row in verdict.criteria
                if row.outcome is not VerdictOutcome.PASS
            )
        yield DryRun(
            candidate_id=case.candidate_id,
            created_at=case.created_at,
            state=gatekeeper.state(case, decided),
            was=case.verdict.outcome,
            would_be=would_be,
            because=because,
        )
