"""Queues of the SDK: one contract for memory and disk, and what only the disk must withstand."""

import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.sdk.letters import LETTER_OVERHEAD_BYTES, Letter, LetterQueue, MemoryQueue
from collector.sdk.spool import ADOPT_EVERY_S, SET_ASIDE, Spool
from tacit.errors import UnavailableError

MakeQueue = Callable[..., LetterQueue]


def letters(*names: str, size: int = 20) -> list[Letter]:
    return [Letter(name, name.encode().ljust(size, b".")) for name in names]


def ids(queue: LetterQueue, *, max_events: int = 999, max_bytes: int = 10**9) -> list[str]:
    return [x.event_id for x in queue.head(max_events=max_events, max_bytes=max_bytes)]


@pytest.fixture(params=["memory", "disk"])
def make_queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeQueue]:
    made: list[LetterQueue] = []

    def build(max_bytes: int = 10**6) -> LetterQueue:
        if request.param == "memory":
            made.append(MemoryQueue(max_events=10**6, max_bytes=max_bytes))
        else:
            made.append(Spool(tmp_path / "spool", max_bytes=max_bytes))
        return made[-1]

    yield build
    for queue in made:
        queue.close()


def test_first_in_first_out_and_stays_until_removed(make_queue: MakeQueue) -> None:
    queue = make_queue()
    assert ids(queue) == []
    assert queue.offer(letters("a", "b", "c")) == 3
    assert ids(queue, max_events=2) == ids(queue, max_events=2) == ["a", "b"]
    queue.remove(1)
    assert ids(queue) == ["b", "c"]
    queue.offer(letters("d"))
    queue.remove(2)
    assert [x.body for x in queue.head(max_events=9, max_bytes=999)] == [b"d" + b"." * 19]
    assert (queue.num_offered, queue.num_removed) == (4, 3)
    queue.remove(1)
    assert (ids(queue), queue.num_bytes) == ([], 0)


def test_batch_is_bounded_in_bytes_but_never_empty(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.offer(letters("a", "b", "c", size=100))
    assert ids(queue, max_bytes=202) == ["a", "b"]
    assert ids(queue, max_bytes=201) == ["a"]
    assert ids(queue, max_bytes=1) == ["a"]


def test_takes_what_fits_and_no_more(make_queue: MakeQueue) -> None:
    queue = make_queue(3 * (20 + LETTER_OVERHEAD_BYTES))
    (large,) = letters("large", size=2_000)
    assert not queue.fits(large)
    assert queue.offer(letters("a", "b", "c", "d")) == 3
    assert not queue.has_room(letters("d")[0])
    assert queue.offer(letters("d")) == 0
    ids(queue)
    queue.remove(1)
    assert queue.has_room(letters("d")[0])
    assert queue.offer(letters("d")) == 1


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(st.sampled_from("oor"), st.integers(0, 6)), max_size=30))
def test_any_order_of_calls_keeps_the_queue_whole(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool"), max_bytes=12 * (20 + LETTER_OVERHEAD_BYTES))
    memory = MemoryQueue(max_events=999, max_bytes=12 * (20 + LETTER_OVERHEAD_BYTES))
    for number, (step, size) in enumerate(steps):
        if step == "o":
            batch = letters(*(f"e-{number}-{i}" for i in range(size)))
            assert spool.offer(batch) == memory.offer(batch)
        else:
            assert ids(spool, max_events=size or 1) == ids(memory, max_events=size or 1)
            num = len(ids(memory, max_events=size // 2)) if size > 1 else 0
            spool.remove(num)
            memory.remove(num)
        assert (spool.num_offered, spool.num_removed, spool.num_bytes) == (
            memory.num_offered,
            memory.num_removed,
            memory.num_bytes,
        )
    spool.close()


def killed(folder: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """A process that spools ``a-0``…``a-9`` and is killed in the middle of its life."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from collector.sdk.letters import Letter\n"
        "from collector.sdk.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), max_bytes=10**9)\n"
        "for i in range(10): spool.offer([Letter(f'a-{i}', b'x' * 100)])\n"
        f"{code}\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(folder)], check=False, capture_output=True, text=True
    )


A = [f"a-{i}" for i in range(10)]


def test_next_process_goes_on_where_a_killed_one_ended(tmp_path: Path) -> None:
    assert killed(tmp_path).returncode == -9
    spool = Spool(tmp_path, max_bytes=10**6)
    assert ids(spool) == A
    spool.offer(letters("b"))
    spool.remove(10)
    assert ids(spool) == ["b"]
    spool.remove(1)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_sent_events_of_a_killed_process_are_not_sent_again(tmp_path: Path) -> None:
    killed(tmp_path, "spool.head(max_events=4, max_bytes=9**9); spool.remove(4)")
    spool = Spool(tmp_path, max_bytes=10**6)
    assert ids(spool) == A[4:]
    spool.close()


def test_file_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    mine, yours = Spool(tmp_path, max_bytes=10**6), Spool(tmp_path, max_bytes=10**6)
    mine.offer(letters("a"))
    yours.offer(letters("b"))
    assert (ids(mine), ids(yours)) == (["a"], ["b"])
    mine.close()
    yours.close()
    again = Spool(tmp_path, max_bytes=10**6)
    assert sorted(ids(again)) == ["a", "b"]
    again.close()


def test_idle_process_adopts_what_another_left(tmp_path: Path) -> None:
    now = [0.0]
    spool = Spool(tmp_path, max_bytes=10**6, clock=lambda: now[0])
    killed(tmp_path)
    assert ids(spool) == []
    now[0] = ADOPT_EVERY_S
    assert ids(spool) == A
    assert spool.num_offered == 10
    spool.close()
    assert len(list(tmp_path.glob("*.db"))) == 1


def test_adoption_stops_at_the_bound_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    now = [0.0]
    spool = Spool(tmp_path, max_bytes=4 * (100 + LETTER_OVERHEAD_BYTES), clock=lambda: now[0])
    killed(tmp_path)
    seen: list[str] = []
    for _ in range(3):
        now[0] += ADOPT_EVERY_S
        found = ids(spool)
        assert len(found) <= 4
        seen += found
        spool.remove(len(found))
    assert seen == A
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_refuses_the_call_and_nothing_else(tmp_path: Path) -> None:
    """SQLite's own limit makes the very error of a full disk."""
    spool = Spool(tmp_path, max_bytes=10**9)
    spool.offer(letters("a"))
    db = spool._file._db
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(UnavailableError, match="full"):
        spool.offer(letters("b", size=100_000))
    assert spool.num_offered == 1
    db.execute("PRAGMA max_page_count=100000")
    spool.offer(letters("c"))
    assert ids(spool) == ["a", "c"]
    spool.close()


def test_acknowledged_event_is_not_sent_again_when_it_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, max_bytes=10**6)
    spool.offer(letters("a", "b", "c"))
    ids(spool)

    def full(_: int) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(spool._file, "delete_up_to", full)
        spool.remove(2)
    assert "stay in the spool" in caplog.text
    assert ids(spool) == ["c"]
    spool.remove(1)
    assert spool._file.totals(after=0).num_rows == 0
    spool.close()


def test_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="file"):
        Spool(tmp_path / "file", max_bytes=10**6)


def test_altered_event_is_set_aside_and_the_others_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, max_bytes=10**6)
    spool.offer(letters("a", "b", "c"))
    for value, name in ((b"altered", b"b"), (7, b"c")):
        spool._file._db.execute("UPDATE letters SET body=? WHERE event_id=?", [value, name])
    spool._file._db.commit()
    assert ids(spool) == ["a"]
    assert (spool.num_offered - spool.num_removed) == 1
    assert (tmp_path / SET_ASIDE).read_text().startswith("altered\n")
    assert caplog.text.count("set-aside") == 2
    spool.remove(1)
    spool.close()


def test_batch_of_altered_events_alone_does_not_stop_the_queue(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=10**6)
    spool.offer(letters("a", "b", "c"))
    spool._file._db.execute("UPDATE letters SET checksum=0 WHERE event_id<>x'63'")
    spool._file._db.commit()
    assert ids(spool, max_events=2) == ["c"]
    spool.close()


def _checkpointed(folder: Path, num: int) -> Path:
    spool = Spool(folder, max_bytes=10**8)
    spool.offer(letters(*(f"e-{i}" for i in range(num)), size=1_000))
    path = spool._claim.path
    spool.close()
    return path


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
def test_damaged_page_costs_its_events_and_no_others(
    tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = _checkpointed(tmp_path, 300)
    raw = bytearray(path.read_bytes())
    start = max(4096, int(len(raw) * share) // 4096 * 4096)
    raw[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(raw)
    spool = Spool(tmp_path, max_bytes=10**8)
    found = ids(spool)
    spool.offer(letters("new"))
    assert found == sorted(found, key=lambda name: int(name[2:]))
    assert ids(spool)[-1] == "new"
    if start > 4096:  # the second page is the root of the table: without it there is no order
        assert 285 <= len(found) < 300
    spool.remove(len(found) + 1)
    spool.close()
    assert "was damaged" in caplog.text


@pytest.mark.parametrize("num_bytes", [0, 1, 50, 4_096, 100_000, 100_001])
def test_torn_file_never_stops_the_next_process(tmp_path: Path, num_bytes: int) -> None:
    path = _checkpointed(tmp_path, 300)
    path.write_bytes(path.read_bytes()[:num_bytes])
    spool = Spool(tmp_path, max_bytes=10**8)
    found = ids(spool)
    assert set(found) <= {f"e-{i}" for i in range(300)}
    assert spool.offer(letters("new")) == 1
    assert ids(spool) == [*found, "new"]
    spool.close()


def test_torn_log_keeps_all_but_the_last_write(tmp_path: Path) -> None:
    killed(tmp_path)
    (log,) = tmp_path.glob("*.db-wal")
    log.write_bytes(log.read_bytes()[:-10])
    spool = Spool(tmp_path, max_bytes=10**6)
    assert ids(spool) == A[:9]
    spool.close()


def test_what_is_not_a_spool_file_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed(tmp_path)
    (tmp_path / "old.db").write_bytes(b"no database at all " * 500)
    os.utime(tmp_path / "old.db", (0, 0))  # the oldest is looked at first
    spool = Spool(tmp_path, max_bytes=10**6)
    assert ids(spool) == A
    spool.close()
    assert len(list(tmp_path.glob("*.damaged"))) == 1
    assert "was damaged" in caplog.text


def test_emptied_file_gives_its_space_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=10**8)
    spool.offer(letters(*(f"e-{i}" for i in range(300)), size=20_000))
    assert len(ids(spool)) == 300
    spool.remove(300)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 100_000
    spool.close()


def test_events_are_for_their_owner_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=10**6)
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    spool.close()


def test_closed_spool_takes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path, max_bytes=10**6)
    spool.offer(letters("a"))
    ids(spool)
    spool.close()
    spool.close()
    with pytest.raises(UnavailableError, match="closed"):
        spool.offer(letters("b"))
    assert ids(spool) == []
    with caplog.at_level(logging.DEBUG):
        spool.remove(1)


def test_a_file_that_was_tidied_away_under_it_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Spool(tmp_path, max_bytes=10**6)
    queue.offer(letters("a", "b"))
    assert ids(queue) == ["a", "b"]
    for path in tmp_path.iterdir():
        path.unlink()
    queue.remove(2)
    assert "stay in the spool" in caplog.text
    assert (ids(queue), queue.num_offered - queue.num_removed) == ([], 0)
    queue.close()
