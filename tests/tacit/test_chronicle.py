"""The chronicle may repeat itself after a restart without touching what came later."""

import pytest
from mlflow import MlflowClient

from tacit.chronicle import Chronicle
from tacit.config import load_settings
from tacit.contracts import VariantChoice, VariantResult
from tacit.cycles import CycleRow, CycleState, CycleStore
from tacit.database import Database
from tacit.tracking import Alias, Tracking
from tests.builders import candidate, comparison, digest

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


def test_the_choice_of_a_variant_is_told_with_its_numbers(
    mlflow_uri: str, sqlite_database: Database
) -> None:
    tracking = Tracking(mlflow_uri)
    run_id = tracking.start_cycle("default", "default-1")
    measured = [
        VariantResult(
            alpha=alpha,
            weights=digest(str(alpha)),
            stands=alpha < 1,
            why="",
            versus_champion={"old-world": comparison(-0.1 * alpha)},
        )
        for alpha in (1.0, 0.25)
    ]
    choice = VariantChoice(
        alpha=0.25, trained=digest("1.0"), reason="it stands", variants=tuple(measured)
    )
    chronicle = Chronicle(load_settings(), tracking, CycleStore(sqlite_database))
    chronicle.note_candidate(run_id, candidate(weights=digest("0.25"), choice=choice))
    client = MlflowClient(mlflow_uri)
    told = {
        name: {metric.step: metric.value for metric in client.get_metric_history(run_id, name)}
        for name in ("variant/alpha", "variant/stands", "variant/old-world")
    }
    assert told == {
        "variant/alpha": {0: 0.25},
        "variant/stands": {25: 1.0, 100: 0.0},
        "variant/old-world": {25: -0.025, 100: -0.1},
    }
    assert client.get_run(run_id).data.tags["tacit.choice"] == "it stands"
