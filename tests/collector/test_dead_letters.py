"""Dead letters: what a replay does, what a crash in the middle does, and that they stay bounded."""

import json
import random
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from collector.consume import Consumer
from collector.ingest import feedback_topic, interactions_topic
from collector.streams import StreamRecord
from collector.tables import DeadLetterRow
from collector.triage.dead_letters import (
    MAX_PAYLOAD_BYTES,
    DeadLetterPurge,
    Place,
    bury,
    letter_id,
    place_of,
)
from collector.triage.replay import DeadLetters
from tacit.config import CollectorSettings, load_settings
from tacit.contracts import FeedbackEvent, Outcome
from tacit.database import Database
from tacit.errors import ConflictError, InvalidInputError, NotFoundError, TooLargeError
from tests.builders import MOMENT, event, recorded
from tests.collector.conftest import MakeRoom, Room


def outcome(event_id: str = "e-1", **fields: object) -> FeedbackEvent:
    """An event with a metric that nobody has declared."""
    return event(event_id, feedback=Outcome(metric="delight", value=True), **fields)


def produce(room: Room, *payloads: bytes) -> None:
    """Put records into the stream as a product without the API does, and screen them."""
    room.stream.append(feedback_topic(room.settings), [("k", p) for p in payloads])
    room.consumer.drain()


def letters_of(room: Room) -> DeadLetters:
    return DeadLetters(room.database, room.stream, room.settings)


def declare(room: Room, metric: str) -> None:
    """From now on the service knows ``metric``."""
    known = {**room.settings.collector.metrics, metric: "bool"}
    settings = load_settings(
        home=room.settings.home, collector={"metrics": known, "screening": {"holdout_share": 0.0}}
    )
    room.consumer = Consumer(room.database, room.stream, settings)


def places_in(room: Room) -> list[Place]:
    return [letter.place for letter in letters_of(room).page()]


def test_replay_lets_in_what_has_become_admissible(room: Room) -> None:
    produce(room, outcome().model_dump_json().encode())
    assert room.became("e-1") == ("dead_letter", "inadmissible")
    (place,) = places_in(room)
    declare(room, "delight")
    assert letters_of(room).replay([place]) == [(place, "replayed")]
    room.consumer.drain()
    assert room.became("e-1") == ("accepted", None)
    assert places_in(room) == []


def test_replay_of_what_is_still_bad_is_a_new_dead_letter(room: Room) -> None:
    produce(room, outcome().model_dump_json().encode(), b"{}")
    before = places_in(room)
    letters_of(room).replay(before)
    room.consumer.drain()
    after = letters_of(room).page()
    assert [letter.reason for letter in after] == ["unparsable", "inadmissible"]
    assert not {letter.place for letter in after} & set(before)
    assert room.became("e-1") == ("dead_letter", "inadmissible")
    assert len(letters_of(room).page(replayed=True)) == 4


def test_a_letter_is_replayed_once_however_often_it_is_asked_for(room: Room) -> None:
    produce(room, b"not json")
    (place,) = places_in(room)
    nowhere = Place("tacit.feedback", 0, 99)
    done = letters_of(room).replay([place, place, nowhere])
    assert [status for _, status in done] == ["replayed", "replayed", "unknown"]
    assert letters_of(room).replay([place]) == [(place, "already_replayed")]
    assert room.consumer.drain() == 1
    with pytest.raises(ConflictError, match="not replayed yet"):
        letters_of(room).replay_mended(place, b"{}")


def test_crash_between_append_and_mark_doubles_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(room, outcome().model_dump_json().encode())
    (place,) = places_in(room)
    declare(room, "delight")
    letters = letters_of(room)

    def die(_places: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(letters, "_mark", die)
        with pytest.raises(KeyboardInterrupt):
            letters.replay([place])
    assert letters_of(room).replay([place]) == [(place, "replayed")]
    assert room.consumer.drain() == 2
    assert room.became("e-1") == ("accepted", None)
    assert sum(room.store.counts("default").values()) == 1
    assert places_in(room) == []


def test_mended_payload_goes_in(room: Room) -> None:
    sent = event("e-1", subject_id="u-7")
    broken = json.loads(sent.model_dump_json()) | {"surprise": 1}
    produce(room, json.dumps(broken).encode())
    (place,) = places_in(room)
    letters_of(room).replay_mended(place, sent.model_dump_json().encode())
    topic = feedback_topic(room.settings)
    *_, newest = room.stream.read(topic, {}, limit=9, timeout_s=0.0)
    assert (newest.key, newest.value) == ("helpdesk/u-7", sent.model_dump_json().encode())
    room.consumer.drain()
    assert room.became("e-1") == ("accepted", None)
    with pytest.raises(NotFoundError, match="a dead letter"):
        letters_of(room).replay_mended(Place("t", 0, 0), b"")


def test_mended_inadmissible_event_keeps_its_id(room: Room) -> None:
    produce(room, outcome("e-1").model_dump_json().encode())
    (place,) = places_in(room)
    mended = event("e-1", feedback=Outcome(metric="resolved", value=True))
    letters_of(room).replay_mended(place, mended.model_dump_json().encode())
    room.consumer.drain()
    assert room.became("e-1") == ("accepted", None)


def test_what_was_accepted_is_not_judged_again(room: Room) -> None:
    room.screen(event("e-1"))
    rival = event("e-1", subject_id="u-2")
    produce(room, event("e-1").model_dump_json().encode(), rival.model_dump_json().encode())
    assert room.became("e-1") == ("accepted", None)
    (place,) = places_in(room)
    letters_of(room).replay([place])
    room.consumer.drain()
    (again,) = letters_of(room).page()
    assert again.reason == "conflict"
    assert room.became("e-1") == ("accepted", None)


def test_interaction_goes_back_to_its_own_topic(room: Room) -> None:
    topic = interactions_topic(room.settings)
    room.stream.append(topic, [("k", b"{}")])
    room.screen(event("e-1", interaction_id="i-1"))
    (place,) = places_in(room)
    assert place.topic == topic
    said = recorded("i-1", subject_id="u-1").model_dump_json().encode()
    letters_of(room).replay_mended(place, said)
    room.consumer.drain()
    assert room.became("e-1") == ("accepted", None)


def test_record_beyond_the_bound_is_cut_and_not_replayed_as_it_is(room: Room) -> None:
    produce(room, b"x" * (MAX_PAYLOAD_BYTES + 1), b"y" * MAX_PAYLOAD_BYTES)
    whole, cut = letters_of(room).page(num_payload_bytes=10)
    assert (whole.reason, whole.num_bytes, whole.payload) == (
        "unparsable",
        MAX_PAYLOAD_BYTES,
        b"y" * 10,
    )
    assert (cut.reason, cut.num_bytes) == ("too_large", MAX_PAYLOAD_BYTES)
    assert f"of {MAX_PAYLOAD_BYTES + 1} bytes" in cut.detail
    letters = letters_of(room)
    assert letters.replay([cut.place]) == [(cut.place, "too_large")]
    found = letters.find(reason=None, until=cut.occurred_at, unreplayed=True)
    assert found == [whole.place]
    with pytest.raises(TooLargeError):
        letters.replay_mended(cut.place, b"x" * (MAX_PAYLOAD_BYTES + 1))
    letters.replay_mended(cut.place, event("e-1").model_dump_json().encode())
    room.consumer.drain()
    assert room.became("e-1") == ("accepted", None)


def test_pages_follow_on_each_other_and_filter(room: Room) -> None:
    produce(room, *[b"bad %d" % i for i in range(25)], outcome().model_dump_json().encode())
    letters = letters_of(room)
    assert [letter.reason for letter in letters.page(reason="inadmissible")] == ["inadmissible"]
    seen: list[Place] = []
    while page := letters.page(after=seen[-1] if seen else None, limit=10):
        seen += [letter.place for letter in page]
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 26
    assert letters.get(seen[-1]).payload == b"bad 0"
    assert letters.drop(seen[:20]) == 20
    assert letters.drop(seen) == 6
    assert letters.page() == []


BOUNDS = CollectorSettings(max_dead_letters=50, dead_letter_ttl_s=3600)


def _bury(database: Database, moments: dict[tuple[str, int, int], datetime]) -> None:
    with database.session() as session:
        for (topic, partition, offset), moment in moments.items():
            record = StreamRecord(topic, partition, offset, "k", b"bad")
            bury(session, record, reason="unparsable", detail="", now=moment)


def _left(database: Database) -> set[tuple[str, int, int]]:
    with database.reader() as session:
        rows = session.scalars(select(DeadLetterRow))
        return {(row.topic, row.partition, row.offset) for row in rows}


def test_purge_keeps_the_newest_and_the_young(database: Database) -> None:
    draw = random.Random(7)
    places = [(topic, p, o) for topic in "ab" for p in range(3) for o in range(30)]
    clocks = {(topic, p): 0.0 for topic in "ab" for p in range(3)}
    moments = {}
    for topic, p, o in places:
        clocks[topic, p] += draw.uniform(1, 100)
        moments[topic, p, o] = MOMENT + timedelta(seconds=clocks[topic, p])
    _bury(database, moments)
    newest = sorted(places, key=lambda place: moments[place])[-50:]
    end = max(moments.values())
    purge = DeadLetterPurge(database, BOUNDS)
    assert purge.purge(end) == len(places) - 50
    assert _left(database) == set(newest)
    later = end + timedelta(minutes=50)
    young = {place for place in newest if moments[place] >= later - timedelta(hours=1)}
    assert 0 < len(young) < 50
    purge.purge(later)
    assert _left(database) == young


def test_purge_is_done_now_and_then(sqlite_database: Database) -> None:
    purge = DeadLetterPurge(sqlite_database, BOUNDS)
    assert purge.now_and_then(MOMENT) == 0
    _bury(sqlite_database, {("a", 0, o): MOMENT for o in range(60)})
    assert purge.now_and_then(MOMENT + timedelta(seconds=9)) == 0
    assert purge.now_and_then(MOMENT + timedelta(seconds=10)) == 10
    assert _left(sqlite_database) == {("a", 0, o) for o in range(10, 60)}


def test_purge_of_more_than_a_chunk(sqlite_database: Database) -> None:
    _bury(sqlite_database, {("a", 0, o): MOMENT for o in range(2_345)})
    assert DeadLetterPurge(sqlite_database, BOUNDS).purge(MOMENT) == 2_295
    assert _left(sqlite_database) == {("a", 0, o) for o in range(2_295, 2_345)}


def test_running_consumer_purges(make: MakeRoom) -> None:
    import threading

    room = make()
    settings = room.settings.model_copy(update={"collector": BOUNDS})
    produce(room, *[b"bad"] * 70)
    stop = threading.Event()
    runner = threading.Thread(
        target=Consumer(room.database, room.stream, settings).run, args=(stop,)
    )
    runner.start()
    for _ in range(200):
        if len(_left(room.database)) == 50:
            break
        stop.wait(0.05)
    stop.set()
    runner.join()
    assert len(_left(room.database)) == 50


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t",
        "t:1",
        "t:1:",
        ":1:2",
        "t:--1:2",
        "t:1:-2",
        "t:1:2:3",
        "t:1:x",
        "t:²:1",
        f"t:0:{2**63}",
    ],
)
def test_bad_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        place_of(text)


@pytest.mark.parametrize("partition", [0, 3, -1])
def test_id_names_its_place(partition: int) -> None:
    place = Place("tacit.feedback", partition, 17)
    assert place_of(letter_id(place)) == place


def test_letter_of_a_topic_made_anew_is_replayed_too(room: Room) -> None:
    produce(room, b"old")
    record = StreamRecord(feedback_topic(room.settings), 0, 0, "k", b"new")
    with room.database.session() as session:
        bury(session, record, reason="unparsable", detail="", now=MOMENT)
    old, new = letters_of(room).page()
    assert (old.payload, new.payload, new.place.partition) == (b"old", b"new", -1)
    place = place_of(letter_id(new.place))
    assert letters_of(room).replay([place]) == [(place, "replayed")]
    assert room.consumer.drain() == 1
