"""Builders of what the trainer's tests train on."""

from collections.abc import Sequence
from typing import Any, Literal

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import (
    Correction,
    Digest,
    Outcome,
    Preference,
    Rating,
    RatingScale,
    ReplayExample,
    ScreenedEvent,
    SealedBatch,
)
from tests import builders as build
from trainer.progress import StepMetrics
from trainer.seal import seal_batch
from trainer.session import TrainingSession, UpdateJob


def mixed_events(count: int = 12) -> list[ScreenedEvent]:
    """Events of every trainable kind, in turn, of differing lengths and weights."""
    stars = RatingScale(low=1, high=5)
    kinds = [
        Correction(completion="shipping"),
        Outcome(metric="resolved", value=True),
        Preference(chosen="refund desk", rejected="billing"),
        Rating(value=2, scale=stars),
        Correction(completion="billing"),
        Outcome(metric="resolved", value=-0.5),
    ]
    return [
        build.screened(
            f"e-{i}",
            prompt="where is my order " + "again " * (i % 4) + str(i),
            completion="billing",
            feedback=kinds[i % len(kinds)],
            weight=1.0 - 0.05 * (i % 3),
        )
        for i in range(count)
    ]


def replay_examples(
    count: int = 4, *, origin: Literal["anchor", "accepted", "inferred"] = "anchor"
) -> list[ReplayExample]:
    """Replay, by default from the anchor."""
    age = "old" if origin == "anchor" else "new"
    return [
        ReplayExample(prompt=build.user(f"{age} question {i}"), completion="billing", origin=origin)
        for i in range(count)
    ]


def seal(
    parent: Digest, events: Sequence[ScreenedEvent], replay: Sequence[ReplayExample] = ()
) -> SealedBatch:
    """A sealed batch of ``events``."""
    return seal_batch(
        events,
        policy="default",
        parent=parent,
        replay=replay,
        watermark={"tacit.feedback/0": 1},
        sealed_at=build.MOMENT,
    )


def settings(**fields: Any) -> TrainerSettings:
    """Small steps, a few of them."""
    values: dict[str, Any] = {
        "batch_size": 8,
        "num_epochs": 2,
        "learning_rate": 1e-3,
        "precision": "fp32",
        "gradient_checkpointing": "off",
        "lora": {"rank": 4, "alpha": 8},
    }
    return TrainerSettings.model_validate({**values, **fields})


def train(
    store: CheckpointStore,
    parent: Digest,
    events: Sequence[ScreenedEvent],
    replay: Sequence[ReplayExample] = (),
    *,
    settings: TrainerSettings,
    session: TrainingSession | None = None,
) -> tuple[Digest, list[StepMetrics]]:
    """Run one job in this process; returns the new digest and all steps."""
    job = UpdateJob(parent, tuple(events), tuple(replay), settings)
    *steps, digest = (session or TrainingSession(store)).run(job)
    assert isinstance(digest, str)
    return digest, [step for step in steps if isinstance(step, StepMetrics)]
