"""ReportStore on both databases."""

import pytest

from evaluator.store import ReportStore
from evaluator.tables import ReportRow
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError, NotFoundError
from tests import builders


def add(database: Database, **fields: object) -> None:
    with database.session() as session:
        ReportStore(database).add(session, builders.report(**fields))  # type: ignore[arg-type]


def test_a_report_is_found_by_its_id_and_by_its_candidate(database: Database) -> None:
    report = builders.report(errors=("suite a: “broken” \x00",))
    with database.session() as session:
        ReportStore(database).add(session, report)
    store = ReportStore(database)
    assert store.get(report.report_id) == report
    assert store.of_candidate(report.candidate_digest) == report


def test_what_is_not_there(database: Database) -> None:
    store = ReportStore(database)
    assert store.of_candidate(builders.digest("nobody")) is None
    with pytest.raises(NotFoundError, match="e-none"):
        store.get("e-none")


def test_the_same_report_may_come_twice_and_another_may_not(database: Database) -> None:
    add(database)
    add(database)
    with pytest.raises(ConflictError, match="one report a candidate"):
        add(database, errors=("changed my mind",))
    assert ReportStore(database).of_candidate(builders.candidate().digest()) == builders.report()


@pytest.mark.parametrize("altered", ["not JSON", builders.report(errors=("x",)).model_dump_json()])
def test_an_altered_report_is_refused(sqlite_database: Database, altered: str) -> None:
    add(sqlite_database)
    with sqlite_database.session() as session:
        row = session.get_one(ReportRow, builders.report().report_id)
        row.payload = altered
    with pytest.raises(IntegrityError):
        ReportStore(sqlite_database).get(builders.report().report_id)
