"""What is held has an end and a limit, and costs nothing to look at."""

import threading
from datetime import timedelta

from sqlalchemy import select, update

from collector.consume import Consumer
from collector.positions import lock_screening
from collector.screening.holds import _EXPIRE_CHUNK, HoldExpiry
from collector.tables import EventRow
from tacit.config import ScreeningSettings
from tacit.contracts import EventStatus, utc_now
from tests.builders import event, recorded, user
from tests.collector.conftest import MakeRoom, Room
from tests.collector.test_consume import about, record

WAITS = ("held", "awaiting_interaction")
FULL = ("quarantined", "hold_full")


def test_one_subject_fills_no_more_than_its_places(make: MakeRoom) -> None:
    room = make(max_held_events=3)
    room.screen(*[about(f"e-{n}", f"invented-{n}") for n in range(5)])
    assert [room.became(f"e-{n}") for n in range(5)] == [WAITS] * 3 + [FULL] * 2
    room.screen(about("e-5", "invented-5"), about("e-6", "invented-6", subject_id="u-2"))
    assert room.became("e-5") == FULL
    assert room.became("e-6") == WAITS


def test_one_source_fills_no_more_than_its_places_whatever_subjects_it_names(
    make: MakeRoom,
) -> None:
    room = make(max_held_events_per_source=4)
    room.screen(*[about(f"e-{n}", f"invented-{n}", subject_id=f"u-{n}") for n in range(6)])
    room.screen(about("e-6", "i-6", source="other"))
    assert [room.became(f"e-{n}") for n in range(6)] == [WAITS] * 4 + [FULL] * 2
    assert room.became("e-6", source="other") == WAITS


def test_what_is_judged_at_once_needs_no_place(make: MakeRoom) -> None:
    room = make(max_held_events=1)
    room.screen(about("e-1", "invented"), event("e-2"), about("e-3", "invented"))
    assert room.became("e-2") == ("accepted", None)
    assert room.became("e-3") == FULL


def test_a_place_is_free_again_once_the_interaction_came(make: MakeRoom) -> None:
    room = make(max_held_events=1)
    room.screen(about("e-1"))
    record(room, recorded("i-1", prompt=user("hello")))
    room.consumer.drain()
    room.screen(about("e-2", "i-2"))
    assert room.became("e-2") == WAITS


def test_waiting_for_a_quorum_takes_a_place_too(make: MakeRoom) -> None:
    room = make(max_held_events=1, quorum=({"min_subjects": 2},))
    room.screen(event("e-1"), event("e-2", interaction={"prompt": user("x"), "completion": "y"}))
    assert room.became("e-1") == ("held", "awaiting_quorum")
    assert room.became("e-2") == FULL


def test_more_than_one_chunk_expires_at_once(make: MakeRoom) -> None:
    room = make(max_held_events=10_000)
    count = _EXPIRE_CHUNK + 10
    room.screen(*[about(f"e-{n}", f"i-{n}") for n in range(count)])
    later = utc_now() + timedelta(days=4)
    Consumer(room.database, room.stream, room.settings, clock=lambda: later).drain()
    assert room.store.counts("default")[EventStatus.QUARANTINED] == count
    assert HoldExpiry(ScreeningSettings(), policy="default").expire(room.database, now=later) == 0


def test_expiry_waits_for_whoever_screens(room: Room) -> None:
    room.screen(about("e-1"))
    later = utc_now() + timedelta(days=4)
    numbers: list[int] = []

    def expire() -> None:
        expiry = HoldExpiry(ScreeningSettings(), policy="default")
        numbers.append(expiry.expire(room.database, now=later))

    with room.database.session() as session:
        lock_screening(session)
        held = session.scalar(select(EventRow.event_key).where(EventRow.status == "held"))
        thread = threading.Thread(target=expire)
        thread.start()
        thread.join(0.5)  # long enough for an expiry that waits for nobody
        assert numbers == []
        judged = update(EventRow).where(EventRow.event_key == held)
        session.execute(judged.values(status="accepted", reason=None))
    thread.join(30)
    assert numbers == [0]
    assert room.became("e-1") == ("accepted", None)
