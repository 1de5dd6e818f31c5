"""The recorder never blocks the one who serves, and loses nothing while the stream comes back."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from collector.record import InteractionRecorder
from collector.streams import StreamRecord
from collector.streams.embedded import EmbeddedStream
from tacit.contracts import Interaction
from tacit.errors import TooLargeError, UnavailableError
from tests.builders import recorded


class _Gate:
    """A stream whose appends wait for a gate, and fail as told."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.failures: list[Exception] = []
        self.values: list[bytes] = []

    def append(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        self.entered.set()
        self.open.wait(20)
        if self.failures:
            raise self.failures.pop(0)
        self.values += [value for _, value in records]

    def read(
        self, topic: str, positions: Mapping[int, int], *, limit: int, timeout_s: float
    ) -> list[StreamRecord]:
        return []

    def close(self) -> None:
        """Nothing to close."""


def test_recorded_interactions_are_in_the_stream_after_close(tmp_path: Path) -> None:
    stream = EmbeddedStream(tmp_path / "stream.db")
    recorder = InteractionRecorder(stream, topic="t")
    sent = [recorded(f"i-{i}") for i in range(600)]
    for interaction in sent:
        recorder.record(interaction)
    recorder.close()
    found = stream.read("t", {}, limit=999, timeout_s=0.0)
    assert [Interaction.model_validate_json(r.value) for r in found] == sent
    stream.close()


def test_record_returns_while_the_stream_hangs_and_the_oldest_go() -> None:
    gate = _Gate()
    recorder = InteractionRecorder(gate, topic="t", max_queue=5)
    recorder.record(recorded("first"))
    assert gate.entered.wait(10)
    for i in range(8):
        recorder.record(recorded(f"i-{i}"))
    assert recorder.num_dropped == 3
    gate.open.set()
    recorder.close()
    ids = [Interaction.model_validate_json(v).interaction_id for v in gate.values]
    assert ids == ["first", "i-3", "i-4", "i-5", "i-6", "i-7"]


def test_stream_away_is_tried_again_and_a_refusal_is_not() -> None:
    gate = _Gate()
    gate.open.set()
    gate.failures = [UnavailableError("x")]
    recorder = InteractionRecorder(gate, topic="t")
    recorder.record(recorded("i-1"))
    recorder.flush()
    assert (len(gate.values), recorder.num_dropped) == (1, 0)
    gate.failures = [TooLargeError("x")]
    recorder.record(recorded("i-2"))
    recorder.flush()
    assert (len(gate.values), recorder.num_dropped) == (1, 1)
    recorder.close()


def test_an_unforeseen_error_is_logged_and_recording_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = _Gate()
    gate.open.set()
    gate.failures = [RuntimeError("boom")]
    recorder = InteractionRecorder(gate, topic="t")
    recorder.record(recorded("i-1"))
    recorder.flush(timeout_s=10.0)
    assert recorder.num_dropped == 1
    assert "boom" in caplog.text
    recorder.record(recorded("i-2"))
    recorder.close()
    assert len(gate.values) == 1


def test_close_says_so_when_it_could_not_flush() -> None:
    gate = _Gate()
    gate.open.set()
    gate.failures = [UnavailableError("x")] * 99
    recorder = InteractionRecorder(gate, topic="t")
    recorder.record(recorded("i-1"))
    with pytest.raises(UnavailableError, match="interactions in the stream"):
        recorder.close(timeout_s=0.05)
    assert recorder.num_dropped == 1
