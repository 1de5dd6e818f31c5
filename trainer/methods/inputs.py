"""What a method is made of, and the arguments that all of TRL's trainers get."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import disable_progress_bars

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.errors import TrainingError
from tacit.policies import load_policy
from trainer.checkpoint import OpenPolicy

if TYPE_CHECKING:
    from trainer.session import UpdateJob

# TRL maps data sets, and bars would tear those of whoever trains.
disable_progress_bars()


@dataclass(frozen=True)
class MethodInputs:
    """A job with its parent opened for training, and a folder that goes away afterwards."""

    job: "UpdateJob"
    policy: OpenPolicy
    store: CheckpointStore
    folder: Path

    def __post_init__(self) -> None:
        head = self.model.get_output_embeddings()
        if not hasattr(head, "bias"):
            # TRL reads it; PEFT's wrapper around embeddings that learn has a weight alone.
            head.bias = None

    @property
    def settings(self) -> TrainerSettings:
        """The job's."""
        return self.job.settings

    @property
    def tokenizer(self) -> Any:
        """The policy's, padding on the left."""
        return self.policy.tokenizer

    @property
    def model(self) -> Any:
        """The model to train; LoRA layers sit in place, no PEFT wrapper is around them.

        Given a wrapper, TRL's samplers add adapters of their own to it and take one, or the bare
        base, for the reference.
        """
        model = self.policy.model
        return model.get_base_model() if self.policy.base is not None else model

    @cached_property
    def reference(self) -> Any:
        """The parent policy as it was, in evaluation mode."""
        device = str(self.policy.model.device)
        return load_policy(self.store, self.job.parent, device=device).model.requires_grad_(False)

    def arguments(self, *, batch_size: int | None = None) -> dict[str, Any]:
        """What every TRL config gets; ``batch_size`` replaces the setting."""
        settings = self.settings
        return {
            "output_dir": str(self.folder),
            "per_device_train_batch_size": batch_size or settings.batch_size,
            "num_train_epochs": settings.num_epochs,
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": "cosine",
            "warmup_steps": settings.warmup_share,
            "weight_decay": 0.0,
            "max_grad_norm": settings.max_grad_norm,
            "seed": settings.seed,
            "use_cpu": self.policy.model.device.type == "cpu",
            "bf16": False,
            "gradient_checkpointing": settings.gradient_checkpointing == "on",
            "dataloader_pin_memory": False,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }


class NoTelemetry:
    """Mixed into TRL's trainers, which tell their makers' servers that they were made."""

    def _send_telemetry(self) -> None:
        return


def require(rows: Sequence[Any], *, method: str, num_events: int, needs: str) -> None:
    """Raise TrainingError that names what ``method`` needs if there are no ``rows``."""
    if not rows:
        raise TrainingError(
            f"events that trainer.method={method} can learn from",
            got=f"none among {num_events}",
            mend=f"{method} needs {needs}; trainer.method=mixed takes everything.",
        )
