"""TRL's own trainers in place of the mixed objective: ``trainer.method`` sft, dpo or kto.

They run in one worker, on the same tokens as everything else in Tacit, with the parent policy as
explicit reference model: TRL would otherwise take the adapter it is given, or the bare base, for
the reference. TRL knows no weight per example, so trust only decides whether an event takes part.

| method | learns from                                                             |
| ------ | ----------------------------------------------------------------------- |
| sft    | corrected and chosen texts, answers with a positive signal, replay      |
| dpo    | corrections and preferences; sigmoid plus ``nll_weight`` times NLL      |
| kto    | chosen as desirable, rejected as undesirable, outcomes, ratings, replay |
"""

import math
import queue
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest
from tacit.errors import TrainingError
from tacit.metrics import MetricName
from tacit.policies import load_policy
from trainer.checkpoint import OpenPolicy, PolicyOpener, save_policy
from trainer.examples import Example, ExampleKind, build_examples
from trainer.progress import StepMetrics

if TYPE_CHECKING:
    from trainer.session import UpdateJob

_NAMES = {
    "loss": MetricName.LOSS.value,
    "grad_norm": MetricName.GRAD_NORM.value,
    "learning_rate": MetricName.LEARNING_RATE.value,
    "rewards/margins": MetricName.REWARD_MARGIN.value,
}
"""TRL's names of what Tacit logs; TRL's margin holds the factor beta already."""


class TokenizedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """DPO on token ids: TRL would tokenize prompt and completion as one text."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


class TokenizedKTOTrainer(KTOTrainer):  # type: ignore[misc]
    """KTO on token ids, mismatched completions included."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def run_method(
    job: "UpdateJob", *, store: CheckpointStore, device: str
) -> Iterator[StepMetrics | Digest]:
    """Train with TRL; yields StepMetrics, then the new checkpoint's digest.

    Raises TrainingError when nothing in the batch suits the method or a loss is not finite.
    """
    # TRL patches the model's forward, so no model is kept warm here.
    policy = PolicyOpener(store, device=device).open(job.parent, job.settings)
    examples = build_examples(
        policy.tokenizer, job.events, job.replay, max_length=job.settings.max_length
    )
    rows = method_rows(examples, job.settings)
    reference = load_policy(store, job.parent, device=device).model
    with tempfile.TemporaryDirectory(prefix="tacit-trl-") as folder:
        yield from _train(policy, rows, reference=reference, settings=job.settings, folder=folder)
    yield save_policy(store, policy, parent=job.parent)


def method_rows(examples: Sequence[Example], settings: TrainerSettings) -> list[dict[str, Any]]:
    """Rows in the form the method's trainer takes after tokenizing. Raises TrainingError."""
    make = {"sft": _sft_rows, "dpo": _dpo_rows, "kto": _kto_rows}[settings.method]
    rows = make(examples)
    if not rows:
        raise TrainingError(
            f"events that trainer.method={settings.method} can learn from",
            got=f"none among {len(examples)} examples",
            mend="dpo needs corrections or preferences; trainer.method=mixed takes everything.",
        )
    if settings.method == "kto":
        _add_mismatched(rows, settings.batch_size)
    return rows


def _sft_rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
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


def _train(
    policy: OpenPolicy,
    rows: list[dict[str, Any]],
    *,
    reference: Any,
    settings: TrainerSettings,
    folder: str,
) -> Iterator[StepMetrics]:
    """Run TRL in a thread of its own so that its steps can be streamed."""
    steps: queue.Queue[StepMetrics | BaseException | None] = queue.Queue()
    trainer = _build(policy, Dataset.from_list(rows), reference, settings, Path(folder))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_StepReporter(steps))

    def work() -> None:
        try:
            trainer.train()
            steps.put(None)
        except BaseException as error:  # handed to the caller's thread, which raises it
            steps.put(error)

    thread = threading.Thread(target=work, name="trl", daemon=True)
    thread.start()
    while (item := steps.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
    thread.join()


class _StepReporter(TrainerCallback):  # type: ignore[misc]
    def __init__(self, steps: "queue.Queue[Any]") -> None:
        self._steps = steps

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        metrics = {_NAMES[name]: float(logs[name]) for name in _NAMES if name in logs}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"a finite {name} at step {state.global_step}",
                    got=str(value),
                    mend="Lower trainer.learning_rate; no checkpoint was written.",
                )
        self._steps.put(StepMetrics(state.global_step, state.max_steps, metrics))


def _build(
    policy: OpenPolicy, dataset: Dataset, reference: Any, settings: TrainerSettings, folder: Path
) -> Any:
    arguments = _arguments(policy, settings, folder)
    common = {
        "model": policy.model,
        "train_dataset": dataset,
        "processing_class": policy.tokenizer,
    }
    if settings.method == "sft":
        config = SFTConfig(**arguments, completion_only_loss=True)
        return SFTTrainer(**common, args=config)
    if settings.method == "dpo":
        config = DPOConfig(
            **arguments,
            beta=settings.dpo_beta,
            loss_type=["sigmoid", "sft"],
            loss_weights=[settings.dpo_weight, settings.nll_weight],
        )
        return TokenizedDPOTrainer(**common, args=config, ref_model=reference)
    config = KTOConfig(**arguments, beta=settings.kto_beta)
    return TokenizedKTOTrainer(**common, args=config, ref_model=reference)


def _arguments(policy: OpenPolicy, settings: TrainerSettings, folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": settings.batch_size,
        "num_train_epochs": settings.num_epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup_share,
        "weight_decay": 0.0,
        "max_grad_norm": settings.max_grad_norm,
        "max_length": settings.max_length,
        "seed": settings.seed,
        "use_cpu": policy.model.device.type == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
