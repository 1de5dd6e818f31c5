"""A policy and a reference on hand-made examples: our loss, and log-probabilities the slow way."""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from tacit.checkpoints import CheckpointStore
from tacit.policies import load_model, load_tokenizer
from tests import builders as build
from tests.trainer.builders import settings
from trainer.batches import micro_batches
from trainer.examples import Example
from trainer.losses import kto_reference_point
from trainer.objective import mismatched_logprobs, mixed_loss, score_reference
from trainer.packing import MicroBatch
from trainer.scoring import CompletionScorer


class Models(NamedTuple):
    """Two models that differ clearly, and their tokenizer."""

    policy: Any
    reference: Any
    tokenizer: Any


def make_models(store: CheckpointStore) -> Models:
    """The reference is the tiny checkpoint, the policy the same with noise on its weights."""
    parent = build.tiny_checkpoint(store)
    reference = load_model(store, parent).eval()
    policy = copy.deepcopy(reference)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return Models(policy, reference, load_tokenizer(store, parent))


def pack(examples: Sequence[Example]) -> MicroBatch:
    """All of ``examples`` in one micro-batch."""
    (batch,) = micro_batches(
        examples, rank=0, world_size=1, max_tokens=10_000, max_length=512, pad_id=0
    )
    return batch


def reference_point(models: Models, batch: MicroBatch) -> torch.Tensor:
    """KTO's z0, as in a step of one worker."""
    if batch.mismatched is None:
        return torch.zeros(())
    policy = mismatched_logprobs(CompletionScorer(models.policy), batch)
    reference = mismatched_logprobs(CompletionScorer(models.reference), batch)
    weights = batch.judged_weights
    return kto_reference_point((weights * (policy - reference)).sum() / weights.sum())


@torch.no_grad()
def loss_of(
    models: Models, examples: Sequence[Example], **fields: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Our loss over ``examples`` and the sums, as in a step of one worker."""
    return _loss(models, examples, fields)


def gradient_of(models: Models, examples: Sequence[Example], **fields: Any) -> torch.Tensor:
    """Gradient of the step's loss, divided by the sum of weights, in all of the policy."""
    loss, _ = _loss(models, examples, fields)
    parameters = list(models.policy.parameters())
    found = torch.autograd.grad(loss / sum(e.weight for e in examples), parameters)
    return torch.cat([gradient.reshape(-1) for gradient in found])


def _loss(
    models: Models, examples: Sequence[Example], fields: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, other = pack(examples), fields.pop("anchor", None)
    scorer, parent = (CompletionScorer(model) for model in (models.policy, models.reference))
    anchor = None if other is None else CompletionScorer(other)
    return mixed_loss(
        batch,
        table=scorer.logprobs(scorer.hidden(batch.sequences)),
        reference_scorer=parent,
        reference=score_reference(parent, batch, anchor),
        z0=reference_point(models, batch),
        settings=settings(**fields),
        anchor=anchor and anchor.head_only(),
    )


def tokens(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> list[torch.Tensor]:
    """Log-probabilities [V] at each completion token, one forward pass for each."""
    ids = [*prompt, *completion]
    return [
        model(input_ids=torch.tensor([ids[:end]])).logits[0, -1].double().log_softmax(-1)
        for end in range(len(prompt), len(ids))
    ]


def logprob(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> float:
    """Of a whole completion."""
    rows = tokens(model, prompt, completion)
    return sum(float(row[t]) for row, t in zip(rows, completion, strict=True))


def ratio(models: Models, prompt: Sequence[int], completion: Sequence[int]) -> float:
    """Log-probability under the policy less that under the reference."""
    return logprob(models.policy, prompt, completion) - logprob(
        models.reference, prompt, completion
    )


def divergence(policy: torch.Tensor, reference: torch.Tensor) -> float:
    """KL(policy || reference) of two rows of log-probabilities, one token after another."""
    pairs = zip(policy.tolist(), reference.tolist(), strict=True)
    return sum(math.exp(p) * (p - q) for p, q in pairs)


def sigmoid(x: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-x))
