"""What the data does to an update ends the cycle with its reason, and nothing comes of it."""

import contextlib
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tacit.config import with_overrides
from tacit.contracts import EventStatus
from tacit.cycles import CycleState
from tacit.loop import OnlineLoop
from tests.builders import tiny_checkpoint
from tests.integration.crashing_loop import crash_settings
from tests.integration.test_crashes import _home as home_with_events

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),  # which saves each loop its own
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings(
        "ignore::FutureWarning",
        "ignore::ResourceWarning",
        "ignore::sqlalchemy.exc.SADeprecationWarning",
    ),
]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["trainer.learning_rate=1e30"], "expected a finite"),
        (["trainer.dpo_weight=0", "trainer.nll_weight=0"], "only examples that are"),
    ],
    ids=["exploding", "nothing to learn"],
)
def test_a_hopeless_update_fails_its_cycle_and_registers_nothing(
    tmp_path: Path, overrides: list[str], reason: str
) -> None:
    home = home_with_events(tmp_path / "home")
    settings = with_overrides(crash_settings(home), overrides)
    with contextlib.chdir(home), OnlineLoop(settings) as loop:
        loop.begin(lambda: tiny_checkpoint(loop.checkpoints), by="test")
        champion = loop.releases.anchor(loop.policy)
        before = set(loop.checkpoints.root.iterdir())
        cycle = loop.run_cycle()
        assert cycle.state == CycleState.FAILED
        assert reason in (cycle.reason or "")
        assert cycle.candidate_id is None
        assert loop.candidates.all(loop.policy) == []
        assert set(loop.checkpoints.root.iterdir()) == before
        current = loop.releases.current(loop.policy)
        assert current is not None
        assert current.weights == champion
        # What the data did to the update waits for a person, not for the next batch.
        events = loop.events.events_of(str(cycle.batch_id))
        assert loop.events.counts(loop.policy)[EventStatus.QUARANTINED] == len(events) > 0
        assert loop.events.reasons(loop.policy) == {"failed_cycle": len(events)}
        client = MlflowClient(settings.tracking_uri)
        run = client.get_run(str(cycle.mlflow_run_id))
        assert (run.info.status, run.data.tags["tacit.state"]) == ("FAILED", "failed")
        (version,) = client.search_model_versions(f"name = '{loop.policy}'")
        assert version.tags["tacit.weights"] == champion
