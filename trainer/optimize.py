"""The gradient steps of one update on one worker.

Input: the parent policy opened for training, and the steps. Output: StepMetrics as they happen; the
policy's weights are changed in place. All workers hold the same weights throughout, because they
start from the same and apply the same summed gradient.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tacit.config import TrainerSettings
from tacit.errors import TrainingError
from tacit.metrics import MetricName
from trainer.batches import micro_batches, plan_steps, schedule
from trainer.checkpoint import OpenPolicy
from trainer.collective import Collective
from trainer.composition import composition
from trainer.distillation import Teacher
from trainer.examples import MIN_WEIGHT, Example, ExampleKind
from trainer.learning_rate import learning_rate
from trainer.losses import kto_reference_point
from trainer.objective import (
    Reference,
    mismatched_logprobs,
    mixed_loss,
    num_passes,
    score_reference,
)
from trainer.packing import MicroBatch, to_device
from trainer.precision import is_bf16
from trainer.progress import StepMetrics
from trainer.references import References
from trainer.restraint import Restraint, draw_up
from trainer.scoring import CompletionScorer
from trainer.sharding import Lockstep
from trainer.stats import Stat, step_metrics
from trainer.weights import TrainedWeights


class Optimization:
    """One update: ``run`` yields once per optimizer step."""

    def __init__(
        self,
        policy: OpenPolicy,
        examples: Sequence[Example],
        *,
        settings: TrainerSettings,
        group: Collective,
        teacher: Teacher | None = None,
        anchor: CompletionScorer | None = None,
    ) -> None:
        """``anchor`` is what anchored replay is held to, where it is not the parent."""
        self._settings = settings
        self._group = group
        self._teacher = teacher
        self._pad_id = policy.tokenizer.pad_token_id
        self._device = next(policy.model.parameters()).device
        bf16 = is_bf16(settings.precision, self._device)
        self._scorer = CompletionScorer(policy.model, bf16=bf16)
        self._lockstep = Lockstep(self._scorer, group)
        self._reference_scorer = self._scorer.frozen()
        # Examples are token ids until their step comes: packed, they are many times as large.
        self._steps = plan_steps(examples, batch_size=settings.batch_size, seed=settings.seed)
        self._references = References(self._device)
        self._firsts = [self._refer(step, anchor) for step in self._steps]
        self._anchor = None if anchor is None else anchor.head_only()
        # Flattened only now: the reference above must be the parent before any change.
        self._weights = TrainedWeights(policy.trainable, group)
        self._restraint = self._restrain()
        self.num_steps = len(self._steps) * settings.num_epochs

    @property
    def _shares_prompts(self) -> bool:
        teacher = self._teacher
        return self._scorer.shares_prompts and (teacher is None or teacher.shares_prompts)

    def _shard(self, step: Sequence[Example]) -> list[MicroBatch]:
        pieces = micro_batches(
            step,
            rank=self._group.rank,
            world_size=self._group.world_size,
            max_tokens=self._settings.micro_batch_tokens,
            max_length=self._settings.max_length,
            pad_id=self._pad_id,
            share_prompts=self._shares_prompts,
        )
        return [to_device(piece, self._device) for piece in pieces]

    def _refer(self, step: Sequence[Example], anchor: CompletionScorer | None) -> int:
        """Keep what parent and anchor say about the step; the number of the first reference."""
        first = len(self._references)
        shard = self._shard(step)
        with self._lockstep.passes(sum(num_passes(batch) for batch in shard)):
            for batch in shard:
                self._references.append(score_reference(self._scorer, batch, anchor))
        return first

    def _shard_with_references(self, index: int) -> list[tuple[MicroBatch, Reference]]:
        """This worker's part of the step."""
        shard = self._shard(self._steps[index])
        return [(b, self._references[n]) for n, b in enumerate(shard, start=self._firsts[index])]

    def _restrain(self) -> Restraint:
        steps = self._steps
        new = ([e for e in step if e.kind is not ExampleKind.REPLAY] for step in steps)
        return draw_up(
            self._scorer,
            (piece for step in new for piece in self._shard(step)),
            [e for step in steps for e in step if e.kind is ExampleKind.REPLAY],
            weights=self._weights.flat.values,
            settings=self._settings,
            group=self._group,
        )

    def run(self) -> Iterator[StepMetrics]:
        """Train. Raises TrainingError when a loss or a gradient is not finite."""
        settings = self._settings
        order = schedule(len(self._steps), num_epochs=settings.num_epochs, seed=settings.seed)
        for number, index in enumerate(order, start=1):
            started = time.perf_counter()
            rate = learning_rate(number, num_steps=self.num_steps, settings=settings)
            sums = self._backward(index)
            measured = {
                **step_metrics(sums, self._weight(index)),
                **composition(self._steps[index]),
            }
            self._add_on(measured, sums)
            norm = self._clip(number, measured[MetricName.LOSS.value])
            self._weights.step(rate)
            elapsed_s = time.perf_counter() - started
            num_tokens = float(sums[Stat.TOKENS])
            yield StepMetrics(
                step=number,
                num_steps=self.num_steps,
                metrics={
                    **measured,
                    MetricName.GRAD_NORM.value: norm,
                    MetricName.LEARNING_RATE.value: rate,
                    MetricName.TOKENS.value: num_tokens,
                    MetricName.TOKENS_PER_SECOND.value: num_tokens / elapsed_s,
                },
            )

    def _backward(self, index: int) -> Tensor:
        """Gradient of one step, summed over workers; returns the sums [Stat]."""
        self._weights.zero_gradient()
        shard, weight = self._shard_with_references(index), self._weight(index)
        sums = torch.zeros(len(Stat), dtype=torch.float64, device=self._device)
        z0 = self._reference_point(shard)
        with self._lockstep.passes(len(shard), backward=True):
            for batch, reference in shard:
                loss, stats = self._loss(batch, reference, z0)
                (loss / weight).backward()  # type: ignore[no-untyped-call]
                sums += stats
        z0()  # where there was no shard
        summed = self._group.start_sum(sums)
        self._weights.sum_gradient()
        return summed()

    def _loss(
        self, batch: MicroBatch, reference: Reference, z0: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor]:
        table = self._scorer.logprobs(self._scorer.hidden(batch.sequences))
        return mixed_loss(
            batch,
            table=table,
            reference_scorer=self._reference_scorer,
            reference=reference,
            z0=z0(),  # by now the others have said theirs
            settings=self._settings,
            teacher=self._teacher,
            anchor=self._anchor,
        )

    def _add_on(self, metrics: dict[str, float], sums: Tensor) -> None:
        """Restrain the gradient; ``metrics`` get what the add-ons that are on measured."""
        if self._teacher is not None and sums[Stat.NEW_WEIGHT] > 0:
            mean = sums[Stat.DISTILLATION] / sums[Stat.NEW_WEIGHT]
            metrics[MetricName.LOSS_DISTILLATION.value] = float(mean)
        flat = self._weights.flat
        penalty = self._restraint.apply(flat.values.data, flat.gradient)
        if penalty is not None:
            metrics[MetricName.LOSS_EWC.value] = penalty
            metrics[MetricName.LOSS.value] += self._settings.ewc.weight * penalty

    def _weight(self, index: int) -> float:
        """Of all examples of the step, on all workers."""
        return sum(example.weight for example in self._steps[index])

    def _reference_point(
        self, shard: Sequence[tuple[MicroBatch, Reference]]
    ) -> Callable[[], Tensor]:
        """KTO's z0, weighted by trust, over the whole step, whichever worker examples fell to.

        It is to be had once all workers have said theirs.
        """
        total = torch.zeros(2, device=self._device)
        number = sum(batch.mismatched is not None for batch, _ in shard)
        with self._lockstep.passes(number):
            for batch, reference in shard:
                logprobs = mismatched_logprobs(self._scorer, batch)
                if logprobs is not None and reference.mismatched is not None:
                    weights = batch.judged_weights
                    ratios = logprobs - reference.mismatched
                    total += torch.stack([(weights * ratios).sum(), weights.sum()])
        finish = self._group.start_sum(total)

        def point() -> Tensor:
            ratios, weights = finish()
            return kto_reference_point(ratios / weights.clamp(min=MIN_WEIGHT))

        return point

    def _clip(self, number: int, loss: float) -> float:
        """Scale the gradient down to ``max_grad_norm``; returns its norm before."""
        norm = self._weights.gradient_norm()
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"a finite {name} at step {number} of {self.num_steps}",
                    got=str(value),
                    mend="Lower trainer.learning_rate; no checkpoint was written.",
                )
        self._weights.scale_gradient(min(1.0, self._settings.max_grad_norm / (norm + 1e-6)))
        return norm
