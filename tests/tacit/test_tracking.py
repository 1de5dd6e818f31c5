"""MLflow: one run a cycle, found again after a restart; versions and aliases by digest."""

import pytest
from mlflow import MlflowClient

from tacit.metrics import MetricName
from tacit.tracking import Alias, Tracking
from tests.builders import batch, digest

# MLflow's own store uses a loader SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture
def tracking(mlflow_uri: str) -> Tracking:
    return Tracking(mlflow_uri)


def test_a_restarted_cycle_finds_its_run(tracking: Tracking) -> None:
    first = tracking.start_cycle("default", "default-1")
    assert tracking.start_cycle("default", "default-1") == first
    assert tracking.start_cycle("default", "default-2") != first


def test_run_holds_metrics_config_and_contracts(tracking: Tracking) -> None:
    run_id = tracking.start_cycle("default", "default-1")
    tracking.log_config(run_id, {"trainer": {"seed": 3, **{f"k{i}": i for i in range(150)}}})
    with tracking.live(run_id) as live:
        for step in range(5):
            live.log({MetricName.LOSS: 1.0 / (step + 1)}, step=step)
    tracking.log_contract(run_id, "batch.json", batch())
    tracking.end_cycle(run_id)
    client = MlflowClient(tracking.uri)
    run = client.get_run(run_id)
    assert run.data.params["trainer.seed"] == "3"
    history = client.get_metric_history(run_id, MetricName.LOSS)
    assert [round(m.value, 3) for m in history] == [1.0, 0.5, 0.333, 0.25, 0.2]
    assert {a.path for a in client.list_artifacts(run_id)} == {"config.json", "batch.json"}
    assert run.info.status == "FINISHED"


def test_weights_are_registered_once_and_aliases_follow(tracking: Tracking) -> None:
    first = tracking.register("default", digest("a"))
    assert tracking.register("default", digest("a")) == first
    second = tracking.register("default", digest("b"))
    tracking.set_alias("default", Alias.CHAMPION, first)
    assert tracking.alias_weights("default", Alias.CHAMPION) == digest("a")
    tracking.set_alias("default", Alias.CHAMPION, second)
    assert tracking.alias_weights("default", Alias.CHAMPION) == digest("b")
    assert tracking.alias_weights("default", Alias.ANCHOR) is None
    tracking.clear_alias("default", Alias.CHAMPION)
    tracking.clear_alias("default", Alias.CHAMPION)
    assert tracking.alias_weights("default", Alias.CHAMPION) is None
    tracking.tag_version("default", digest("a"), {"tacit.state": "promoted"})
    version = MlflowClient(tracking.uri).get_model_version("default", first)
    assert version.tags["tacit.state"] == "promoted"


def test_live_metrics_never_stop_an_update(tracking: Tracking) -> None:
    with tracking.live("0" * 32) as live:  # a run that does not exist
        live.log({MetricName.LOSS: 1.0}, step=1)
