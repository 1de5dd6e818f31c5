"""A loop killed in every state, and in the middle of the long ones, goes on from there."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from collector.ingest import Ingestor
from collector.streams import open_stream
from collector.tables import EventRow
from deploy.tables import ReleaseRow
from evaluator.suites import write_suite
from tacit.contracts import (
    Correction,
    FeedbackEvent,
    Suite,
    SuiteItem,
    SuiteKind,
    utc_now,
)
from tacit.cycles import CycleRow, CycleState
from tacit.database import Database
from tests.builders import interaction, user
from tests.conftest import _initialized_mlflow as initialized_mlflow
from tests.integration.crashing_loop import crash_settings
from tests.integration.scenes import GATE
from trainer.tables import BatchRow, CandidateRow

PLACES = [
    CycleState.COLLECTING,
    CycleState.TRAINING,
    "mid-training",
    CycleState.EVALUATING,
    "mid-evaluation",
    CycleState.AWAITING_DECISION,
    CycleState.PROMOTING,
]


def _home(folder: Path) -> Path:
    folder.mkdir()
    (folder / "gate.yaml").write_text(GATE)
    items = tuple(
        SuiteItem(item_id=f"q{i}", prompt=user(f"order {i}"), expected="x") for i in range(4)
    )
    suite = Suite(name="old", kind=SuiteKind.REGRESSION, items=items, max_new_tokens=2)
    shutil.copy(initialized_mlflow(), folder / "mlflow.db")
    settings = crash_settings(folder)
    write_suite(settings.suites_path, suite)
    database = Database(settings.resolved_database_url)
    database.migrate()
    stream = open_stream(settings)
    with Ingestor(database, stream, settings) as ingestor:
        ingestor.accept([_event(i) for i in range(24)])
    stream.close()
    database.dispose()
    return folder


def _event(number: int) -> FeedbackEvent:
    words = ["parcel", "refund", "invoice", "login", "address", "coupon"]
    prompt = f"{words[number % 6]} trouble {words[number // 6]} {words[(number * 5) % 6]}"
    return FeedbackEvent(
        event_id=f"e-{number}",
        policy="default",
        source="helpdesk",
        subject_id=f"u-{number}",
        occurred_at=utc_now(),
        feedback=Correction(completion=f"queue {number % 3}"),
        interaction=interaction(prompt, "wrong"),
    )


def _live(*lives: tuple[Path, str]) -> list[str]:
    """One life for each home and place, as ``crashing_loop`` has it; how each ended."""
    words = [str(word) for life in lives for word in life]
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.crashing_loop", *words],
        capture_output=True,
        text=True,
        timeout=800,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ends = done.stdout.splitlines()
    assert len(ends) == len(lives), (ends, done.stderr[-2000:])
    return ends


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two homes with the same events in their streams."""
    yield _home(tmp_path / "crashed"), _home(tmp_path / "calm")
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_killed_in_every_state_the_loop_ends_where_an_undisturbed_one_does(
    homes: tuple[Path, Path],
) -> None:
    crashed, calm = homes
    lives = [(crashed, place) for place in PLACES]
    *deaths, end, calm_end = _live(*lives, (crashed, "end"), (calm, "end"))
    assert dict(zip(PLACES, deaths, strict=True)) == dict.fromkeys(PLACES, str(int(signal.SIGKILL)))
    assert end.split() == calm_end.split() == ["promoted"]
    assert _outcome(crashed) == _outcome(calm)


def _outcome(home: Path) -> dict[str, object]:
    """What must not depend on crashes: weights, and how many of everything there is."""
    database = Database(crash_settings(home).resolved_database_url)
    with database.reader() as session:
        counted = (BatchRow, CandidateRow, ReleaseRow, CycleRow, EventRow)
        numbers = {
            table.__tablename__: session.scalar(select(func.count()).select_from(table))
            for table in counted
        }
        weights = session.scalars(select(ReleaseRow.weights).order_by(ReleaseRow.sequence)).all()
        trained = select(EventRow.event_key).where(EventRow.batch_id.is_not(None))
        keys = session.scalars(trained.order_by(EventRow.event_key)).all()
    database.dispose()
    return {**numbers, "weights": list(weights), "trained": list(keys)}
