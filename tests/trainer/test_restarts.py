"""What takes the place of lost workers: as many of them, fewer only where no more can be had."""

from collections.abc import Iterator

import pytest

from tacit.contracts import Digest
from tacit.errors import PlacementError, TrainingError
from tests import builders as build
from tests.trainer.builders import mixed_events, seal, settings
from trainer.group import WorkerLostError
from trainer.placement import Request
from trainer.progress import StepMetrics
from trainer.session import UpdateJob
from trainer.update import PolicyTrainer

EVENTS = mixed_events(6)
STEP = StepMetrics(1, 1, {"train/loss": 0.5})


class Cluster:
    """A cluster of ``num_cpus`` whose groups of more workers than that are lost or refused."""

    def __init__(self, num_cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_cpus = num_cpus
        self.asked_for: list[int] = []
        self.num_losses = 0
        self.shrinks_to: int | None = None
        monkeypatch.setattr("trainer.update.connect", lambda **_: False)
        monkeypatch.setattr("trainer.update.resolve_request", self.resolve)

    def resolve(self, chosen: object) -> Request:
        """As many workers as fit, where the settings leave it open."""
        return Request(getattr(chosen, "num_workers", None) or self.num_cpus, 1, 0)

    def open_group(self, request: Request) -> "FakeGroup":
        """A group, or PlacementError."""
        self.asked_for.append(request.num_workers)
        if request.num_workers > self.num_cpus:
            raise PlacementError(str(request), got=f"{self.num_cpus} CPUs")
        return FakeGroup(self, request.num_workers)


class FakeGroup:
    """Takes one step, then ends or is lost."""

    processor = "abacus"
    fast_bf16 = False

    def __init__(self, cluster: Cluster, world_size: int) -> None:
        self._cluster = cluster
        self.world_size = world_size

    def run(self, job: UpdateJob) -> Iterator[StepMetrics | Digest]:
        """A step and a digest that hangs on the number of workers, as the real one does."""
        yield STEP
        if self._cluster.num_losses:
            self._cluster.num_losses -= 1
            self._cluster.num_cpus = self._cluster.shrinks_to or self._cluster.num_cpus
            raise WorkerLostError("killed")
        yield build.digest(f"{self.world_size} workers")

    def stop(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Four CPUs and no losses."""
    return Cluster(4, monkeypatch)


def update(store, cluster, **fields):
    parent = build.tiny_checkpoint(store)
    trainer = PolicyTrainer(settings(**fields), store, open_group=cluster.open_group)
    steps = []
    made = trainer.update(seal(parent, EVENTS), EVENTS, [], on_step=steps.append)
    return made, len(steps)


def test_lost_workers_are_replaced_by_as_many_though_the_cluster_grew(store, cluster):
    cluster.num_losses, cluster.shrinks_to = 2, 8
    made, num_steps = update(store, cluster)
    assert cluster.asked_for == [4, 4, 4]
    assert num_steps == 3
    assert (made.world_size, made.weights) == (4, build.digest("4 workers"))


def test_fewer_go_on_where_the_room_does_not_come_back(store, cluster, caplog):
    cluster.num_losses, cluster.shrinks_to = 1, 1
    made, _ = update(store, cluster)
    assert cluster.asked_for == [4, 4, 1]
    assert made.world_size == made.config["num_workers"] == 1
    assert "no more room for 4 workers" in caplog.text


def test_a_number_that_was_asked_for_is_kept_to(store, cluster):
    cluster.num_losses, cluster.shrinks_to = 1, 1
    with pytest.raises(PlacementError):
        update(store, cluster, num_workers=3)
    assert cluster.asked_for == [3, 3]


def test_workers_that_are_lost_each_time_end_the_update(store, cluster):
    cluster.num_losses = 9
    with pytest.raises(TrainingError, match="3 attempts"):
        update(store, cluster, max_restarts=2)
    assert len(cluster.asked_for) == 3
