"""Screening as a process of its own: ready only when it screens, killed without a loss."""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from collector.ingest import feedback_topic
from collector.streams import open_stream
from collector.tables import DeadLetterRow, EventRow
from tacit.config import Settings, load_settings
from tacit.database import Database
from tacit.errors import UnavailableError
from tacit.loop import OnlineLoop
from tacit.ports import free_port
from tacit.screening import is_screening, pid_path
from tacit.supervisor import Supervisor
from tests.builders import event, user

EVENTS_A_KILL = 4_000
"""More than are screened in the longest wait for a kill, also where 9,000 a second are."""
KILLS = 4


def _settings(home: Path) -> Settings:
    home.mkdir()
    settings = load_settings(home=home, overrides=["collector.screening.holdout_share=0"])
    database = Database(settings.resolved_database_url)
    database.migrate()
    database.dispose()
    return settings


def _send(settings: Settings, numbers: range) -> None:
    stream = open_stream(settings)
    records = []
    for number in numbers:
        said = {"prompt": user(f"prompt number {number} of many"), "completion": "billing"}
        sent = event(f"e-{number}", subject_id=f"u-{number}", interaction=said)
        records.append((sent.subject_id, sent.model_dump_json().encode()))
    stream.append(feedback_topic(settings), records)
    stream.close()


def _wait(done: Callable[[], bool], *, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _num_screened(database: Database) -> int:
    with database.reader() as session:
        return session.scalar(select(func.count()).select_from(EventRow)) or 0


@pytest.mark.slow
def test_screening_killed_again_and_again_loses_none_and_doubles_none(tmp_path: Path) -> None:
    settings, luck = _settings(tmp_path / "home"), random.Random(7)
    database = Database(settings.resolved_database_url)
    with Supervisor(settings, roles=("screening",), ready_timeout_s=60) as supervisor:
        _wait(
            lambda: (
                psutil.Process(supervisor.pid("screening")).nice() == psutil.Process().nice() + 5
            )
        )
        for kill in range(KILLS):
            _send(settings, range(kill * EVENTS_A_KILL, (kill + 1) * EVENTS_A_KILL))
            before = _num_screened(database)
            _wait(lambda before=before: _num_screened(database) > before)  # type: ignore[misc]
            time.sleep(luck.random() * 0.3)  # where in a chunk it dies is left to chance
            supervisor.kill("screening")
        num_events = KILLS * EVENTS_A_KILL + 50
        _send(settings, range(num_events - 50, num_events))
        _wait(lambda: _num_screened(database) == num_events)
        _wait(lambda: supervisor.is_ready("screening"))
    with database.reader() as session:
        keys = Counter(session.scalars(select(EventRow.event_id)))
        assert session.scalars(select(DeadLetterRow)).all() == []
    database.dispose()
    assert keys == Counter(f"e-{number}" for number in range(num_events))
    assert not pid_path(settings).exists()  # the last one was asked to end, and did


@pytest.mark.slow
def test_supervisor_waits_until_the_stream_answers_and_says_when_it_does_not(
    tmp_path: Path,
) -> None:
    away = {
        "stream": "kafka",
        "kafka": {"bootstrap_servers": f"127.0.0.1:{free_port()}", "bootstrap_timeout_s": 0.5},
    }
    settings = load_settings(home=_settings(tmp_path / "home").home, collector=away)
    with (
        Supervisor(settings, roles=("screening",), ready_timeout_s=8) as supervisor,
        pytest.raises(UnavailableError, match="does the stream answer"),
    ):
        supervisor.wait_ready()
    log = (settings.home / "logs" / "screening.log").read_text()
    assert "screening waits" in log


def test_process_that_was_killed_is_not_taken_for_the_one_that_follows(tmp_path: Path) -> None:
    settings = _settings(tmp_path / "home")
    assert not is_screening(settings, 4711)
    pid_path(settings).write_text("4711")
    assert is_screening(settings, 4711)
    assert not is_screening(settings, 471)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
@pytest.mark.parametrize("screens", [True, False])
def test_loop_screens_only_where_it_is_told_to(
    tmp_path: Path, mlflow_uri: str, screens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(tmp_path / "home")
    _send(settings, range(3))
    values = settings.model_dump() | {"tracking": {"uri": mlflow_uri}}
    loop = OnlineLoop(Settings.model_validate(values), screens=screens)
    monkeypatch.setattr(loop.trainer, "start", lambda: None)  # no Ray for this
    monkeypatch.setattr(loop.trainer, "stop", lambda: None)
    with loop:
        if screens:
            _wait(lambda: _num_screened(loop.database) == 3)
        else:
            time.sleep(1.0)
            assert _num_screened(loop.database) == 0
