"""Every judgement is counted once, in the transaction that writes it."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from collector.consume import Consumer
from collector.ingest import feedback_topic, interactions_topic
from collector.screening.counters import ScreeningCounts
from collector.tables import EventRow, ScreeningCounterRow
from tacit.contracts import utc_now
from tacit.database import Database
from tests.builders import event, recorded
from tests.collector.conftest import MakeRoom, Room
from tests.collector.test_consume import about, record
from tests.collector.test_screening import said


def counted(database: Database) -> dict[tuple[str, str], int]:
    with database.reader() as session:
        rows = session.scalars(select(ScreeningCounterRow))
        return {(row.status, row.reason): row.num_events for row in rows}


def produce(room: Room, *values: bytes) -> None:
    room.stream.append(feedback_topic(room.settings), [("k", value) for value in values])
    room.consumer.drain()


def test_each_end_is_counted_with_its_reason(room: Room) -> None:
    ahead = utc_now() + timedelta(hours=1)
    room.screen(said(1, "one"), said(2, "two"), said(3, "three", occurred_at=ahead))
    bad_metric = event("e-7", feedback={"type": "outcome", "metric": "vibes", "value": True})
    rival = event("e-1").model_dump_json().encode()
    produce(room, b"garbage", bad_metric.model_dump_json().encode(), rival)
    assert counted(room.database) == {
        ("accepted", ""): 2,
        ("quarantined", "clock_skew"): 1,
        ("dead_letter", "unparsable"): 1,
        ("dead_letter", "inadmissible"): 1,
        ("dead_letter", "conflict"): 1,
    }


def test_copies_are_counted_and_written_once(room: Room) -> None:
    copy = event("e-1").model_dump_json().encode()
    produce(room, copy, copy)
    produce(room, copy)
    assert counted(room.database) == {("accepted", ""): 1, ("duplicate", "retry"): 2}


def test_waiting_and_what_comes_of_it_are_two_judgements(room: Room) -> None:
    room.screen(about("e-1"), about("e-2"))
    record(room, recorded("i-1"))
    room.stream.append(interactions_topic(room.settings), [("k", b"{}")])
    room.consumer.drain()
    assert counted(room.database) == {
        ("held", "awaiting_interaction"): 2,
        ("accepted", ""): 1,
        ("quarantined", "duplicate_feedback"): 1,
        ("dead_letter", "unparsable"): 1,
    }


def test_expiry_is_counted_once_whoever_notices_first(room: Room) -> None:
    room.screen(*[about(f"e-{n}", f"i-{n}") for n in range(7)])
    later = utc_now() + timedelta(days=4)
    for _ in range(2):
        Consumer(room.database, room.stream, room.settings, clock=lambda: later).drain()
    assert counted(room.database)["quarantined", "hold_expired"] == 7


def test_what_becomes_of_a_candidate_is_counted(room: Room) -> None:
    room.screen(said(1, "one"), said(2, "two"))
    with room.database.session() as session:
        room.store.assign(session, ["helpdesk/e-1", "helpdesk/e-2"], batch_id="b-1")
    with room.database.session() as session:
        room.store.set_aside(session, ["b-1"], reason="rejected_candidate")
    assert counted(room.database)["quarantined", "rejected_candidate"] == 2


def test_a_chunk_that_was_rolled_back_counts_nothing(
    make: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = make()
    room.ingestor.accept([said(1, "one"), said(2, "two")])
    monkeypatch.setattr("collector.consume.Consumer._write", _written_and_lost(Consumer._write))
    with pytest.raises(RuntimeError, match="the power went"):
        room.consumer.drain()
    assert counted(room.database) == {}
    monkeypatch.undo()
    room.consumer.drain()
    assert counted(room.database) == {("accepted", ""): 2}


def _written_and_lost(write: Any) -> Any:
    def lose(*arguments: Any, **named: Any) -> None:
        write(*arguments, **named)
        raise RuntimeError("the power went")

    return lose


def test_counters_are_the_sum_of_the_rows(make: MakeRoom) -> None:
    room = make(holdout_share=0.3, max_events_per_subject=3)
    room.screen(*[said(n, f"w{chr(97 + n)}", subject_id=f"u-{n % 4}") for n in range(24)])
    with room.database.reader() as session:
        rows = session.execute(select(EventRow.status, EventRow.reason)).all()
    assert counted(room.database) == Counter((status, reason or "") for status, reason in rows)
    assert len(counted(room.database)) == 3


def test_counts_add_up_over_transactions(database: Database) -> None:
    counts = ScreeningCounts(policy="default")
    for number in (3, 4):
        counts.add("accepted", number=number)
        with database.session() as session:
            counts.write(session)
    with database.session() as session:
        counts.write(session)
    assert counted(database) == {("accepted", ""): 7}


def test_a_chunk_that_failed_leaves_nothing_for_the_next(
    make: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another consumer takes the chunk over; what this one had begun must not come again."""
    room, rival = make(), make()
    room.ingestor.accept([event("e-1")])
    with monkeypatch.context() as broken:
        broken.setattr("collector.screening.writer.insert_rows", _fail)
        with pytest.raises(RuntimeError):
            room.consumer.drain()
    rival.consumer.drain()
    record(room, recorded("i-1"))
    room.consumer.drain()
    assert room.became("e-1") == ("accepted", None)
    assert counted(room.database) == {("accepted", ""): 1}


def _fail(*_: Any) -> None:
    raise RuntimeError("the disk is full")
