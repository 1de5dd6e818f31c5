"""A trial of the configured reward when the trainer starts, long before a batch needs it.

Somebody else's code and weights are to fail then, with a clear error, and not in the first cycle.
"""

from transformers import TrainerState

from tacit.checkpoints import CheckpointStore
from tacit.config import RewardSettings
from tacit.contracts import (
    Correction,
    FeedbackEvent,
    InlineInteraction,
    Message,
    ScreenedEvent,
    utc_now,
)
from trainer.methods.prompts import Prompt, prompt_dataset
from trainer.methods.reward import EventReward, load_model

TRIAL_KEY = "tacit/trial"
"""``event_key`` of the made-up event that a reward function is tried on."""
RIGHT, WRONG = "Yes.", "No."


def try_reward(settings: RewardSettings, *, store: CheckpointStore, device: str) -> None:
    """Load what judges answers; a function is asked about two answers to a made-up event.

    Raises ConfigError when it cannot be had or does not give a number or None per answer, and
    NotFoundError or IntegrityError for a model that is not in the store as it was put there.
    """
    if settings.function is not None:
        prompts = [_made_up()]
        (asked,) = prompt_dataset(prompts, [0])["prompt"]
        EventReward(settings.function, prompts)(
            row=[0, 0],
            prompts=[asked, asked],
            completions=[[{"role": "assistant", "content": text}] for text in (RIGHT, WRONG)],
            completion_ids=[[0], [1]],
            privileged_context=[None, None],
            trainer_state=TrainerState(),
            log_extra=lambda column, values: None,
            log_metric=lambda name, value: None,
        )
    if settings.model is not None:
        load_model(store, settings.model, device=device)


def _made_up() -> Prompt:
    source, event_id = TRIAL_KEY.split("/")
    said = InlineInteraction(
        prompt=(Message(role="user", content="Is this a trial?"),), completion=WRONG
    )
    event = FeedbackEvent(
        event_id=event_id,
        policy="default",
        source=source,
        subject_id="nobody",
        occurred_at=utc_now(),
        interaction=said,
        feedback=Correction(completion=RIGHT),
    )
    screened = ScreenedEvent(
        event_key=event.event_key,
        policy=event.policy,
        event=event,
        interaction=said,
        cluster="0" * 16,
    )
    return Prompt(screened, reward=None)
