"""Tokens per second of two workers with one thread each, over those of one.

Both groups stand beside each other on one Ray and update in turn, so that what else the machine
does falls on both. Ray is told of a CPU for each of the three workers; two never work with the
third. The figure is for steps of 128 examples. What a step costs whatever it holds, a good part of
the default's 32 short ones, no second worker can halve; that figure stands beside it. The first
epoch of an update, in which kernels are compiled, is not counted.
"""

import statistics
from collections.abc import Sequence

import ray

from benchmarks.update.demo import DemoBatch, demo_batch, demo_store
from tacit.checkpoints import CheckpointStore
from tacit.cluster import connect
from tacit.config import TrainerSettings
from tacit.metrics import MetricName
from trainer.placement import resolve_request
from trainer.progress import StepMetrics
from trainer.update import PolicyTrainer
from trainer.workers import WorkerGroup

BATCH_SIZES = {"scaling_2_workers": 128, "scaling_2_workers_batch_32": 32}
NUM_EPOCHS = 4
NUM_ROUNDS = 3


def scaling(*, quick: bool) -> dict[str, float]:
    """Medians over three rounds of 512 events; one of half of them if ``quick``."""
    connect(local_cpus=3)
    try:
        with demo_store() as (store, parent):
            given = demo_batch(parent, 256 if quick else 512)
            one, two = (_group(store, number) for number in (1, 2))
            rounds = [_round(store, given, one, two) for _ in range(1 if quick else NUM_ROUNDS)]
    finally:
        ray.shutdown()
    return {name: statistics.median(each[name] for each in rounds) for name in BATCH_SIZES}


def _group(store: CheckpointStore, num_workers: int) -> WorkerGroup:
    request = resolve_request(TrainerSettings(num_workers=num_workers))
    return WorkerGroup(store, request, placement_timeout_s=30)


def _round(
    store: CheckpointStore, given: DemoBatch, one: WorkerGroup, two: WorkerGroup
) -> dict[str, float]:
    ratios = {}
    for name, batch_size in BATCH_SIZES.items():
        alone, together = (_tokens_per_s(store, given, group, batch_size) for group in (one, two))
        ratios[name] = together / alone
    return ratios


def _tokens_per_s(
    store: CheckpointStore, given: DemoBatch, group: WorkerGroup, batch_size: int
) -> float:
    settings = TrainerSettings(
        num_workers=group.world_size, num_epochs=NUM_EPOCHS, batch_size=batch_size
    )
    trainer = PolicyTrainer(settings, store, open_group=lambda _: group)
    steps: list[StepMetrics] = []
    trainer.update(given.batch, given.events, given.replay, on_step=steps.append)
    return after_first_epoch(steps)


def after_first_epoch(steps: Sequence[StepMetrics]) -> float:
    """Tokens over seconds of all of an update's steps but those of its first epoch."""
    later = [step.metrics for step in steps[len(steps) // NUM_EPOCHS :]]
    tokens = [step[MetricName.TOKENS.value] for step in later]
    rates = [step[MetricName.TOKENS_PER_SECOND.value] for step in later]
    return sum(tokens) / sum(number / rate for number, rate in zip(tokens, rates, strict=True))
