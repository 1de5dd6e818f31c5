"""TRL's SFT, DPO and KTO trainers on examples that were given, none of which is sampled.

SFT: Ouyang et al. 2022 (arXiv 2203.02155, step 1). DPO: Rafailov et al. 2023 (arXiv 2305.18290)
with the likelihood term of Pang et al. 2024 (arXiv 2404.19733). KTO: Ethayarajh et al. 2024 (arXiv
2402.01306).
"""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from tacit.config import TrainerSettings
from trainer.examples import Example, ExampleKind, build_examples
from trainer.methods.inputs import MethodInputs, NoTelemetry, require

_NEEDS = {
    "sft": "corrections, preferences, or answers with a positive signal",
    "dpo": "corrections or preferences",
    "kto": "corrections, preferences, outcomes or ratings",
}


class QuietSFTTrainer(NoTelemetry, SFTTrainer):  # type: ignore[misc]
    """SFT; rows of token ids are taken as they are."""


class TokenizedDPOTrainer(NoTelemetry, DPOTrainer):  # type: ignore[misc]
    """DPO on token ids: TRL would tokenize prompt and completion as one text."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


class TokenizedKTOTrainer(NoTelemetry, KTOTrainer):  # type: ignore[misc]
    """KTO on token ids, mismatched completions included."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def build(inputs: MethodInputs) -> Any:
    """The trainer of sft, dpo or kto. Raises TrainingError when nothing suits it."""
    job, settings = inputs.job, inputs.settings
    examples = build_examples(
        inputs.tokenizer, job.events, job.replay, max_length=settings.max_length
    )
    dataset = Dataset.from_list(method_rows(examples, settings))
    if settings.method == "sft":
        return sft_trainer(inputs, dataset)
    common = {
        "model": inputs.policy.model,
        "ref_model": inputs.reference,
        "train_dataset": dataset,
        "processing_class": inputs.tokenizer,
    }
    arguments = {**inputs.arguments(), "max_length": settings.max_length}
    if settings.method == "dpo":
        config = DPOConfig(
            **arguments,
            beta=settings.dpo_beta,
            loss_type=["sigmoid", "sft"],
            loss_weights=[settings.dpo_weight, settings.nll_weight],
        )
        return TokenizedDPOTrainer(**common, args=config)
    return TokenizedKTOTrainer(**common, args=KTOConfig(**arguments, beta=settings.kto_beta))


def sft_trainer(inputs: MethodInputs, dataset: Dataset) -> Any:
    """SFT on rows of ``sft_rows``."""
    arguments = {**inputs.arguments(), "max_length": inputs.settings.max_length}
    return QuietSFTTrainer(
        model=inputs.policy.model,
        args=SFTConfig(**arguments, completion_only_loss=True),
        train_dataset=dataset,
        processing_class=inputs.tokenizer,
    )


def method_rows(examples: Sequence[Example], settings: TrainerSettings) -> list[dict[str, Any]]:
    """Rows in the form the method's trainer takes after tokenizing. Raises TrainingError."""
    method = settings.method
    make = {"sft": sft_rows, "dpo": _dpo_rows, "kto": _kto_rows}[method]
    new = [example for example in examples if example.kind is not ExampleKind.REPLAY]
    require(make(new), method=method, num_events=len(new), needs=_NEEDS[method])
    rows = make(examples)
    if method == "kto":
        _add_mismatched(rows, settings.batch_size)
    return rows


def sft_rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """A row for each example that is worth following."""
    return [
        {
            "input_ids": [*example.prompt, *example.completion],
            "completion_mask": [0] * len(example.prompt) + [1] * len(example.completion),
        }
        for example in examples
        if example.kind is not ExampleKind.UNDESIRABLE
    ]


def _dpo_rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [
        {
            "prompt_ids": list(example.prompt),
            "chosen_ids": list(example.completion),
            "rejected_ids": list(example.rejected),
        }
        for example in examples
        if example.kind is ExampleKind.PAIR
    ]


def _kto_rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    judged = []
    for example in examples:
        good = example.kind is not ExampleKind.UNDESIRABLE
        judged.append((example.prompt, example.completion, good))
        if example.kind is ExampleKind.PAIR:
            judged.append((example.prompt, example.rejected, False))
    return [
        {"prompt_ids": list(prompt), "completion_ids": list(completion), "label": good}
        for prompt, completion, good in judged
    ]


def _add_mismatched(rows: list[dict[str, Any]], batch_size: int) -> None:
    """Each row gets the completion of the one before it in its batch, as TRL pairs them."""
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        for index, row in enumerate(batch):
            row["KL_completion_ids"] = batch[index - 1]["completion_ids"]
