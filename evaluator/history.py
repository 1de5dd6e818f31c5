"""What earlier reports of a policy line said: kept without items, so that many are read at once."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from evaluator.tables import ReportOutlineRow
from tacit.contracts import EvalReport, ReportOutline, Suite, SuiteChange
from tacit.database import Database

MAX_REPORTS = 50
"""Reports a history goes back."""


class ReportHistory:
    """Outlines of reports, in the order in which they were made."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, session: Session, report: EvalReport) -> None:
        """Keep the outline of ``report``, in the transaction that keeps the report."""
        outline = ReportOutline.of(report)
        session.merge(
            ReportOutlineRow(
                report_id=report.report_id,
                policy=report.policy,
                payload=outline.canonical_json().decode(),
                created_at=report.created_at,
            )
        )

    def of(self, policy: str, *, limit: int = MAX_REPORTS) -> list[ReportOutline]:
        """The last ``limit`` reports of a policy line, oldest first."""
        query = select(ReportOutlineRow.payload).where(ReportOutlineRow.policy == policy)
        newest = query.order_by(ReportOutlineRow.created_at.desc()).limit(limit)
        with self._db.reader() as session:
            payloads = list(session.scalars(newest))
        return [ReportOutline.model_validate_json(text) for text in reversed(payloads)]


def changed_suites(
    previous: ReportOutline | None, suites: Sequence[Suite]
) -> tuple[SuiteChange, ...]:
    """Suites that are not what they were in ``previous``; none without a report before."""
    if previous is None:
        return ()
    before = {suite.name: suite.suite_digest for suite in previous.suites}
    after = {suite.name: suite.digest() for suite in suites}
    return tuple(
        SuiteChange(name=name, before=before.get(name), after=after.get(name))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    )
