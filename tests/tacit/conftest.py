"""The stages of a home, with a first release."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tacit.config import load_settings
from tacit.contracts import Digest
from tacit.stages import Stages
from tests.builders import tiny_checkpoint


@pytest.fixture
def stages(tmp_path: Path, mlflow_uri: str) -> Iterator[Stages]:
    settings = load_settings(
        home=tmp_path / "home",
        overrides=[
            f"tracking.uri={mlflow_uri}",
            "collector.screening.holdout_share=0",
            "loop.min_events=4",
            "trainer.replay.share=0.5",
            "trainer.replay.on_policy_share=1",
        ],
    )
    made = Stages(settings)
    yield made
    made.database.dispose()


@pytest.fixture
def champion(stages: Stages) -> Digest:
    weights = tiny_checkpoint(stages.checkpoints)
    with stages.database.session() as session:
        genesis = stages.gatekeeper.genesis(session, stages.policy, weights, by="test")
        stages.releases.first(session, stages.policy, genesis.envelope, by="test")
    return weights
