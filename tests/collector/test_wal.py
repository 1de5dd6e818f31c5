"""Write-ahead logs are copied back beside the writers, and stay short under load."""

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from collector.streams.embedded import EmbeddedStream
from collector.wal import WalCheckpointer, leave_checkpoints_to_thread


def test_log_is_copied_back_by_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    leave_checkpoints_to_thread(writer)
    writer.execute("CREATE TABLE t (x)")
    writer.executemany("INSERT INTO t VALUES (?)", [("x" * 4_000,)] * 300)
    before = path.stat().st_size
    checkpointer = WalCheckpointer(path, period_s=0.01)
    _wait_until(lambda: path.stat().st_size > before)
    checkpointer.close()
    assert path.stat().st_size > before + 300 * 4_000
    writer.close()


def test_log_of_the_stream_stays_short_under_load(tmp_path: Path) -> None:
    path = tmp_path / "stream.db"
    num_bytes = 150 * 200 * 4_000
    stream = EmbeddedStream(path)
    try:
        for _ in range(150):
            stream.append("t", [("u", b"x" * 4_000)] * 200)
        # How much is written while the thread copies depends on the disk.
        assert (tmp_path / "stream.db-wal").stat().st_size < 0.7 * num_bytes
    finally:
        stream.close()
    assert path.stat().st_size > 100 * 200 * 4_000


def test_file_that_cannot_be_used_is_tried_again_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collector.wal")
    path = tmp_path / "late.db"
    path.write_bytes(b"no database, but a longer text than that" * 99)
    num_tries = 0
    connect = sqlite3.connect

    def counted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        nonlocal num_tries
        num_tries += 1
        return connect(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("collector.wal.sqlite3.connect", counted)
        checkpointer = WalCheckpointer(path, period_s=0.001)
        _wait_until(lambda: num_tries >= 5)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "is not copied back for now" in caplog.text
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (x)")
        _wait_until(lambda: path.stat().st_size >= 8_192)
        _wait_until(lambda: "is copied back again" in caplog.text)
        checkpointer.close()
    assert len(caplog.records) == 2


def test_file_opened_before_it_had_a_log_is_copied_back_too(tmp_path: Path) -> None:
    path = tmp_path / "early.db"
    checkpointer = WalCheckpointer(path, period_s=0.001)
    try:
        _wait_until(path.exists)
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("PRAGMA journal_mode=WAL")
            writer.execute("CREATE TABLE t (x)")
            _wait_until(lambda: path.stat().st_size >= 8_192)
    finally:
        checkpointer.close()


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert holds()
