"""Both streams keep the promises of ``collector/streams/base.py``."""

import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collector.streams import Stream, StreamRecord, open_stream
from collector.streams.embedded import EmbeddedStream
from tacit.config import load_settings
from tacit.errors import UnavailableError
from tests.collector.conftest import StreamMaker


def read_all(stream: Stream, topic: str, *, limit: int = 1_000) -> list[StreamRecord]:
    """Everything in ``topic``, read in chunks of ``limit``."""
    positions: dict[int, int] = {}
    found: list[StreamRecord] = []
    while records := stream.read(topic, positions, limit=limit, timeout_s=0.0):
        found += records
        positions |= {r.partition: r.offset + 1 for r in records}
    return found


def test_what_was_appended_is_read_back_by_another_process(
    open_again: StreamMaker, topic: str
) -> None:
    sent = [(f"u-{i % 3}", f"v-{i}".encode()) for i in range(20)]
    open_again().append(topic, sent)
    found = read_all(open_again(), topic)
    assert sorted((r.key, r.value) for r in found) == sorted(sent)
    assert len({(r.partition, r.offset) for r in found}) == len(sent)


def test_records_of_one_key_keep_their_order(open_again: StreamMaker, topic: str) -> None:
    stream = open_again()
    for i in range(10):
        stream.append(topic, [("u-1", b"%d" % i), ("u-2", b"%d" % i)])
    found = read_all(stream, topic)
    for key in ("u-1", "u-2"):
        assert [int(r.value) for r in found if r.key == key] == list(range(10))


def test_reading_goes_on_from_the_positions_given(open_again: StreamMaker, topic: str) -> None:
    stream = open_again()
    stream.append(topic, [("u-1", b"%d" % i) for i in range(10)])
    found = read_all(stream, topic)
    start = {found[6].partition: found[6].offset}
    for _ in range(2):  # going back is as good as going on
        again = stream.read(topic, start, limit=2, timeout_s=0.0)
        assert [r.value for r in again] == [b"6", b"7"]


def test_limit_is_kept_and_nothing_is_skipped(open_again: StreamMaker, topic: str) -> None:
    stream = open_again()
    stream.append(topic, [(f"u-{i}", b"%d" % i) for i in range(50)])
    assert len(stream.read(topic, {}, limit=7, timeout_s=0.0)) <= 7
    assert {int(r.value) for r in read_all(stream, topic, limit=7)} == set(range(50))


def test_empty_topic_reads_empty_and_appending_nothing_is_nothing(
    open_again: StreamMaker, topic: str
) -> None:
    stream = open_again()
    stream.append(topic, [])
    assert stream.read(topic, {}, limit=10, timeout_s=0.0) == []


def test_reader_wakes_for_what_is_appended_while_it_waits(
    open_again: StreamMaker, topic: str
) -> None:
    stream = open_again()
    assert read_all(stream, topic) == []
    timer = threading.Timer(0.2, stream.append, args=(topic, [("u-1", b"late")]))
    timer.start()
    started = time.monotonic()
    found = stream.read(topic, {}, limit=10, timeout_s=20.0)
    timer.join()
    assert [r.value for r in found] == [b"late"]
    assert time.monotonic() - started < 15.0


def test_topics_are_apart(open_again: StreamMaker, topic: str) -> None:
    stream = open_again()
    stream.append(topic, [("u-1", b"a")])
    stream.append(f"{topic}-other", [("u-1", b"b")])
    assert [r.value for r in read_all(stream, topic)] == [b"a"]


def test_concurrent_appends_are_all_there_once(open_again: StreamMaker, topic: str) -> None:
    stream = open_again()
    with ThreadPoolExecutor(16) as pool:
        appends = [pool.submit(stream.append, topic, [(f"u-{i}", b"%d" % i)]) for i in range(200)]
        for append in appends:
            append.result()
    assert sorted(int(r.value) for r in read_all(stream, topic)) == list(range(200))


def test_end_offsets_less_the_readers_positions_is_what_is_left_to_read(
    open_again: StreamMaker, topic: str
) -> None:
    stream = open_again()
    ends = stream.end_offsets(topic)
    assert set(ends.values()) == {0}
    stream.append(topic, [(f"u-{i}", b"x") for i in range(50)])
    ends = open_again().end_offsets(topic)
    assert sum(ends.values()) == 50
    positions = {r.partition: r.offset + 1 for r in read_all(stream, topic, limit=7)}
    assert {p: end for p, end in ends.items() if end} == positions
    stream.append(topic, [("u-1", b"more")])
    later = stream.end_offsets(topic)
    assert sum(later.values()) - sum(positions.values()) == 1
    assert set(later) == set(ends)


def test_closed_stream_refuses(open_again: StreamMaker, topic: str) -> None:
    stream = open_again()
    stream.close()
    with pytest.raises(UnavailableError, match="closed"):
        stream.append(topic, [("u-1", b"a")])


def test_several_processes_append_to_one_file_and_offsets_have_no_gap(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from collector.streams.embedded import EmbeddedStream\n"
        "s = EmbeddedStream(Path(sys.argv[1]))\n"
        "for i in range(50): s.append('t', [('u', f'{sys.argv[2]}-{i}'.encode())])\n"
    )
    path = tmp_path / "stream.db"
    workers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(3)]
    assert [w.wait() for w in workers] == [0, 0, 0]
    stream = EmbeddedStream(path)
    found = read_all(stream, "t")
    stream.close()
    assert [r.offset for r in found] == list(range(150))
    assert len({r.value for r in found}) == 150


def test_full_disk_is_unavailable_then_appends_go_on(tmp_path: Path) -> None:
    stream = EmbeddedStream(tmp_path / "stream.db")
    stream.append("t", [("u", b"before")])
    with sqlite3.connect(tmp_path / "stream.db") as rival:
        rival.execute(
            "CREATE TRIGGER full BEFORE INSERT ON records_1 BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    rival.close()
    with pytest.raises(UnavailableError, match="full"):
        stream.append("t", [("u", b"lost"), ("u", b"too")])
    with sqlite3.connect(tmp_path / "stream.db") as rival:
        rival.execute("DROP TRIGGER full")
    rival.close()
    stream.append("t", [("u", b"after")])
    assert [r.value for r in read_all(stream, "t")] == [b"before", b"after"]
    stream.close()


def test_unusable_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "stream.db").write_bytes(b"this is no database, it is a longer text" * 9)
    with pytest.raises(UnavailableError, match=r"stream\.db"):
        open_stream(load_settings(home=tmp_path))
