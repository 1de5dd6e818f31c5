"""A whole Ray node killed in mid-update: other nodes take over, and the weights are the same."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tacit.checkpoints import CheckpointStore
from tacit.cluster import NAMESPACE
from tests import builders as build
from tests.nodes import add_node, started_nodes
from tests.trainer.builders import mixed_events, replay_examples, seal, settings
from trainer.update import PolicyTrainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning"),
]

EVENTS, REPLAY = mixed_events(24), replay_examples()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two nodes, and this process as their driver."""
    with started_nodes() as made:
        # As a user says that the cluster is not this machine's own: a node lost may be replaced.
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        ray.init(address=made.address, namespace=NAMESPACE, log_to_driver=False)
        yield made
        ray.shutdown()


def test_a_node_killed_in_mid_update_is_made_up_for(cluster: Cluster, tmp_path: Any) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    batch = seal(build.tiny_checkpoint(store), EVENTS, REPLAY)
    trainer = PolicyTrainer(settings(placement_timeout_s=60), store)
    undisturbed = trainer.update(batch, EVENTS, REPLAY, on_step=lambda step: None)
    assert undisturbed.world_size == 2
    victims, steps = [], []

    def kill_a_node(step: Any) -> None:
        steps.append(step.step)
        if step.step == 3 and not victims:
            victims.append(cluster.list_all_nodes()[-1])
            cluster.remove_node(victims[0], allow_graceful=False)
            add_node(cluster)

    disturbed = trainer.update(batch, EVENTS, REPLAY, on_step=kill_a_node)
    trainer.stop()
    assert steps.count(1) == 2
    assert disturbed.world_size == 2
    assert disturbed.weights == undisturbed.weights
