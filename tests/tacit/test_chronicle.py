"""The chronicle may repeat itself after a restart without touching what came later."""

import pytest
from mlflow import MlflowClient

from tacit.chronicle import Chronicle
from tacit.config import load_settings
from tacit.cycles import CycleRow, CycleState, CycleStore
from tacit.database import Database
from tacit.tracking import Alias, Tracking
from tests.builders import candidate, digest

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


def test_closing_an_old_cycle_again_leaves_the_pending_candidate_alone(
    mlflow_uri: str, sqlite_database: Database
) -> None:
    tracking, settings = Tracking(mlflow_uri), load_settings()
    run_id = tracking.start_cycle("default", "default-1")
    ended = CycleRow(cycle_id="default-1", state=CycleState.REJECTED, mlflow_run_id=run_id)
    first = Chronicle(settings, tracking, CycleStore(sqlite_database))
    first.note_candidate(run_id, candidate(weights=digest("old")))
    first.close(ended, digest("old"))
    assert tracking.alias_weights("default", Alias.CANDIDATE) is None
    ended_at = MlflowClient(mlflow_uri).get_run(run_id).info.end_time

    pending = tracking.start_cycle("default", "default-2")
    first.note_candidate(pending, candidate(weights=digest("new")))
    restarted = Chronicle(settings, tracking, CycleStore(sqlite_database))
    restarted.close(ended, digest("old"))
    assert tracking.alias_weights("default", Alias.CANDIDATE) == digest("new")
    assert MlflowClient(mlflow_uri).get_run(run_id).info.end_time == ended_at
