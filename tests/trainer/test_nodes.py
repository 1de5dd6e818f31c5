"""A whole Ray node killed in mid-update: other nodes take over, and the weights are the same."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tacit.checkpoints import CheckpointStore
from tacit.cluster import NAMESPACE
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, seal, settings
from trainer.update import PolicyTrainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning"),
]

EVENTS, REPLAY = mixed_events(24), replay_examples()
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
"""Ray otherwise takes half a minute to notice that a node is gone."""
STORE_BYTES = 80 * 1024 * 1024


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head node without CPUs, where the driver is, and two nodes with one CPU each."""
    head = {
        "num_cpus": 0,
        "object_store_memory": STORE_BYTES,
        "_system_config": QUICK,
        "include_dashboard": False,
    }
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    # As a user says that the cluster is not this machine's own: a node lost may be replaced.
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    ray.init(address=made.address, namespace=NAMESPACE, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


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
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)

    disturbed = trainer.update(batch, EVENTS, REPLAY, on_step=kill_a_node)
    trainer.stop()
    assert steps.count(1) == 2
    assert disturbed.world_size == 2
    assert disturbed.weights == undisturbed.weights
