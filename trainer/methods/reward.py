"""Rewards of sampled answers: a function by its import path, a reward model from the store.

A function has the signature of TRL's custom reward functions. It is called with ``prompts`` and
``completions`` (lists of chat messages each), ``completion_ids`` and, a value per completion each:

    event_key, tags   of the event that the prompt is of
    known_answer      the correction, or what was served with a good outcome; None if unknown
    served            the answer that was served
    outcome           its reward in [-1, 1]; None without an outcome or a rating
    critique          what was said about it; None without one

It returns a number per completion, more is better, or None where it cannot tell.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tacit.checkpoints import CheckpointStore
from tacit.config import RewardSettings
from tacit.errors import ConfigError
from trainer.methods.answers import same_answer
from trainer.methods.prompts import Prompt

RewardFunction = Callable[..., list[float | None]]

KNOWN_ANSWER = "trainer.methods.reward:matches_known_answer"
"""The import path of the reward that comes with Tacit."""


def matches_known_answer(
    completions: Sequence[Sequence[dict[str, str]]], known_answer: Sequence[str | None], **_: Any
) -> list[float | None]:
    """1 for the known answer, 0 for another, None where none is known."""
    return [
        None if right is None else float(same_answer(said[0]["content"], right))
        for said, right in zip(completions, known_answer, strict=True)
    ]


class EventReward:
    """A reward function that is told what is known of each prompt, by its ``row``."""

    def __init__(self, path: str, prompts: Sequence[Prompt]) -> None:
        self.__name__ = path
        self._function = load_function(path)
        self._prompts = prompts

    def __call__(self, *, row: Sequence[int], **trl: Any) -> list[float | None]:
        """Rewards, one per completion. Raises ConfigError when the function does not work."""
        columns = _columns([self._prompts[index] for index in row])
        try:
            given = self._function(**trl, **columns)
            rewards = [None if value is None else float(value) for value in given]
        except Exception as error:  # somebody else's code: whatever it raises, it is named
            raise ConfigError(
                f"rewards from {self.__name__}", got=f"{type(error).__name__}: {error}"
            ) from error
        if len(rewards) != len(row):
            raise ConfigError(
                f"{len(row)} rewards from {self.__name__}, one per completion",
                got=str(len(rewards)),
            )
        return rewards


def load_function(path: str) -> RewardFunction:
    """The function at ``package.module:function``. Raises ConfigError."""
    module, _, name = path.partition(":")
    try:
        function: RewardFunction = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs somebody else's code
        raise ConfigError(
            f"trainer.reward.function={path} to be importable where the worker runs",
            got=f"{type(error).__name__}: {error}",
        ) from error
    if not callable(function):
        raise ConfigError(f"trainer.reward.function={path} to be a function", got=repr(function))
    return function


def load_model(store: CheckpointStore, digest: str, *, device: str) -> tuple[Any, Any]:
    """A reward model with one output, and its tokenizer.

    Raises NotFoundError, IntegrityError, and ConfigError for a model that lacks its output layer or
    its chat template.
    """
    store.verify(digest)
    path = store.path(digest)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        path, num_labels=1, dtype="auto", output_loading_info=True
    )
    if loading["missing_keys"]:
        raise ConfigError(
            "trainer.reward.model to be a sequence-classification model with one output",
            got=f"{digest} without {', '.join(sorted(loading['missing_keys']))}",
        )
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.chat_template is None:
        raise ConfigError("trainer.reward.model with a chat template", got=f"{digest} without one")
    return model.to(device).eval(), tokenizer


def reward_functions(
    settings: RewardSettings, prompts: Sequence[Prompt], *, store: CheckpointStore, device: str
) -> dict[str, Any]:
    """What TRL's trainers take: ``reward_funcs`` and ``reward_processing_classes``."""
    functions: list[Any] = []
    tokenizers: list[Any] = []
    if settings.function is not None:
        functions.append(EventReward(settings.function, prompts))
        tokenizers.append(None)
    if settings.model is not None:
        model, tokenizer = load_model(store, settings.model, device=device)
        functions.append(model)
        tokenizers.append(tokenizer)
    return {"reward_funcs": functions, "reward_processing_classes": tokenizers}


def _columns(prompts: Sequence[Prompt]) -> dict[str, list[Any]]:
    return {
        "event_key": [prompt.event.event_key for prompt in prompts],
        "tags": [prompt.event.event.tags for prompt in prompts],
        "known_answer": [prompt.known_answer for prompt in prompts],
        "served": [prompt.event.interaction.completion for prompt in prompts],
        "outcome": [prompt.reward for prompt in prompts],
        "critique": [prompt.critique for prompt in prompts],
    }
