"""What an update runs on: a group of workers, and what can become of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from tacit.config import TrainerSettings
from tacit.contracts import Digest
from tacit.errors import TrainingError
from trainer.progress import StepMetrics

if TYPE_CHECKING:
    from trainer.session import UpdateJob


class Group(Protocol):
    """``workers.WorkerGroup`` is one."""

    world_size: int
    processor: str
    """Kinds of processor in the group, usually one."""
    fast_bf16: bool
    """Whether all of them are fast at bfloat16."""

    def try_reward(self, settings: TrainerSettings) -> None:
        """See whether the reward that is configured works. Raises ConfigError."""

    def run(self, job: "UpdateJob") -> Iterator[StepMetrics | Digest]:
        """StepMetrics while it trains, the checkpoint's digest last.

        Raises WorkerLostError when a worker or its node died, UpdateTooLargeError when one ran out
        of memory, a TacitError raised in the workers as it is, and WorkerFailedError for anything
        else.
        """

    def stop(self) -> None:
        """Give everything back."""


class WorkerLostError(Exception):
    """A worker died, or the group came apart because of it; the update can start again."""


class WorkerFailedError(TrainingError):
    """A worker raised what none should; the group is not to be used again."""
