"""Screening reads the events table through indices alone, so that it stays as fast as it grows."""

from datetime import timedelta
from typing import Any

from sqlalchemy import event as sql_event

from collector.consume import Consumer
from collector.triage.quarantine import Cursor
from collector.triage.search import EventFilter, EventSearch
from tacit.contracts import EventStatus, utc_now
from tests.builders import event, interaction, recorded, user
from tests.collector.conftest import MakeRoom, Room
from tests.collector.test_consume import about, record
from trainer.store import CandidateStore

GROWING = ("events", "interactions", "clusters", "cluster_bands", "candidates", "folds")


def statements_of(room: Room, do: Any) -> dict[str, Any]:
    """SELECT, UPDATE and DELETE statements that ``do`` runs, with parameters of one run."""
    kept: dict[str, Any] = {}

    def keep(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            kept[statement] = parameters

    sql_event.listen(room.database.engine, "before_cursor_execute", keep)
    do()
    sql_event.remove(room.database.engine, "before_cursor_execute", keep)
    return kept


def plan_of(room: Room, statement: str, parameters: Any) -> list[str]:
    one = parameters[0] if isinstance(parameters, list) else parameters
    with room.database.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", one)
        return [str(row[3]) for row in plan]


def scanned(room: Room, statement: str, parameters: Any) -> list[str]:
    """Lines of the plan that read a growing table from end to end."""
    return [
        line
        for line in plan_of(room, statement, parameters)
        if line.startswith("SCAN")
        and line.split()[1] in GROWING
        # The newest of an index in order, of which one row is read.
        and not ("LIMIT" in statement and "USING" in line and "_trained" in line)
    ]


def fill(room: Room) -> None:
    """Something of every kind, so that every rule has something to look up."""
    events = [
        event(
            f"e-{n}",
            subject_id=f"u-{n}",
            interaction=interaction(f"my parcel of last week is lost {chr(97 + n)}"),
            tags={"kind": "fact"} if n % 2 else {},
        )
        for n in range(12)
    ]
    record(room, recorded("i-1", prompt=user("hello")), recorded("i-2", episode_id="p-1"))
    room.screen(*events, about("e-20"), about("e-21", "i-9"), event("e-22", episode_id="p-2"))
    with room.database.session() as session:
        taken = room.store.take(session, "default", limit=3)
        room.store.assign(session, [e.event_key for e in taken], batch_id="b-1")


def work(room: Room) -> None:
    """What the consumer does all day, and what the loop asks of the store."""
    later = utc_now() + timedelta(days=40)
    room.ingestor.accept([event("e-40", subject_id="u-40"), about("e-41", "i-1")])
    record(room, recorded("i-9", prompt=user("hello again")), recorded("i-10", episode_id="p-2"))
    Consumer(room.database, room.stream, room.settings, clock=lambda: later).drain()
    room.store.count_trainable("default")
    with room.database.session() as session:
        room.store.take(session, "default", limit=4)


def test_no_query_of_screening_scans_a_table_that_grows(make: MakeRoom) -> None:
    room = make(quorum=({"tag": "kind", "min_subjects": 3},), holdout_share=0.2)
    fill(room)
    statements = statements_of(room, lambda: work(room))
    assert len(statements) > 15
    scans = {s: lines for s, p in statements.items() if (lines := scanned(room, s, p))}
    assert scans == {}


def test_newest_of_an_episode_is_read_off_an_index_in_order(make: MakeRoom) -> None:
    room = make()
    statements = statements_of(room, lambda: room.screen(event("e-1", episode_id="p-1")))
    ((statement, parameters),) = [s for s in statements.items() if "asked" in s[0]]
    plan = plan_of(room, statement, parameters)
    assert any("ix_interactions_of_episode (episode_id=? AND source=?" in line for line in plan)
    assert "USE TEMP B-TREE FOR ORDER BY" not in plan


def test_candidates_of_a_batch_are_found_by_index(make: MakeRoom) -> None:
    room = make()
    candidates = CandidateStore(room.database)
    ((statement, parameters),) = statements_of(room, lambda: candidates.of_batch("b-1")).items()
    assert scanned(room, statement, parameters) == []


def test_a_search_for_a_person_reads_no_more_than_it_shows(make: MakeRoom) -> None:
    room = make()
    fill(room)
    search, cursor = EventSearch(room.database, "default"), Cursor(1_000, "x")
    few, hidden = EventStatus.QUARANTINED, frozenset({EventStatus.QUARANTINED})
    expected = {
        EventFilter(): "ix_events_sequence (sequence<?)",
        EventFilter(status=EventStatus.ACCEPTED): "ix_events_sequence (sequence<?)",
        EventFilter(hidden=hidden): "ix_events_sequence (sequence<?)",
        EventFilter(text="parcel"): "ix_events_sequence (sequence>? AND sequence<?)",
        EventFilter(status=few, reason="x"): "ix_events_ready (policy=? AND status=?)",
        EventFilter(subject="u-1"): "ix_events_by_subject (subject_id=?)",
    }
    for wanted, index in expected.items():
        statements = statements_of(room, lambda w=wanted: search.page(w, after=cursor))
        for statement, parameters in statements.items():
            assert scanned(room, statement, parameters) == [], wanted
        plan = plan_of(room, statement, parameters)
        assert any(index in line for line in plan), plan
    for statement, parameters in statements_of(room, lambda: search.beside("b-1")).items():
        assert scanned(room, statement, parameters) == []


def test_the_check_sees_a_scan(make: MakeRoom) -> None:
    assert scanned(make(), "SELECT * FROM events WHERE detail = 'x'", ())
