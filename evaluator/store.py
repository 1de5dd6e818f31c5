"""ReportStore: reports in the database, one a candidate."""

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from evaluator.history import ReportHistory
from evaluator.tables import ReportRow
from tacit.contracts import Digest, EvalReport
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError, NotFoundError


class ReportStore:
    """Adds and finds reports."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.history = ReportHistory(db)

    def add(self, session: Session, report: EvalReport) -> None:
        """Keep ``report``, in the caller's transaction; the same report again changes nothing.

        Raises ConflictError when the candidate has another report already: what a person decides
        on must not change under them.
        """
        query = select(ReportRow).where(ReportRow.candidate_digest == report.candidate_digest)
        known = session.scalar(query)
        if known is None:
            session.add(_row(report))
            self.history.add(session, report)
            session.flush()
        elif known.digest != report.digest():
            raise ConflictError(
                "one report a candidate",
                got=f"{report.report_id} beside {known.report_id} for {report.candidate_digest}",
            )

    def get(self, report_id: str) -> EvalReport:
        """The report called ``report_id``. Raises NotFoundError, IntegrityError."""
        with self._db.reader() as session:
            row = session.get(ReportRow, report_id)
        if row is None:
            raise NotFoundError("the id of a report", got=report_id)
        return _read(row)

    def of_candidate(self, candidate_digest: Digest) -> EvalReport | None:
        """The report on a candidate, if it was evaluated. Raises IntegrityError."""
        query = select(ReportRow).where(ReportRow.candidate_digest == candidate_digest)
        with self._db.reader() as session:
            row = session.scalar(query)
        return None if row is None else _read(row)


def _row(report: EvalReport) -> ReportRow:
    return ReportRow(
        report_id=report.report_id,
        digest=report.digest(),
        candidate_digest=report.candidate_digest,
        payload=report.canonical_json().decode(),
        created_at=report.created_at,
    )


def _read(row: ReportRow) -> EvalReport:
    try:
        report = EvalReport.model_validate_json(row.payload)
    except ValidationError as error:
        raise IntegrityError(f"a report in the row of {row.report_id}", got=str(error)) from error
    if report.digest() != row.digest:
        raise IntegrityError(f"a report with digest {row.digest}", got=report.digest())
    return report
