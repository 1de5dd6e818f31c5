"""The mixed objective: every kind of feedback in one loss, each example with its own weight.

    loss = sum_i w_i * l_i / sum_i w_i        over all examples of a step, on all workers

    PAIR                    l = dpo_weight * DPO + nll_weight * NLL(chosen)
    CHOSEN                  l = nll_weight * NLL
    DESIRABLE, UNDESIRABLE  l = topr_weight * TOPR where it is known how the answer was sampled,
                            l = kto_weight * KTO elsewhere
    CRITICISED              l = critique_weight * KL(policy || parent that read the critique)
    REPLAY                  l = nll_weight * NLL
    REPLAY that is anchored l += kl_weight * KL(policy || reference, or the frozen anchor)
    all but REPLAY          l += distillation.weight * KL(teacher || policy), where it is on

The formulas are in losses.py. The reference is the parent policy as it was before the first step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tacit.config import TrainerSettings
from trainer.distillation import Teacher
from trainer.losses import (
    critique_loss,
    dpo_loss,
    kl_divergence,
    kto_loss,
    nll_loss,
    nucleus_log_mass,
    tempered,
    topr_loss,
    topr_tapers,
)
from trainer.new_prompts import new_answers, probed_tokens
from trainer.packing import MicroBatch
from trainer.scoring import CompletionScorer
from trainer.stats import Stat


@dataclass(frozen=True)
class Reference:
    """What the parent policy said about a micro-batch, computed once before training."""

    logprobs: Tensor
    """[N] of each sequence."""
    mismatched: Tensor | None
    """[K] of the mismatched sequences."""
    hidden: Tensor
    """[E, H] hidden states at the completion tokens of anchored replay, of what it is held to."""
    taught: Tensor
    """[D, H] those at the criticised tokens, of the parent that read the critique."""
    probes: Tensor
    """[X] one token of each new answer, where the policy's distance from the parent is measured."""
    probed: Tensor
    """[X, H] hidden states there."""


def score_reference(
    scorer: CompletionScorer, batch: MicroBatch, anchor: CompletionScorer | None = None
) -> Reference:
    """Run the parent policy over a micro-batch, without gradient.

    ``anchor`` is the policy that replay is held to, where that is another one.
    """
    with torch.no_grad():
        hidden = scorer.hidden(batch.sequences)
        kept = hidden if anchor is None else anchor.hidden(batch.sequences)
        probes = probed_tokens(batch)
        return Reference(
            logprobs=_sequence_logprobs(scorer.logprobs(hidden), batch),
            mismatched=mismatched_logprobs(scorer, batch),
            hidden=kept[batch.anchored_tokens],
            taught=hidden[:0] if batch.taught is None else scorer.hidden(batch.taught),
            probes=probes,
            probed=hidden[probes],
        )


def num_passes(batch: MicroBatch) -> int:
    """Passes through the model that ``score_reference`` takes."""
    return 1 + (batch.mismatched is not None) + (batch.taught is not None)


def mismatched_logprobs(scorer: CompletionScorer, batch: MicroBatch) -> Tensor | None:
    """[K] log-probabilities of the mismatched sequences, without gradient; None without any."""
    sequences = batch.mismatched
    if sequences is None:
        return None
    with torch.no_grad():
        table = scorer.logprobs(scorer.hidden(sequences))
        return sequences.per_sequence(table.gather(-1, sequences.targets[:, None]).squeeze(-1))


def mixed_loss(
    batch: MicroBatch,
    *,
    table: Tensor,
    reference_scorer: CompletionScorer,
    reference: Reference,
    z0: Tensor,
    settings: TrainerSettings,
    teacher: Teacher | None = None,
    anchor: CompletionScorer | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of losses (scalar, not yet divided by the sum of weights) and sums [Stat].

    ``table``: [M, V] the policy's log-probabilities at the completion tokens. ``anchor`` as in
    ``score_reference``; its head is enough.
    """
    logprobs = _sequence_logprobs(table, batch)
    tapers, topr = _topr(batch, table)
    kl, critique = _divergences(batch, table, reference, reference_scorer, anchor)
    sums = {
        **_sequence_terms(batch, logprobs, reference, z0=z0, settings=settings),
        Stat.TOPR: (batch.sampled_weights * topr).sum(),
        Stat.TAPER: (batch.sampled_weights * tapers).sum(),
        Stat.KL: (batch.anchored_weights * kl).sum(),
        Stat.CRITIQUE: (batch.criticised_weights * critique).sum(),
        Stat.DISTILLATION: _distillation(batch, table, teacher),
        Stat.KL_NEW: _kl_on_new_prompts(batch, table, reference, reference_scorer),
    }
    loss = (
        settings.dpo_weight * sums[Stat.DPO]
        + settings.nll_weight * (sums[Stat.NLL] + sums[Stat.REPLAY])
        + settings.kto_weight * sums[Stat.KTO]
        + settings.topr_weight * sums[Stat.TOPR]
        + settings.critique_weight * sums[Stat.CRITIQUE]
        + settings.kl_weight * sums[Stat.KL]
        + settings.distillation.weight * sums[Stat.DISTILLATION]
    )
    rewards = settings.dpo_beta * (logprobs.detach() - reference.logprobs)
    return loss, _stats(batch, {**sums, Stat.LOSS: loss}, rewards)


def _sequence_logprobs(table: Tensor, batch: MicroBatch) -> Tensor:
    sequences = batch.sequences
    return sequences.per_sequence(table.gather(-1, sequences.targets[:, None]).squeeze(-1))


def _sequence_terms(
    batch: MicroBatch,
    logprobs: Tensor,
    reference: Reference,
    *,
    z0: Tensor,
    settings: TrainerSettings,
) -> dict[Stat, Tensor]:
    """Sums of the terms that need no more than the log-probabilities [N] of whole completions."""
    lengths = batch.sequences.lengths
    dpo = dpo_loss(
        logprobs[batch.chosen],
        logprobs[batch.rejected],
        reference_chosen=reference.logprobs[batch.chosen],
        reference_rejected=reference.logprobs[batch.rejected],
        beta=settings.dpo_beta,
    )
    kto = kto_loss(
        logprobs[batch.judged],
        reference=reference.logprobs[batch.judged],
        desirable=batch.desirable,
        z0=z0,
        beta=settings.kto_beta,
    )
    nll = nll_loss(logprobs[batch.likely], lengths[batch.likely])
    replay = nll_loss(logprobs[batch.replayed], lengths[batch.replayed])
    return {
        Stat.DPO: (batch.pair_weights * dpo).sum(),
        Stat.NLL: (batch.likely_weights * nll).sum(),
        Stat.KTO: (batch.judged_weights * kto).sum(),
        Stat.REPLAY: (batch.replay_weights * replay).sum(),
    }


def _topr(batch: MicroBatch, table: Tensor) -> tuple[Tensor, Tensor]:
    """Tapers [B] and losses [B] of the completions whose behaviour is known.

    The policy is the distribution that is served: tempered as at sampling, in the ratio and in the
    gradient, or learning from tempered answers would sharpen it with every update. The ratio also
    minds the nucleus, whose mass is taken from today's policy. A token just outside is not put at
    probability 0: rounding between serving and training would decide which one is.
    """
    if not len(batch.sampled):
        return table.new_zeros(0), table.new_zeros(0)
    tokens, sequences, behaviour = batch.sampled_tokens, batch.sequences, batch.behaviour
    drawn = tempered(table[tokens], behaviour.temperatures)
    per_token = drawn.gather(-1, sequences.targets[tokens, None]).squeeze(-1)
    logprobs = sequences.per_sequence_of(tokens, per_token)[batch.sampled]
    masses = nucleus_log_mass(drawn[behaviour.truncated], behaviour.top_p)
    mass = sequences.per_sequence_of(tokens[behaviour.truncated], masses)[batch.sampled]
    ratios, positive = logprobs - mass - behaviour.logprobs, batch.positive
    lengths = sequences.lengths[batch.sampled]
    losses = topr_loss(logprobs, log_ratios=ratios, positive=positive, lengths=lengths)
    return topr_tapers(ratios, positive=positive), losses


def _divergences(
    batch: MicroBatch,
    table: Tensor,
    reference: Reference,
    scorer: CompletionScorer,
    anchor: CompletionScorer | None,
) -> tuple[Tensor, Tensor]:
    """Means over the tokens of completions: KL of anchored replay [A] and of the criticised [C]."""
    anchored, criticised = batch.anchored_tokens, batch.criticised_tokens
    kl = kl_divergence(table[anchored], (anchor or scorer).logprobs(reference.hidden))
    critique = critique_loss(table[criticised], scorer.logprobs(reference.taught))
    per_anchored = batch.sequences.per_sequence_of(anchored, kl)[batch.anchored]
    per_critique = batch.sequences.per_sequence_of(criticised, critique)[batch.criticised]
    lengths = batch.sequences.lengths
    return per_anchored / lengths[batch.anchored], per_critique / lengths[batch.criticised]


def _distillation(batch: MicroBatch, table: Tensor, teacher: Teacher | None) -> Tensor:
    if teacher is None:
        return table.new_zeros(())
    return (new_answers(batch).weights * teacher.losses(batch, table)).sum()


@torch.no_grad()
def _kl_on_new_prompts(
    batch: MicroBatch, table: Tensor, reference: Reference, scorer: CompletionScorer
) -> Tensor:
    """Measured, not trained: KL(policy || reference) at the probed tokens."""
    kl = kl_divergence(table[reference.probes], scorer.logprobs(reference.probed))
    return (new_answers(batch).weights * kl).sum()


def _stats(batch: MicroBatch, sums: Mapping[Stat, Tensor], rewards: Tensor) -> Tensor:
    margins = rewards[batch.chosen] - rewards[batch.rejected]
    values = {
        **sums,
        Stat.MARGIN: (batch.pair_weights * margins).sum(),
        Stat.PAIR_WEIGHT: batch.pair_weights.sum(),
        Stat.NLL_WEIGHT: batch.likely_weights.sum(),
        Stat.KTO_WEIGHT: batch.judged_weights.sum(),
        Stat.TOPR_WEIGHT: batch.sampled_weights.sum(),
        Stat.CRITIQUE_WEIGHT: batch.criticised_weights.sum(),
        Stat.REPLAY_WEIGHT: batch.replay_weights.sum(),
        Stat.ANCHORED_WEIGHT: batch.anchored_weights.sum(),
        Stat.NEW_WEIGHT: new_answers(batch).weights.sum(),
        Stat.TOKENS: batch.sequences.attention_mask.sum(),
    }
    return torch.stack([values[stat].detach().to(torch.float64) for stat in Stat])
