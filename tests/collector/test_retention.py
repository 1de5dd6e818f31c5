"""Retention: what is screened is forgotten after a while, and nothing else is."""

import threading
from pathlib import Path

import pytest

from collector.ingest import feedback_topic
from collector.retention import Retention
from collector.streams.embedded import EmbeddedStream
from tacit.errors import UnavailableError
from tests.builders import event
from tests.collector.conftest import MakeRoom, Room


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.now = 2e9

    def __call__(self) -> float:
        return self.now


class Scene:
    """A room and its retention."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.clock = Clock()
        self.retention = Retention(
            room.database, room.stream, room.ingestor.receipts, room.settings, clock=self.clock
        )

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.retention.forget()

    def stored(self) -> int:
        topic = feedback_topic(self.room.settings)
        return len(self.room.stream.read(topic, {}, limit=999, timeout_s=0.0))


@pytest.fixture
def scene(room: Room) -> Scene:
    return Scene(room)


def test_screened_records_go_after_the_retention(scene: Scene) -> None:
    scene.room.screen(event("e-1"), event("e-2", subject_id="u-2"))
    scene.after(0)
    assert scene.stored() == 2
    scene.after(3_000)
    assert scene.stored() == 2
    scene.after(700)
    assert scene.stored() == 0
    assert scene.room.store.find("helpdesk", "e-1") is not None
    assert scene.room.ingestor.accept([event("e-1")])[0].status == "duplicate"


def test_records_that_wait_to_be_screened_stay(scene: Scene) -> None:
    scene.room.screen(event("e-1"))
    scene.room.ingestor.accept([event("e-2")])
    scene.after(0)
    scene.after(10_000)
    assert scene.stored() == 2
    assert scene.room.ingestor.accept([event("e-2")])[0].status == "duplicate"
    scene.room.consumer.drain()
    scene.after(1)
    assert scene.stored() == 0


def test_offsets_go_on_after_all_records_are_gone(scene: Scene) -> None:
    scene.room.screen(event("e-1"))
    scene.after(0)
    scene.after(4_000)
    assert scene.stored() == 0
    scene.room.screen(event("e-2", subject_id="u-2"))
    assert scene.room.became("e-2")[0] == "accepted"
    topic = feedback_topic(scene.room.settings)
    assert scene.room.stream.end_offsets(topic) == {0: 2}


def test_space_is_used_again(tmp_path: Path) -> None:
    stream = EmbeddedStream(tmp_path / "stream.db")
    for _ in range(30):
        stream.append("t", [("u", b"x" * 10_000)] * 20)
        stream.trim("t", before=stream.end_offsets("t")[0])
    stream.close()
    assert (tmp_path / "stream.db").stat().st_size < 1_000_000


def test_stream_away_forgets_nothing(make: MakeRoom) -> None:
    scene = Scene(make())
    scene.room.screen(event("e-1"))
    scene.after(0)
    scene.room.stream.close()
    scene.clock.now += 10_000
    with pytest.raises(UnavailableError):
        scene.retention.forget()
    reopened = EmbeddedStream(scene.room.settings.home / "stream.db")
    assert reopened.end_offsets(feedback_topic(scene.room.settings)) == {0: 1}
    reopened.close()


def test_an_unforeseen_error_is_logged_and_forgetting_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("collector.retention.PERIOD_S", 0.0)
    stop, calls = threading.Event(), 0

    def forget() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("boom")
        stop.set()

    monkeypatch.setattr(scene.retention, "forget", forget)
    scene.retention.run(stop)
    assert calls == 2
    assert "boom" in caplog.text
