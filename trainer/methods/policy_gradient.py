"""TRL's GRPO and RLOO trainers: answers are sampled and compared by their rewards.

GRPO: Shao et al. 2024 (arXiv 2402.03300, equations 3 and 4), the reward of an answer relative to
mean and standard deviation of its group. RLOO: Ahmadian et al. 2024 (arXiv 2402.14740), relative to
the mean of the other answers. Each answer is used for one step, so that all of it is on-policy.
"""

import inspect
from typing import Any

from torch import Tensor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from tacit.errors import TrainingError
from trainer.methods.inputs import MethodInputs, NoTelemetry, require
from trainer.methods.prompts import (
    Prompt,
    as_messages,
    build_prompts,
    prompt_dataset,
    tokenized,
    whole_groups,
)
from trainer.methods.reward import KNOWN_ANSWER, reward_functions
from trainer.methods.streaming import NeedsSignal


class OnTacitTokens(NoTelemetry):
    """Mixed into both trainers: Tacit's own prompt tokens, and logits as the model gives them."""

    room: int
    """Tokens that a prompt may have."""

    def _tokenize_prompts(
        self, prompts: list[list[dict[str, str]]]
    ) -> tuple[Any, None, dict[Any, Any]]:
        tokenizer = self.processing_class  # type: ignore[attr-defined]
        return [tokenized(tokenizer, as_messages(p), room=self.room) for p in prompts], None, {}

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor, None]:
        # TRL multiplies by the weights of the output layer, which an adapter on it does not change.
        kept = {}
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            kept["logits_to_keep"] = logits_to_keep + 1
        logits = model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **kept
        ).logits[:, -logits_to_keep - 1 : -1]
        table = (logits.float() / self.temperature).log_softmax(-1)  # type: ignore[attr-defined]
        said = input_ids[:, -logits_to_keep:, None]
        return table.gather(-1, said).squeeze(-1), -(table.exp() * table).sum(-1), None


class TacitGRPOTrainer(OnTacitTokens, GRPOTrainer):  # type: ignore[misc]
    """GRPO."""


class TacitRLOOTrainer(OnTacitTokens, RLOOTrainer):  # type: ignore[misc]
    """RLOO."""


def build(inputs: MethodInputs) -> Any:
    """The trainer of grpo or rloo. Raises TrainingError, ConfigError."""
    settings = inputs.settings
    sampling = settings.sampling
    prompts = _judgeable(inputs)
    rows, per_step = whole_groups(
        prompts, num_prompts=settings.batch_size // sampling.num_generations
    )
    arguments = {
        **inputs.arguments(batch_size=per_step * sampling.num_generations),
        "num_generations": sampling.num_generations,
        "max_completion_length": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "disable_dropout": True,
        # The reference is set below; TRL would make one from the bare base.
        "beta": 0.0,
    }
    common = {
        "model": inputs.model,
        "train_dataset": prompt_dataset(prompts, rows),
        "processing_class": inputs.tokenizer,
        **reward_functions(
            settings.reward, prompts, store=inputs.store, device=str(inputs.model.device)
        ),
    }
    if settings.method == "grpo":
        trainer: Any = TacitGRPOTrainer(**common, args=GRPOConfig(**arguments, loss_type="grpo"))
    else:
        trainer = TacitRLOOTrainer(**common, args=RLOOConfig(**arguments))
    trainer.room = settings.max_length - sampling.max_new_tokens
    trainer.add_callback(_contrast(settings.method))
    if sampling.kl_beta > 0:
        trainer.beta, trainer.ref_model = sampling.kl_beta, inputs.reference
    return trainer


def _judgeable(inputs: MethodInputs) -> list[Prompt]:
    """Prompts whose answers the reward can judge."""
    settings, events = inputs.settings, inputs.job.events
    found, needs = build_prompts(events), "events with weight"
    if settings.reward.function == KNOWN_ANSWER and settings.reward.model is None:
        found = [prompt for prompt in found if prompt.known_answer is not None]
        needs = f"corrections or good outcomes with trainer.reward.function={KNOWN_ANSWER}"
    require(found, method=settings.method, num_events=len(events), needs=needs)
    return found


def _contrast(method: str) -> NeedsSignal:
    error = TrainingError(
        f"answers with differing rewards, which {method} compares",
        got="the same reward for all answers to every prompt",
        mend="Raise trainer.sampling.temperature or num_generations, use a reward with finer "
        "steps, or begin with trainer.method=sft.",
    )
    return NeedsSignal("frac_reward_zero_std", silent=1.0, otherwise=error)
