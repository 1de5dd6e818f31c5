"""The event store: one batch an event, in order, and back again."""

import pytest

from collector.screening.clusters import cluster_of
from tacit.contracts import EventStatus
from tacit.errors import ConflictError
from tests.builders import event, interaction
from tests.collector.conftest import Room


def fill(room: Room, num_events: int = 6) -> list[str]:
    """Screen some events; their keys in order."""
    words = ["apple", "bread", "cheese", "dates", "eggs", "figs", "grapes", "honey"]
    events = [
        event(f"e-{i}", subject_id=f"u-{i}", interaction=interaction(words[i]))
        for i in range(num_events)
    ]
    room.screen(*events)
    return [e.event_key for e in events]


def test_take_is_in_order_and_assign_takes_out(room: Room) -> None:
    keys = fill(room)
    assert room.store.count_trainable("default") == 6
    with room.database.session() as session:
        taken = room.store.take(session, "default", limit=4)
        room.store.assign(session, [e.event_key for e in taken], batch_id="b-1")
    assert [e.event_key for e in taken] == keys[:4]
    assert room.store.count_trainable("default") == 2
    assert room.store.count_trainable("another") == 0
    assert [e.event_key for e in room.store.events_of("b-1")] == keys[:4]
    assert taken[0].cluster == cluster_of("apple")


def test_clusters_in_any_batch_are_trained_ones(room: Room) -> None:
    keys = fill(room)
    assert room.store.trained_clusters("default") == set()
    with room.database.session() as session:
        room.store.assign(session, keys[:2], batch_id="b-1")
    with room.database.session() as session:
        room.store.set_aside(session, ["b-1"], reason="rejected_candidate")
    assert room.store.trained_clusters("default") == {cluster_of("apple"), cluster_of("bread")}
    assert room.store.trained_clusters("another") == set()


def test_no_event_is_in_two_batches_and_a_refused_batch_takes_none(room: Room) -> None:
    keys = fill(room)
    with room.database.session() as session:
        room.store.assign(session, keys[:2], batch_id="b-1")
    with pytest.raises(ConflictError), room.database.session() as session:
        room.store.assign(session, keys[1:4], batch_id="b-2")
    assert room.store.events_of("b-2") == []
    assert room.store.count_trainable("default") == 4


def test_released_batch_is_trainable_again(room: Room) -> None:
    keys = fill(room)
    with room.database.session() as session:
        room.store.assign(session, keys[:3], batch_id="b-1")
    with room.database.session() as session:
        room.store.release_batch(session, "b-1")
    assert room.store.count_trainable("default") == 6


def test_set_aside_quarantines_with_its_reason_and_once(room: Room) -> None:
    keys = fill(room)
    with room.database.session() as session:
        room.store.assign(session, keys[:3], batch_id="b-1")
        room.store.assign(session, keys[3:4], batch_id="b-2")
    with room.database.session() as session:
        assert room.store.set_aside(session, ["b-1", "b-9"], reason="rolled_back") == 3
        assert room.store.set_aside(session, ["b-1"], reason="again") == 0
        assert room.store.set_aside(session, [], reason="nothing") == 0
    assert room.store.reasons("default") == {"rolled_back": 3}
    counts = room.store.counts("default")
    assert (counts[EventStatus.ACCEPTED], counts[EventStatus.QUARANTINED]) == (3, 3)
    assert [e.event_key for e in room.store.events_of("b-1")] == keys[:3]


def test_learned_is_newest_first_and_only_of_the_batches_named(room: Room) -> None:
    keys = fill(room)
    with room.database.session() as session:
        room.store.assign(session, keys[:2], batch_id="b-1")
        room.store.assign(session, keys[2:4], batch_id="b-2")
    learned = room.store.learned("default", limit=3)
    assert [e.event_key for e in learned] == keys[3:0:-1]
    promoted = room.store.learned("default", limit=9, batch_ids=["b-1"])
    assert [e.event_key for e in promoted] == keys[1::-1]
    assert room.store.learned("default", limit=9, batch_ids=[]) == []


def test_lessons_are_the_newest_and_a_sample_of_those_before(room: Room) -> None:
    keys = fill(room)
    with room.database.session() as session:
        room.store.assign(session, keys[:3], batch_id="b-1")
        room.store.assign(session, keys[3:5], batch_id="b-2")

    def lessons(limit: int, seed: int, *batch_ids: str) -> list[str]:
        found = room.store.lessons(
            "default", limit=limit, seed=seed, batch_ids=batch_ids or ("b-1", "b-2")
        )
        return [lesson.event_key for lesson in found]

    assert lessons(5, 0) == lessons(9, 1) == keys[4::-1]
    assert lessons(9, 0, "b-1") == keys[2::-1]
    assert lessons(4, 0) == lessons(4, 0)
    drawn = [lessons(4, seed) for seed in range(20)]
    for found in drawn:
        assert found[:2] == [keys[4], keys[3]]
        assert found == sorted(found, key=keys.index, reverse=True)
        assert len(found) == 4
    assert {key for found in drawn for key in found} == set(keys[:5])


def test_find_needs_no_source_but_takes_one(room: Room) -> None:
    room.screen(event("e-1", source="other"), event("e_1"))
    found = room.store.find(None, "e-1")
    assert found is not None
    assert found.source == "other"
    assert room.store.find("helpdesk", "e-1") is None
    assert room.store.find(None, "-1") is None
