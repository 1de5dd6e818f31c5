"""However many reports name one interaction, they weigh as one and are one towards a batch."""

from typing import Any

import pytest

from collector.screening.weights import CYCLE_SHARE
from collector.tables import EventRow
from tacit.contracts import Correction, Critique, FeedbackEvent, Outcome, Rating, ScreenedEvent
from tacit.contracts.feedback import RatingScale
from tests.builders import event, interaction, recorded, user
from tests.collector.conftest import MakeRoom, Room
from tests.collector.test_consume import about, record
from trainer.seal import seal_batch, verify_batch

LIMIT = 99
HALF = RatingScale(low=0, high=1)


def opinions(count: int, interaction_id: str = "i-1", *, first: int = 0) -> list[FeedbackEvent]:
    """Corrections, outcomes and ratings of ``count`` people on one interaction."""
    kinds: list[Any] = [
        Correction(completion="shipping"),
        Outcome(metric="resolved", value=False),
        Rating(value=0, scale=HALF),
    ]
    return [
        about(f"e-{n}", interaction_id, subject_id=f"u-{n}", feedback=kinds[n % 3])
        for n in range(first, first + count)
    ]


def take(room: Room, *, limit: int = LIMIT, batch_id: str | None = None) -> list[ScreenedEvent]:
    with room.database.session() as session:
        taken = room.store.take(session, "default", limit=limit)
        if batch_id is not None:
            room.store.assign(session, [e.event_key for e in taken], batch_id=batch_id)
    return taken


def weight_of(taken: list[ScreenedEvent]) -> float:
    return sum(e.weight for e in taken)


def test_twelve_reports_on_one_interaction_weigh_as_one_and_count_as_one(room: Room) -> None:
    record(room, recorded("i-1"), recorded("i-2", prompt=user("another prompt")))
    room.screen(*opinions(12), about("e-99", "i-2"))
    assert room.store.count_trainable("default") == 2
    taken = take(room)
    assert len(taken) == 13
    assert weight_of(taken[:12]) == pytest.approx(0.7)
    assert taken[12].weight == pytest.approx(0.7)


def test_what_waits_is_what_a_batch_would_take_late_reports_included(room: Room) -> None:
    record(room, recorded("i-1"), recorded("i-2", prompt=user("another prompt")))
    room.screen(*opinions(3), about("e-8", "i-2"), about("e-9", "i-1", subject_id="u-9"))
    waiting = [e.event_key for e in room.store.waiting("default", limit=4)]
    assert waiting == [f"helpdesk/e-{n}" for n in (0, 1, 2, 9)]
    assert [e.event_key for e in take(room, limit=4)] == waiting


def test_inline_interactions_of_one_content_are_one(room: Room) -> None:
    said = interaction("where is my order", "billing")
    other = interaction("where is my order", "returns")
    for n, about_ in enumerate((said, said, other)):
        outcome = Outcome(metric="resolved", value=False)
        room.screen(event(f"e-{n}", subject_id=f"u-{n}", interaction=about_, feedback=outcome))
    assert room.store.count_trainable("default") == 2
    assert [e.weight for e in take(room)] == pytest.approx([0.35, 0.35, 0.7])


def test_feedback_on_what_was_trained_on_still_counts_and_the_sum_stays_below_one(
    make: MakeRoom,
) -> None:
    room = make(unproven_subject_weight=1.0)
    record(room, recorded("i-1"))
    total = 0.0
    for cycle in range(5):
        room.screen(*opinions(3, first=3 * cycle))
        assert room.store.count_trainable("default") == 1
        taken = take(room, batch_id=f"b-{cycle}")
        assert len(taken) == 3
        assert weight_of(taken) > 0
        total += weight_of(taken)
        assert total <= 1
    assert total == pytest.approx(1 - (1 - CYCLE_SHARE) ** 5)


def test_what_was_set_aside_gives_its_weight_back(room: Room) -> None:
    record(room, recorded("i-1"))
    room.screen(*opinions(1))
    take(room, batch_id="b-1")
    with room.database.session() as session:
        room.store.set_aside(session, ["b-1"], reason="rolled_back")
    room.screen(*opinions(1, first=1))
    assert weight_of(take(room)) == pytest.approx(0.7)


def test_batch_given_back_is_weighed_anew(room: Room) -> None:
    record(room, recorded("i-1"))
    room.screen(*opinions(2))
    assert [e.weight for e in take(room, batch_id="b-1")] == pytest.approx([0.35, 0.35])
    with room.database.session() as session:
        room.store.release_batch(session, "b-1")
    room.screen(*opinions(2, first=2))
    assert [e.weight for e in take(room)] == pytest.approx([0.175] * 4)


def test_doubted_report_is_a_lesson_at_full_weight_and_leaves_others_no_more_for_it(
    room: Room,
) -> None:
    record(room, recorded("i-1"))
    room.screen(*opinions(1))
    with room.database.session() as session:
        [doubted] = room.store.take(session, "default", limit=LIMIT, factors={"helpdesk/e-0": 0})
        room.store.assign(session, ["helpdesk/e-0"], batch_id="b-1")
    assert doubted.weight == 0
    [as_sealed] = room.store.events_of("b-1")
    assert as_sealed == doubted
    [lesson] = room.store.lessons("default", limit=LIMIT, seed=0)
    assert lesson.weight == pytest.approx(0.7)
    room.screen(*opinions(1, first=1))
    assert weight_of(take(room)) == pytest.approx(0.7 * 0.3)
    with room.database.session() as session:
        room.store.release_batch(session, "b-1")
    assert [e.weight for e in take(room, batch_id="b-2")] == pytest.approx([0.35, 0.35])
    assert weight_of(room.store.lessons("default", limit=LIMIT, seed=0)) == pytest.approx(0.7)


def test_sealed_digests_are_of_the_shared_weights_and_hold(room: Room) -> None:
    record(room, recorded("i-1"))
    room.screen(*opinions(3))
    taken = take(room, batch_id="b-1")
    batch = seal_batch(
        taken,
        policy="default",
        parent="sha256:" + "0" * 64,
        replay=[],
        watermark={},
        sealed_at=taken[0].event.occurred_at,
    )
    verify_batch(batch, room.store.events_of("b-1"), [])
    with room.database.reader() as session:
        row = session.get_one(EventRow, taken[0].event_key)
    assert row.event_digest == batch.entries[0].event_digest
    assert (row.trust, row.weight) == (pytest.approx(0.7), pytest.approx(0.7 / 3))


def test_reports_on_one_interaction_go_together(room: Room) -> None:
    record(room, *[recorded(f"i-{n}", prompt=user(f"prompt {'abc'[n]}")) for n in range(3)])
    first, second, third = (opinions(3, f"i-{n}", first=3 * n) for n in range(3))
    room.screen(first[0], second[0], third[0], *first[1:], *second[1:], *third[1:])
    taken = take(room, limit=7)
    assert {e.event.interaction_id for e in taken} == {"i-0", "i-1"}
    assert len(taken) == 6
    sequences = [e.event_key for e in room.store.learned("default", limit=LIMIT)]
    assert sequences == []  # nothing is assigned by looking


def test_more_reports_than_a_batch_holds_are_cut_and_the_rest_comes_later(room: Room) -> None:
    record(room, recorded("i-1"))
    room.screen(*opinions(5))
    one = take(room, limit=2, batch_id="b-1")
    two = take(room, limit=2, batch_id="b-2")
    assert (len(one), len(two)) == (2, 2)
    assert 0 < weight_of(two) < weight_of(one) <= 1


def test_critiques_share_as_all_do(room: Room) -> None:
    record(room, recorded("i-1"))
    room.screen(*opinions(1), about("c-1", feedback=Critique(text="no"), subject_id="u-9"))
    taken = take(room)
    assert [event.weight for event in taken] == [pytest.approx(0.35)] * 2


def test_without_screening_nothing_is_shared(make: MakeRoom) -> None:
    room = make(enabled=False)
    record(room, recorded("i-1"))
    room.screen(*opinions(3))
    assert room.store.count_trainable("default") == 3
    assert [e.weight for e in take(room)] == [1.0] * 3


def test_ids_that_two_sources_happen_to_share_are_two_interactions(make: MakeRoom) -> None:
    """Each source picks its own: nobody's reports may take the weight of another's."""
    room = make()
    mine, theirs = (
        event(
            f"e-{n}",
            source=source,
            subject_id=f"u-{n}",
            interaction_id="conversation-1",
            interaction=interaction(prompt),
        )
        for n, (source, prompt) in enumerate([("helpdesk", "one question"), ("shop", "another")])
    )
    room.screen(theirs)
    take(room, batch_id="b-1")
    room.screen(mine)
    (taken,) = take(room)
    assert taken.weight == pytest.approx(0.7)
