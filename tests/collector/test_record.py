"""The recorder never blocks the one who serves, and loses nothing while the stream comes back."""

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from collector.record import InteractionRecorder
from collector.sdk.letters import MemoryQueue
from collector.sdk.spool import Spool
from collector.streams import Stream, StreamRecord
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
        self.refused = b""
        self.values: list[bytes] = []

    def append(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        self.entered.set()
        self.open.wait(20)
        if self.failures:
            raise self.failures.pop(0)
        if self.refused and any(self.refused in value for _, value in records):
            raise TooLargeError("x")
        self.values += [value for _, value in records]

    def read(
        self, topic: str, positions: Mapping[int, int], *, limit: int, timeout_s: float
    ) -> list[StreamRecord]:
        return []

    def close(self) -> None:
        """Nothing to close."""


def recorder_of(stream: Stream, *, max_events: int = 1_000) -> InteractionRecorder:
    queue = MemoryQueue(max_events=max_events, max_bytes=2**30)
    return InteractionRecorder(stream, queue, topic="t")


def ids_in(values: Sequence[bytes]) -> list[str]:
    return [Interaction.model_validate_json(value).interaction_id for value in values]


def test_recorded_interactions_are_in_the_stream_after_close(tmp_path: Path) -> None:
    stream = EmbeddedStream(tmp_path / "stream.db")
    recorder = recorder_of(stream)
    sent = [recorded(f"i-{i}") for i in range(600)]
    for interaction in sent:
        recorder.record(interaction)
    recorder.close()
    found = stream.read("t", {}, limit=999, timeout_s=0.0)
    assert [Interaction.model_validate_json(r.value) for r in found] == sent
    stream.close()


def test_record_returns_while_the_stream_hangs_and_what_is_too_much_goes() -> None:
    gate = _Gate()
    recorder = recorder_of(gate, max_events=6)
    recorder.record(recorded("first"))
    assert gate.entered.wait(10)
    for i in range(8):
        recorder.record(recorded(f"i-{i}"))
    assert recorder.num_dropped == 3
    gate.open.set()
    recorder.close()
    assert ids_in(gate.values) == ["first", "i-0", "i-1", "i-2", "i-3", "i-4"]


def test_stream_away_is_tried_again_and_a_refusal_is_not() -> None:
    gate = _Gate()
    gate.open.set()
    gate.failures = [UnavailableError("x")]
    recorder = recorder_of(gate)
    recorder.record(recorded("i-1"))
    recorder.flush()
    assert (len(gate.values), recorder.num_dropped) == (1, 0)
    gate.failures = [TooLargeError("x")]
    recorder.record(recorded("i-2"))
    recorder.flush()
    assert (len(gate.values), recorder.num_dropped) == (1, 1)
    recorder.close()


def test_one_that_is_refused_takes_no_other_along() -> None:
    gate = _Gate()
    recorder = recorder_of(gate)
    recorder.record(recorded("first"))
    assert gate.entered.wait(10)
    for i in range(3):
        recorder.record(recorded(f"i-{i}"))
    gate.refused = b'"i-1"'
    gate.open.set()
    recorder.close()
    assert ids_in(gate.values) == ["first", "i-0", "i-2"]
    assert recorder.num_dropped == 1


def test_an_unforeseen_error_is_logged_and_recording_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = _Gate()
    gate.open.set()
    gate.failures = [RuntimeError("boom")]
    recorder = recorder_of(gate)
    recorder.record(recorded("i-1"))
    recorder.record(recorded("i-2"))
    recorder.close()
    assert "boom" in caplog.text
    assert ids_in(gate.values) == ["i-1", "i-2"]


def test_close_says_so_when_it_could_not_flush() -> None:
    gate = _Gate()
    gate.open.set()
    gate.failures = [UnavailableError("x")] * 99
    recorder = recorder_of(gate)
    recorder.record(recorded("i-1"))
    with pytest.raises(UnavailableError, match="interactions in the stream"):
        recorder.close(timeout_s=0.05)
    assert recorder.num_dropped == 1


def test_what_waits_on_disk_is_appended_by_the_next_recorder(tmp_path: Path) -> None:
    gate = _Gate()
    gate.open.set()
    gate.failures = [UnavailableError("x")] * 99
    recorder = InteractionRecorder(gate, Spool(tmp_path, max_bytes=2**20), topic="t")
    recorder.record(recorded("i-1"))
    with pytest.raises(UnavailableError):
        recorder.close(timeout_s=0.05)
    assert recorder.num_dropped == 0
    gate.failures = []
    InteractionRecorder(gate, Spool(tmp_path, max_bytes=2**20), topic="t").close()
    assert ids_in(gate.values) == ["i-1"]


_KILLED = """
import os, signal, sys, threading
from pathlib import Path
from collector.record import InteractionRecorder
from collector.sdk.spool import Spool
from tests.builders import recorded

class Hanging:
    def append(self, topic, records):
        threading.Event().wait()

recorder = InteractionRecorder(Hanging(), Spool(Path(sys.argv[1]), max_bytes=2**20), topic="t")
for number in range(20):
    recorder.record(recorded(f"i-{number}"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_recorded_survives_the_death_of_the_process(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -9
    gate = _Gate()
    gate.open.set()
    InteractionRecorder(gate, Spool(tmp_path, max_bytes=2**20), topic="t").close()
    assert ids_in(gate.values) == [f"i-{number}" for number in range(20)]
