"""One job by a method other than mixed: parent in, checkpoint out."""

import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest
from trainer.checkpoint import PolicyOpener, save_policy
from trainer.methods.inputs import MethodInputs
from trainer.methods.streaming import stream
from trainer.progress import StepMetrics

if TYPE_CHECKING:
    from trainer.session import UpdateJob

_FAMILIES = {
    "sft": "offline",
    "dpo": "offline",
    "kto": "offline",
    "grpo": "policy_gradient",
    "rloo": "policy_gradient",
    "sdft": "self_distillation",
    "sdpo": "self_distillation",
    "star": "star",
}


def run_method(
    job: "UpdateJob", *, store: CheckpointStore, device: str
) -> Iterator[StepMetrics | Digest]:
    """Train with the job's method; yields StepMetrics, then the new checkpoint's digest.

    Raises TrainingError when nothing in the batch suits the method, when it taught nothing, or when
    a loss is not finite; ConfigError when a reward cannot be had.
    """
    # TRL patches the model's forward, so no model is kept warm here.
    policy = PolicyOpener(store, device=device).open(job.parent, job.settings)
    build = _builder(job.settings.method)
    with tempfile.TemporaryDirectory(prefix="tacit-trl-") as folder:
        inputs = MethodInputs(job=job, policy=policy, store=store, folder=Path(folder))
        yield from stream(build(inputs))
    # An instance attribute of the patched model would be copied along with full weights.
    inputs.model.__dict__.pop("forward", None)
    yield save_policy(store, policy, parent=job.parent)


def _builder(method: str) -> Callable[[MethodInputs], Any]:
    """Only the family in use is imported: each costs a second or more."""
    family = import_module(f"trainer.methods.{_FAMILIES[method]}")
    build: Callable[[MethodInputs], Any] = family.build
    return build
