"""Updates on a warm group of Ray actors. Ray and the group start once for all of them."""

import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RaySystemError,
    WorkerCrashedError,
)
from safetensors.torch import load_file

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Outcome
from tacit.errors import IntegrityError, PlacementError, TrainingError
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, seal, settings, train
from trainer.failures import explain
from trainer.group import WorkerFailedError, WorkerLostError
from trainer.memory import UpdateTooLargeError
from trainer.placement import Request, place, resolve_request
from trainer.provenance import processor_kind
from trainer.session import UpdateJob
from trainer.update import PolicyTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")

EVENTS, REPLAY = mixed_events(24), replay_examples()
NEUTRAL = Outcome(metric="resolved", value=0.0)


@pytest.fixture(scope="module")
def warm(cluster, tmp_path_factory) -> Iterator[Any]:
    """A trainer whose two workers are up, its store and a parent."""
    store = CheckpointStore(tmp_path_factory.mktemp("warm") / "checkpoints")
    trainer = PolicyTrainer(settings(), store)
    trainer.start()
    yield SimpleNamespace(trainer=trainer, store=store, parent=build.tiny_checkpoint(store))
    trainer.stop()


def update(warm, on_step=lambda step: None):
    batch = seal(warm.parent, EVENTS, REPLAY)
    return warm.trainer.update(batch, EVENTS, REPLAY, on_step=on_step)


def adapter(store, digest) -> torch.Tensor:
    weights = load_file(store.path(digest) / "adapter_model.safetensors")
    return torch.cat([weights[name].reshape(-1) for name in sorted(weights)])


def test_two_workers_agree_with_one_and_with_themselves(warm):
    first, again = update(warm), update(warm)
    assert first.weights == again.weights
    assert first.world_size == 2
    alone, _ = train(warm.store, warm.parent, EVENTS, REPLAY, settings=settings())
    moved = adapter(warm.store, alone)
    assert moved.abs().max() > 1e-3
    assert torch.allclose(adapter(warm.store, first.weights), moved, atol=1e-4)


def test_the_result_says_what_it_is_a_function_of(warm):
    trained = update(warm)
    assert trained.config["num_workers"] == 2
    assert trained.config["lora"]["rank"] == 4
    assert trained.seed == 0
    assert {"torch", "transformers", "peft", "ray", "python"} <= set(trained.versions)
    assert trained.versions["processor"] == processor_kind("cpu")
    assert trained.metrics["train/loss"] > 0
    warm.store.verify(trained.weights)


def test_steps_arrive_while_the_update_still_runs(warm):
    arrivals = []
    update(warm, lambda step: arrivals.append((step.step, time.monotonic())))
    finished = time.monotonic()
    assert [number for number, _ in arrivals] == list(range(1, 9))
    spread_s = arrivals[-1][1] - arrivals[0][1]
    assert spread_s > 0.2 * (finished - arrivals[0][1])


def test_what_is_not_the_sealed_batch_is_refused(warm):
    batch = seal(warm.parent, EVENTS, REPLAY)
    for events, replay in ((EVENTS[::-1], REPLAY), (EVENTS, REPLAY[1:])):
        with pytest.raises(IntegrityError):
            warm.trainer.update(batch, events, replay, on_step=lambda step: None)


def test_a_damaged_parent_is_refused(warm, tmp_path):
    store = CheckpointStore(tmp_path / "damaged")
    parent = build.tiny_checkpoint(store)
    with (store.path(parent) / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    batch = seal(parent, EVENTS)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        PolicyTrainer(settings(), store).update(batch, EVENTS, [], on_step=lambda step: None)


def test_a_batch_without_a_signal_is_an_error_with_its_reason(warm):
    events = [build.screened("e-1", feedback=NEUTRAL)]
    with pytest.raises(TrainingError, match="all neutral"):
        warm.trainer.update(seal(warm.parent, events), events, [], on_step=lambda step: None)


def test_errors_of_workers_leave_the_group_fit_for_more(warm):
    before = update(warm)
    events = [build.screened("e-1", feedback=NEUTRAL)]
    with pytest.raises(TrainingError):
        warm.trainer.update(seal(warm.parent, events), events, [], on_step=lambda step: None)
    assert update(warm).weights == before.weights


def test_what_the_cluster_can_never_place_is_refused_in_time(cluster):
    trainer = PolicyTrainer(
        settings(num_workers=64, placement_timeout_s=5.0), CheckpointStore.__new__(CheckpointStore)
    )
    started = time.monotonic()
    with pytest.raises(PlacementError) as caught:
        trainer.start()
    assert time.monotonic() - started < 5
    assert "64 workers with 1 CPUs each" in caught.value.expected
    assert "2 CPUs in total" in caught.value.got


def test_what_the_cluster_cannot_place_now_is_refused_in_time(warm):
    update(warm)  # its two workers hold both CPUs
    started = time.monotonic()
    with pytest.raises(PlacementError) as caught:
        place(Request(num_workers=2, cpus_per_worker=1, gpus_per_worker=0), timeout_s=1.0)
    assert 1 <= time.monotonic() - started < 10
    assert "2 workers with 1 CPUs each" in caught.value.expected
    assert "2 CPUs in total, 0 CPUs available" in caught.value.got


def test_gpus_that_are_not_there_are_named(cluster):
    with pytest.raises(PlacementError, match="0 GPUs in total") as caught:
        place(Request(num_workers=1, cpus_per_worker=1, gpus_per_worker=1), timeout_s=1.0)
    assert "1 CPUs and 1 GPUs" in caught.value.expected


@pytest.mark.parametrize(("fields", "expected"), [({}, 2), ({"cpus_per_worker": 2}, 1)])
def test_by_default_there_are_as_many_workers_as_fit_up_to_two(cluster, fields, expected):
    assert resolve_request(settings(**fields)).num_workers == expected


# What follows leaves the group in pieces, and so stands last.


@pytest.mark.slow
def test_killed_workers_are_replaced_and_the_update_ends_the_same(warm):
    undisturbed = update(warm)
    victims, steps = [1, 0], []

    def kill(step) -> None:
        steps.append(step.step)
        if step.step == 3 and victims:
            ray.kill(warm.trainer._group.workers[victims.pop()])

    disturbed = update(warm, kill)
    assert not victims
    assert steps.count(1) == 3
    assert disturbed.weights == undisturbed.weights


class FailsOnRank1(tuple):
    """Events that one worker alone cannot read."""

    def __iter__(self):
        if torch.distributed.get_rank() == 1:
            raise OSError("disk on fire")
        return super().__iter__()


@pytest.mark.slow
def test_a_failure_in_one_worker_ends_the_others_and_is_named(warm):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    warm.trainer.start()
    job = UpdateJob(warm.parent, FailsOnRank1(EVENTS), (), settings())
    started = time.monotonic()
    with pytest.raises(WorkerFailedError, match="disk on fire"):
        list(warm.trainer._group.run(job))
    assert time.monotonic() - started < 60
    warm.trainer._drop_group()


class StarvesRank1(tuple):
    """Events that leave one worker without memory."""

    def __iter__(self):
        if torch.distributed.get_rank() == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. 64 GiB wanted")
        return super().__iter__()


@pytest.mark.slow
def test_one_worker_out_of_memory_is_told_as_such(warm):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    warm.trainer.start()
    job = UpdateJob(warm.parent, StarvesRank1(EVENTS), (), settings())
    with pytest.raises(UpdateTooLargeError, match="64 GiB wanted"):
        list(warm.trainer._group.run(job))
    warm.trainer._drop_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (NodeDiedError("node gone"), WorkerLostError),
        (WorkerCrashedError(), WorkerLostError),
        (ObjectLostError("0" * 56, None, ""), WorkerLostError),
        (OutOfMemoryError("worker killed, node low on memory"), UpdateTooLargeError),
        (RaySystemError("no route"), WorkerFailedError),
    ],
)
def test_what_ray_says_is_understood(error, meaning):
    assert type(explain([error])) is meaning


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_update(warm):
    stubborn = PolicyTrainer(settings(max_restarts=0), warm.store)
    stubborn._group, warm.trainer._group = warm.trainer._group, None
    batch = seal(warm.parent, EVENTS, REPLAY)

    def kill(step) -> None:
        ray.kill(stubborn._group.workers[1])

    with pytest.raises(TrainingError, match="lost worker"):
        stubborn.update(batch, EVENTS, REPLAY, on_step=kill)
