"""TRL's SDFT and SDPO trainers: the policy samples, and the parent that knows more teaches.

    loss = mean over answers of mean over tokens of KL(pi(.|x, y_<t) || parent(.|x, c, y_<t))

with y sampled from pi(.|x) for this step alone. In SDFT (Shenfeld et al. 2026, arXiv 2601.19897) c
is a demonstration; in SDPO (Hübotter et al. 2026, arXiv 2601.20802) a critique, a success among the
answers to the same prompt, or both. Both papers let the teacher follow the student as a moving
average; here it stays the parent, whose weights are the limit of a slow average. TRL's own frozen
teacher is the bare base under an adapter, and its averaged one starts at the bare base too.
"""

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

from tacit.errors import TrainingError
from trainer.methods.inputs import MethodInputs, NoTelemetry, require
from trainer.methods.prompts import (
    as_messages,
    build_prompts,
    prompt_dataset,
    tokenized,
    whole_groups,
)
from trainer.methods.reward import reward_functions
from trainer.methods.streaming import NeedsSignal
from trainer.methods.teacher_context import Chat, Demonstrations, Hindsight

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
# It warns of adapters whose teacher is the bare base; the teacher here is given.
logging.getLogger("trl.experimental").setLevel(logging.ERROR)

from trl.experimental.sdft import SDFTConfig, SDFTTrainer  # noqa: E402
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer  # noqa: E402


class OnTacitTokens(NoTelemetry):
    """Mixed into both trainers: Tacit's own prompt tokens."""

    room: int
    """Tokens that a prompt may have."""

    def _tokenize_prompts(self, prompts: Sequence[Chat]) -> list[list[int]]:
        tokenizer = self.processing_class  # type: ignore[attr-defined]
        return [tokenized(tokenizer, as_messages(p), room=self.room) for p in prompts]


class TacitSDFTTrainer(OnTacitTokens, SDFTTrainer):  # type: ignore[misc]
    """SDFT."""


class TacitSDPOTrainer(OnTacitTokens, SDPOTrainer):  # type: ignore[misc]
    """SDPO."""

    judged = True
    """Whether rewards were asked for; without them those that TRL reports mean nothing."""

    def _record_reward_diagnostics(self, *rewards: Any) -> None:
        if self.judged:
            super()._record_reward_diagnostics(*rewards)


def build(inputs: MethodInputs) -> Any:
    """The trainer of sdft or sdpo. Raises TrainingError, ConfigError."""
    settings = inputs.settings
    trainer = _sdft(inputs) if settings.method == "sdft" else _sdpo(inputs)
    trainer.room = settings.max_length - settings.sampling.max_new_tokens
    trainer.teacher_model = inputs.reference
    return trainer


def _sdft(inputs: MethodInputs) -> Any:
    prompts = [p for p in build_prompts(inputs.job.events) if p.demonstration is not None]
    needs = "corrections, preferences or good outcomes, which are its demonstrations"
    require(prompts, method="sdft", num_events=len(inputs.job.events), needs=needs)
    rows, batch_size = whole_groups(prompts, num_prompts=inputs.settings.batch_size)
    trainer = TacitSDFTTrainer(
        model=inputs.model,
        args=SDFTConfig(**_arguments(inputs, batch_size), num_generations=1),
        train_dataset=prompt_dataset(prompts, rows, context=lambda p: p.demonstration),
        processing_class=inputs.tokenizer,
    )
    trainer.teacher_context_builder = Demonstrations(trainer)
    return trainer


def _sdpo(inputs: MethodInputs) -> Any:
    settings, size = inputs.settings, inputs.settings.sampling.num_generations
    judged = bool(settings.reward.function or settings.reward.model)
    prompts = [p for p in build_prompts(inputs.job.events) if judged or p.critique is not None]
    needs = "critiques, or a trainer.reward that finds successes among sampled answers"
    require(prompts, method="sdpo", num_events=len(inputs.job.events), needs=needs)
    rows, per_step = whole_groups(prompts, num_prompts=settings.batch_size // size)
    rewards = reward_functions(
        settings.reward, prompts, store=inputs.store, device=str(inputs.model.device)
    )
    trainer = TacitSDPOTrainer(
        model=inputs.model,
        args=SDPOConfig(
            **_arguments(inputs, per_step * size),
            num_generations=size,
            # Its warnings speak of rewards that need not be there.
            diagnostics_warning_interval=0,
        ),
        train_dataset=prompt_dataset(prompts, rows, context=lambda p: p.critique),
        processing_class=inputs.tokenizer,
        **(rewards if judged else {"reward_funcs": [_unjudged]}),
    )
    trainer.judged = judged
    success = settings.reward.success if judged else math.inf
    trainer.teacher_context_builder = Hindsight(trainer, success=success)
    trainer.add_callback(_hindsight_needed(settings.reward.success))
    return trainer


def _arguments(inputs: MethodInputs, batch_size: int) -> dict[str, Any]:
    sampling = inputs.settings.sampling
    return {
        **inputs.arguments(batch_size=batch_size),
        "max_completion_length": sampling.max_new_tokens,
        "max_prompt_length": None,
        "temperature": sampling.temperature,
        "disable_dropout": True,
        # Over the whole vocabulary, student first.
        "distillation_mode": "full_logits",
        "distillation_alpha": 1.0,
        "distillation_topk": None,
        # A teacher of TRL's making would stand in memory for nothing.
        "teacher_model_kind": "live",
    }


def _unjudged(completions: Sequence[Any], **_: Any) -> list[float]:
    """TRL asks for rewards even where critiques alone teach."""
    return [0.0] * len(completions)


def _hindsight_needed(success: float) -> NeedsSignal:
    error = TrainingError(
        "critiques, or sampled answers with success, which sdpo's teacher reads",
        got=f"no critique, and no answer with a reward of trainer.reward.success={success:g}",
        mend="Lower trainer.reward.success, or begin with trainer.method=sft.",
    )
    name = "self_distillation/reprompt_sample_fraction"
    return NeedsSignal(name, silent=0.0, otherwise=error)
