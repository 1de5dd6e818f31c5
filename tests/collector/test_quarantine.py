"""Quarantine: a person's decision changes the event and the ledger together, or neither."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from collector.screening.clusters import is_holdout
from collector.tables import EventRow
from collector.triage.quarantine import Cursor, Quarantine
from gatekeeper.ledger import Ledger
from tacit.config import load_settings
from tacit.contracts import Correction, EventStatus
from tacit.database import Database
from tacit.errors import NotAllowedError, NotFoundError
from tacit.keys import KeyStore, Principal, Scope
from tacit.signing import Signer
from tests.builders import event, interaction
from tests.collector.conftest import MakeRoom, Room


class Desk:
    """A quarantine, who decides, and what the ledger was told."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.told: list[tuple[str, str, dict[str, object]]] = []
        self.quarantine = Quarantine(room.database, room.settings, self._journal)

    def _journal(self, _: Session, kind: str, subject: str, body: dict[str, object]) -> None:
        self.told.append((kind, subject, body))

    def release(self, *names: str, by: Principal | None = None, why: str = "fine") -> list[Any]:
        keys = [f"helpdesk/{name}" for name in names]
        by = by or reviewer(self.room.database)
        return [tuple(r) for r in self.quarantine.decide("release", keys, by=by, why=why)]

    def drop(self, *names: str) -> list[Any]:
        keys = [f"helpdesk/{name}" for name in names]
        by = reviewer(self.room.database)
        return [tuple(r) for r in self.quarantine.decide("drop", keys, by=by, why="poison")]


def reviewer(database: Database, **bound: str) -> Principal:
    keys = KeyStore(database)
    return keys.authenticate(keys.create(f"ada-{uuid4().hex}", scopes={Scope.REVIEW}, **bound))


@pytest.fixture
def desk(room: Room) -> Desk:
    """Two corrections that contradict each other, and one that waits."""
    room.screen(
        event("e-1", subject_id="u-1"),
        event("e-2", subject_id="u-2", feedback=Correction(completion="refunds")),
        event("e-3", subject_id="u-3", interaction_id="i-away"),
    )
    assert room.became("e-2") == ("quarantined", "contradiction")
    return Desk(room)


def taken(room: Room) -> list[str]:
    with room.database.session() as session:
        return [e.event.event_id for e in room.store.take(session, "default", limit=99)]


def alter(room: Room, name: str, **values: object) -> None:
    with room.database.session() as session:
        chosen = EventRow.event_key == f"helpdesk/{name}"
        session.execute(update(EventRow).where(chosen).values(**values))


def test_released_event_is_trained_on_and_stands_in_the_ledger(desk: Desk) -> None:
    assert desk.release("e-2", why="she is right") == [("helpdesk/e-2", "accepted", None)]
    assert taken(desk.room) == ["e-1", "e-2"]
    events = [{"event_key": "helpdesk/e-2", "was": "contradiction", "became": "accepted"}]
    ((kind, subject, body),) = desk.told
    assert (kind, subject) == ("quarantine_release", "default")
    assert str(body.pop("by")).startswith("ada")
    assert body == {"reason": "she is right", "events": events}


def test_released_event_has_the_digest_a_batch_commits_to(desk: Desk) -> None:
    desk.release("e-2")
    with desk.room.database.session() as session:
        row = session.get_one(EventRow, "helpdesk/e-2")
        screened = desk.room.store.take(session, "default", limit=9)[1]
    assert screened.event_digest == row.event_digest


def test_dropped_event_stays_for_ever(desk: Desk) -> None:
    assert desk.drop("e-2") == [("helpdesk/e-2", "dropped", None)]
    assert desk.room.became("e-2") == ("quarantined", "dropped")
    assert desk.release("e-2")[0][1:] == ("refused", "it was dropped for good")
    assert desk.drop("e-2")[0][1] == "refused"
    assert [kind for kind, *_ in desk.told] == ["quarantine_drop"]
    assert taken(desk.room) == ["e-1"]
    assert desk.quarantine.page() == []
    assert [row.event_id for row in desk.quarantine.page(reason="dropped")] == ["e-2"]


def test_what_is_not_quarantined_is_refused(desk: Desk) -> None:
    rulings = desk.release("e-1", "e-3", "nobody")
    assert [status for _, status, _ in rulings] == ["refused"] * 3
    assert "it is accepted" in rulings[0][2]
    assert "it is held" in rulings[1][2]
    assert "no such event" in rulings[2][2]
    assert desk.told == []


def test_event_never_joined_cannot_be_released(desk: Desk) -> None:
    alter(desk.room, "e-3", status=EventStatus.QUARANTINED.value, reason="hold_expired")
    assert desk.release("e-3") == [
        ("helpdesk/e-3", "refused", "it was never joined to its interaction (hold_expired)")
    ]
    assert desk.room.became("e-3") == ("quarantined", "hold_expired")
    assert desk.drop("e-3")[0][1] == "dropped"


def test_event_of_an_erased_subject_cannot_be_released(desk: Desk) -> None:
    alter(desk.room, "e-3", status=EventStatus.ERASED.value, subject_id="u-2", source="helpdesk")
    assert desk.release("e-2")[0][2] == "its subject was erased"
    alter(desk.room, "e-3", source="another")  # whose u-2 is somebody else
    assert desk.release("e-2")[0][1] == "accepted"


def test_event_of_a_held_out_cluster_is_measured_and_not_trained_on(make: MakeRoom) -> None:
    room = make(holdout_share=0.5)
    words = ["apple", "bread", "cheese", "dates", "eggs", "figs", "grapes", "honey"]
    for word in words:
        said = interaction(f"where do {word} grow")
        room.screen(event(f"{word}-1", subject_id="u-1", interaction=said))
        other = Correction(completion="nowhere")
        room.screen(event(f"{word}-2", subject_id="u-2", interaction=said, feedback=other))
    desk = Desk(room)
    rulings = desk.release(*[f"{word}-2" for word in words])
    for word, (key, status, _) in zip(words, rulings, strict=True):
        row = room.store.find("helpdesk", f"{word}-2")
        assert row is not None
        held_out = is_holdout(row.cluster, share=0.5)
        assert (status, row.status) == ("holdout" if held_out else "accepted",) * 2, key
    assert {status for _, status, _ in rulings} == {"holdout", "accepted"}
    assert not {e.removesuffix("-2") for e in taken(room) if e.endswith("-2")} & {
        key.split("/")[1].removesuffix("-2") for key, status, _ in rulings if status == "holdout"
    }


def test_event_of_a_rolled_back_batch_is_learned_again(desk: Desk) -> None:
    room = desk.room
    with room.database.session() as session:
        room.store.assign(session, ["helpdesk/e-1"], batch_id="b-1")
        room.store.set_aside(session, ["b-1"], reason="rolled_back")
    assert taken(room) == []
    assert desk.release("e-1")[0][1] == "accepted"
    assert taken(room) == ["e-1"]


def test_ledger_and_events_stand_or_fall_together(desk: Desk, tmp_path: Path) -> None:
    room = desk.room

    def broken(*_: object) -> None:
        raise RuntimeError("the ledger does not verify")

    quarantine = Quarantine(room.database, room.settings, broken)
    with pytest.raises(RuntimeError):
        quarantine.decide("release", ["helpdesk/e-2"], by=reviewer(room.database), why="x")
    assert room.became("e-2") == ("quarantined", "contradiction")
    ledger = Ledger(room.database, Signer.load_or_create(tmp_path / "keys"))
    quarantine = Quarantine(room.database, room.settings, ledger.append)
    quarantine.decide("release", ["helpdesk/e-2"], by=reviewer(room.database), why="x")
    assert ledger.verify().ok
    assert ledger.verify().num_entries == 1


def test_key_bound_to_another_source_decides_nothing(desk: Desk) -> None:
    stranger = reviewer(desk.room.database, source="shop")
    with pytest.raises(NotAllowedError):
        desk.release("e-2", by=stranger)
    assert desk.room.became("e-2")[0] == "quarantined"


def test_another_policy_line_has_a_quarantine_of_its_own(desk: Desk) -> None:
    settings = load_settings(home=desk.room.settings.home, policy="another")
    other = Quarantine(desk.room.database, settings, desk._journal)
    assert other.page() == []
    by = reviewer(desk.room.database)
    (ruling,) = other.decide("drop", ["helpdesk/e-2"], by=by, why="x")
    assert ruling.status == "refused"
    with pytest.raises(NotFoundError):
        other.get("helpdesk/e-2")


def test_released_event_counts_for_what_comes_next(make: MakeRoom) -> None:
    room = make(max_events_per_subject=2)
    for i in range(3):
        room.screen(event(f"e-{i}", interaction=interaction(f"prompt {'abc'[i]}")))
    assert room.became("e-2") == ("quarantined", "subject_cap")
    with room.database.session() as session:
        room.store.assign(session, ["helpdesk/e-0", "helpdesk/e-1"], batch_id="b-1")
    Desk(room).release("e-2")
    room.screen(event("e-3", interaction=interaction("prompt d")))
    room.screen(event("e-4", interaction=interaction("prompt e")))
    assert room.became("e-3") == ("accepted", None)
    assert room.became("e-4") == ("quarantined", "subject_cap")


def test_pages_filter_and_follow_on_each_other(make: MakeRoom) -> None:
    room = make(max_events_per_subject=1)
    words = "abcdefghijklmnopqrstuvwxyz"
    sent = [event(f"e-{w}", interaction=interaction(f"prompt {w}")) for w in words]
    room.screen(*sent, event("x-1", source="shop", interaction=interaction("prompt z")))
    quarantine = Desk(room).quarantine
    seen: list[str] = []
    after = None
    while rows := quarantine.page(after=after, limit=7):
        seen += [row.event_id for row in rows]
        after = Cursor(rows[-1].sequence, rows[-1].event_key)
    assert seen == [f"e-{w}" for w in reversed(words[1:])]
    assert len(quarantine.page(reason="subject_cap", source="helpdesk", subject="u-1")) == 25
    for filters in ({"reason": "cluster_cap"}, {"source": "shop"}, {"subject": "u-2"}):
        assert quarantine.page(**filters) == []
