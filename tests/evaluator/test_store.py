"""ReportStore on both databases."""

from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from evaluator.store import ReportStore
from evaluator.tables import ReportRow
from tacit.contracts import ReportOutline
from tacit.database import MIGRATIONS_PATH, Database
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


def test_a_history_has_the_last_reports_of_a_line_without_items(database: Database) -> None:
    store = ReportStore(database)
    for number in range(4):
        about = builders.candidate(seed=number)
        suite = builders.suite_result(candidate=number / 10, items=(builders.item_result(),))
        moment = builders.MOMENT + timedelta(minutes=number)
        report = builders.report(about, suites=(suite,), created_at=moment)
        with database.session() as session:
            store.add(session, report)
    outlines = store.history.of("default", limit=3)
    assert [o.suites[0].candidate for o in outlines] == [0.1, 0.2, 0.3]
    assert all(outline.suites[0].items == () for outline in outlines)
    assert outlines[-1].report_digest == report.digest()
    assert store.history.of("another") == []


def test_reports_from_before_there_were_outlines_get_theirs(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/tacit.db")
    database.migrate()
    add(database)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_PATH))
    config.attributes["engine"] = database.engine
    command.downgrade(config, "0008")
    command.upgrade(config, "head")
    (outline,) = ReportStore(database).history.of("default")
    assert outline == ReportOutline.of(builders.report())
    database.dispose()
