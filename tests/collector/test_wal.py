"""Write-ahead logs are copied back beside the writers, and stay short under load."""

import sqlite3
import time
from pathlib import Path

from collector.streams.embedded import EmbeddedStream
from collector.wal import INLINE_PAGES, WalCheckpointer, leave_checkpoints_to_thread


def test_log_is_copied_back_by_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    leave_checkpoints_to_thread(writer)
    writer.execute("CREATE TABLE t (x)")
    writer.executemany("INSERT INTO t VALUES (?)", [("x" * 4_000,)] * 300)
    before = path.stat().st_size
    checkpointer = WalCheckpointer(path, period_s=0.01)
    deadline = time.monotonic() + 10
    while path.stat().st_size == before and time.monotonic() < deadline:
        time.sleep(0.01)
    checkpointer.close()
    assert path.stat().st_size > before + 300 * 4_000
    writer.close()


def test_log_of_the_stream_stays_short_under_load(tmp_path: Path) -> None:
    path = tmp_path / "stream.db"
    stream = EmbeddedStream(path)
    for _ in range(150):
        stream.append("t", [("u", b"x" * 4_000)] * 200)
    log = tmp_path / "stream.db-wal"
    assert log.stat().st_size < (INLINE_PAGES + 4_000) * 4_200
    stream.close()
    assert path.stat().st_size > 100 * 200 * 4_000


def test_file_that_cannot_be_used_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "late.db"
    path.write_bytes(b"no database, but a longer text than that" * 99)
    checkpointer = WalCheckpointer(path, period_s=0.01)
    time.sleep(0.05)
    path.unlink()
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE t (x)")
    deadline = time.monotonic() + 10
    while path.stat().st_size < 8_192 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_size >= 8_192
    checkpointer.close()
    writer.close()
