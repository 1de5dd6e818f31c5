"""TRL's arm: DPOTrainer or KTOTrainer on the very token ids and the very steps of Tacit's arm.

Only steps are timed, from the end of the first to the end of the last: neither the set-up of a
trainer nor its saving counts.
"""

import copy
import tempfile
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from benchmarks.update.arms import ArmSpec, Round, Stopwatch
from benchmarks.update.data import (
    BATCH_SIZE,
    build_policy,
    corpus,
    num_useful_tokens,
    settings,
)
from trainer.batches import mismatched_completions, plan_steps, schedule
from trainer.examples import Example, ExampleKind


class _Tokenized:
    """Takes token ids as they are, and keeps the loss of each step unrounded."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)  # type: ignore[misc]
        self.__dict__.setdefault("seen", []).append(loss.detach())
        return loss


class _DPO(_Tokenized, DPOTrainer):  # type: ignore[misc]
    pass


class _KTO(_Tokenized, KTOTrainer):  # type: ignore[misc]
    pass


class _Laps(TrainerCallback):  # type: ignore[misc]
    """Times after each step."""

    def __init__(self, device: str) -> None:
        self.watch = Stopwatch(device)
        self.laps: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.laps.append(self.watch.read())


class TrlArm:
    """Trains the same policy from the start every round."""

    def __init__(self, spec: ArmSpec) -> None:
        self._spec = spec
        self._corpus = corpus(spec.num_examples)
        self._settings = settings(
            term=spec.term, lora=spec.lora, num_epochs=spec.num_epochs, precision="fp32"
        )

    def round(self, num_examples: int) -> Round:
        """All epochs of an update on the first ``num_examples``."""
        laps = _Laps(self._spec.device)
        rows, num_tokens = self._rows(num_examples)
        with tempfile.TemporaryDirectory(prefix="tacit-trl-") as folder:
            trainer = self._trainer(rows, folder)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(laps)
            trainer.train()
        (first_cpu, first_wall), (cpu, wall) = laps.laps[0], laps.laps[-1]
        steps = len(laps.laps)
        share = steps / (steps - 1)  # the first step is not timed but its tokens are counted
        return Round(
            num_tokens=num_tokens,
            cpu_s=(cpu - first_cpu) * share,
            wall_s=(wall - first_wall) * share,
            losses=[float(loss) for loss in trainer.seen],
        )

    def _rows(self, num_examples: int) -> tuple[list[dict[str, Any]], int]:
        """Rows in the order in which Tacit takes them, so that every step holds the same."""
        found, chosen = self._corpus, self._settings
        examples = found.pairs if self._spec.term == "dpo" else found.judged
        examples = examples[:num_examples]
        steps = plan_steps(examples, batch_size=BATCH_SIZE, seed=chosen.seed)
        order = schedule(len(steps), num_epochs=chosen.num_epochs, seed=chosen.seed)
        rows = [row for index in order for row in self._step(steps[index])]
        return rows, num_useful_tokens(examples) * chosen.num_epochs

    def _step(self, step: list[Example]) -> list[dict[str, Any]]:
        if self._spec.term == "dpo":
            return [
                {
                    "prompt_ids": list(e.prompt),
                    "chosen_ids": list(e.completion),
                    "rejected_ids": list(e.rejected),
                }
                for e in step
            ]
        others = mismatched_completions(step, self._settings.max_length)
        return [
            {
                "prompt_ids": list(e.prompt),
                "completion_ids": list(e.completion),
                "label": e.kind is ExampleKind.DESIRABLE,
                "KL_completion_ids": list(others[i]),
            }
            for i, e in enumerate(step)
        ]

    def _trainer(self, rows: list[dict[str, Any]], folder: str) -> Any:
        spec, chosen = self._spec, self._settings
        policy = build_policy(self._corpus.tokenizer, chosen, shape=spec.shape, device=spec.device)
        arguments = {
            "output_dir": folder,
            "per_device_train_batch_size": BATCH_SIZE,
            "num_train_epochs": 1,  # the rows hold all epochs
            "train_sampling_strategy": "sequential",
            "learning_rate": chosen.learning_rate,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "max_grad_norm": chosen.max_grad_norm,
            "max_length": chosen.max_length,
            "use_cpu": spec.device == "cpu",
            "bf16": spec.bf16,
            "gradient_checkpointing": spec.checkpointing,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        trainer, config = (_DPO, DPOConfig) if spec.term == "dpo" else (_KTO, KTOConfig)
        return trainer(
            model=policy.model,
            # Without a reference TRL takes an adapter off for it, which is what it is made for.
            ref_model=None if spec.lora else copy.deepcopy(policy.model),
            train_dataset=Dataset.from_list(rows),
            processing_class=self._corpus.tokenizer,
            args=config(**arguments, beta=chosen.dpo_beta),
        )
