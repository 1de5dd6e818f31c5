"""Policies whose trainable weights are one vector, and updates of them that keep what moved."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch

from tacit.checkpoints import CheckpointStore
from tacit.policies import load_model, load_tokenizer
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings
from trainer.checkpoint import OpenPolicy
from trainer.collective import Collective
from trainer.distillation import Teacher
from trainer.examples import Example, ExampleKind, build_examples
from trainer.optimize import Optimization
from trainer.progress import StepMetrics
from trainer.weights import FlatParameters

T = TypeVar("T")


class Update(NamedTuple):
    """What an update learned from and what it did."""

    examples: list[Example]
    before: torch.Tensor
    after: torch.Tensor

    @property
    def moved(self) -> torch.Tensor:
        """How far each trainable weight went."""
        return (self.after - self.before).abs()


def open_whole(store: CheckpointStore) -> OpenPolicy:
    """The tiny checkpoint with all its weights trainable."""
    parent = build.tiny_checkpoint(store)
    model = load_model(store, parent).eval().requires_grad_(True)
    return OpenPolicy(model=model, tokenizer=load_tokenizer(store, parent), base=None)


def flat_weights(policy: OpenPolicy, num_replay: int) -> tuple[FlatParameters, list[Example]]:
    """The policy's trainable weights as one vector, and replay examples."""
    examples = build_examples(
        policy.tokenizer, mixed_events(1), replay_examples(num_replay), max_length=512
    )
    rehearsed = [e for e in examples if e.kind is ExampleKind.REPLAY]
    return FlatParameters(policy.trainable), rehearsed


def restrained(
    policy: OpenPolicy,
    *,
    replay: int = 4,
    group: Collective | None = None,
    teacher: Teacher | None = None,
    **fields: Any,
) -> tuple[Update, list[StepMetrics]]:
    """An update of all weights of ``policy`` on mixed feedback."""
    examples = build_examples(
        policy.tokenizer, mixed_events(), replay_examples(replay), max_length=512, critiques=True
    )
    before = _weights(policy)
    steps = list(
        Optimization(
            policy,
            examples,
            settings=settings(**{"num_epochs": 6, "batch_size": 16, **fields}),
            group=group or Collective(),
            teacher=teacher,
        ).run()
    )
    return Update(examples, before, _weights(policy)), steps


class Shared:
    """Where the workers of a test meet."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=60)
        self.parts: dict[int, torch.Tensor] = {}


class Threaded(Collective):
    """A group of two whose workers are threads."""

    def __init__(self, rank: int, shared: Shared) -> None:
        super().__init__(rank=rank, world_size=2)
        self._shared = shared

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        self._shared.parts[self.rank] = tensor.clone()
        self._shared.barrier.wait()
        tensor.copy_(self._shared.parts[0] + self._shared.parts[1])
        self._shared.barrier.wait()
        return tensor

    def start_sum(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        self.sum(tensor)
        return lambda: tensor

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        self._shared.parts[self.rank] = tensor.clone()
        self._shared.barrier.wait()
        tensor.copy_(self._shared.parts[0])
        self._shared.barrier.wait()
        return tensor


def side_by_side(work: Callable[[Collective], T]) -> tuple[T, T]:
    """What ``work`` gives on both workers of a group, which are threads of this process.

    Models must be loaded before: transformers does not load them in several threads.
    """
    shared, found = Shared(), {}

    def run(rank: int) -> None:
        found[rank] = work(Threaded(rank, shared))

    other = threading.Thread(target=run, args=(1,))
    other.start()
    run(0)
    other.join()
    return found[0], found[1]


def _weights(policy: OpenPolicy) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1).clone() for p in policy.trainable])
