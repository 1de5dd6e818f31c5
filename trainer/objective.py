"""The mixed objective: every kind of feedback in one loss, each example with its own weight.

    loss = sum_i w_i * l_i / sum_i w_i        over all examples of a step, on all workers

    PAIR                    l = dpo_weight * DPO + nll_weight * NLL(chosen)
    CHOSEN                  l = nll_weight * NLL
    DESIRABLE, UNDESIRABLE  l = kto_weight * KTO
    REPLAY                  l = nll_weight * NLL + kl_weight * KL(policy || reference)

Log-probabilities are natural logs, of whole completions (sums over tokens) unless said otherwise.
The reference is the parent policy as it was before the first step.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.config import TrainerSettings
from trainer.batches import MicroBatch
from trainer.scoring import CompletionScorer


class Stat(IntEnum):
    """Places in the vector of sums that workers add up each step."""

    LOSS = 0
    DPO = 1
    NLL = 2
    KTO = 3
    REPLAY = 4
    KL = 5
    MARGIN = 6
    PAIR_WEIGHT = 7
    NLL_WEIGHT = 8
    KTO_WEIGHT = 9
    REPLAY_WEIGHT = 10
    TOKENS = 11


@dataclass(frozen=True)
class Reference:
    """What the parent policy said about a micro-batch, computed once before training."""

    logprobs: Tensor
    """[N] of each sequence."""
    mismatched: Tensor | None
    """[K] of the mismatched sequences."""
    hidden: Tensor
    """[S, H] hidden states at the completion tokens of replay."""


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    *,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Tensor:
    """Direct preference optimization per pair, [P] each, returns [P].

    -log sigmoid(beta * ((log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l)))),
    equation 7 of Rafailov et al. 2023, arXiv 2305.18290.
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -F.logsigmoid(beta * margin)


def nll_loss(logprobs: Tensor, lengths: Tensor) -> Tensor:
    """Negative log-likelihood per token of each completion: [Q], [Q] to [Q].

    The length-normalised likelihood term that iterative RPO adds to DPO,
    Pang et al. 2024, arXiv 2404.19733, equation 1.
    """
    return -logprobs / lengths


def kto_loss(
    logprobs: Tensor, *, reference: Tensor, desirable: Tensor, z0: Tensor, beta: float
) -> Tensor:
    """Kahneman-Tversky optimization per completion; ``desirable`` is bool, all [K], returns [K].

    1 - sigmoid(beta * (r - z0)) if desirable, else 1 - sigmoid(beta * (z0 - r)), with
    r = log pi(y|x) - log ref(y|x); equation 7 of Ethayarajh et al. 2024, arXiv 2402.01306.
    """
    advantage = (logprobs - reference) - z0
    return 1 - torch.sigmoid(beta * torch.where(desirable, advantage, -advantage))


def kto_reference_point(log_ratios: Tensor) -> Tensor:
    """z0: mean log-ratio of mismatched completions, at least 0, without gradient; scalar.

    The biased estimate of KL(policy || reference) of section 4.2 of arXiv 2402.01306.
    """
    return log_ratios.detach().mean().clamp(min=0)


def kl_divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) at each token over the whole vocabulary: [S, V] each, returns [S]."""
    return (logprobs.exp() * (logprobs - reference)).sum(-1)


def score_reference(scorer: CompletionScorer, batch: MicroBatch) -> Reference:
    """Run the parent policy over a micro-batch, without gradient."""
    with torch.no_grad():
        hidden = scorer.hidden(batch.sequences)
        logprobs = _sequence_logprobs(scorer.logprobs(hidden), batch)
        return Reference(
            logprobs=logprobs,
            mismatched=mismatched_logprobs(scorer, batch),
            hidden=hidden[batch.replay_tokens],
        )


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
    scorer: CompletionScorer,
    reference_scorer: CompletionScorer,
    reference: Reference,
    z0: Tensor,
    settings: TrainerSettings,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of losses (scalar, not yet divided by the sum of weights) and sums [Stat]."""
    table = scorer.logprobs(scorer.hidden(batch.sequences))
    logprobs = _sequence_logprobs(table, batch)
    lengths = batch.sequences.lengths
    dpo = dpo_loss(
        logprobs[batch.chosen],
        logprobs[batch.rejected],
        reference_chosen=reference.logprobs[batch.chosen],
        reference_rejected=reference.logprobs[batch.rejected],
        beta=settings.dpo_beta,
    )
    nll = nll_loss(logprobs[batch.likely], lengths[batch.likely])
    kto = kto_loss(
        logprobs[batch.judged],
        reference=reference.logprobs[batch.judged],
        desirable=batch.desirable,
        z0=z0,
        beta=settings.kto_beta,
    )
    replay = nll_loss(logprobs[batch.replayed], lengths[batch.replayed])
    kl = _replay_kl(batch, table, reference_scorer.logprobs(reference.hidden))
    sums = {
        Stat.DPO: (batch.pair_weights * dpo).sum(),
        Stat.NLL: (batch.likely_weights * nll).sum(),
        Stat.KTO: (batch.judged_weights * kto).sum(),
        Stat.REPLAY: (batch.replay_weights * replay).sum(),
        Stat.KL: (batch.replay_weights * kl).sum(),
    }
    loss = (
        settings.dpo_weight * sums[Stat.DPO]
        + settings.nll_weight * (sums[Stat.NLL] + sums[Stat.REPLAY])
        + settings.kto_weight * sums[Stat.KTO]
        + settings.kl_weight * sums[Stat.KL]
    )
    return loss, _stats(batch, loss, sums, logprobs.detach() - reference.logprobs)


def _sequence_logprobs(table: Tensor, batch: MicroBatch) -> Tensor:
    sequences = batch.sequences
    return sequences.per_sequence(table.gather(-1, sequences.targets[:, None]).squeeze(-1))


def _replay_kl(batch: MicroBatch, table: Tensor, reference: Tensor) -> Tensor:
    """Mean KL per token of each replay completion, [R]."""
    tokens = batch.replay_tokens
    per_token = table.new_zeros(len(table)).index_put(
        (tokens,), kl_divergence(table[tokens], reference)
    )
    sums = batch.sequences.per_sequence(per_token)
    return sums[batch.replayed] / batch.sequences.lengths[batch.replayed]


def _stats(batch: MicroBatch, loss: Tensor, sums: dict[Stat, Tensor], log_ratios: Tensor) -> Tensor:
    margins = log_ratios[batch.chosen] - log_ratios[batch.rejected]
    values = {
        **sums,
        Stat.LOSS: loss,
        Stat.MARGIN: (batch.pair_weights * margins).sum(),
        Stat.PAIR_WEIGHT: batch.pair_weights.sum(),
        Stat.NLL_WEIGHT: batch.likely_weights.sum(),
        Stat.KTO_WEIGHT: batch.judged_weights.sum(),
        Stat.REPLAY_WEIGHT: batch.replay_weights.sum(),
        Stat.TOKENS: batch.sequences.attention_mask.sum(),
    }
    return torch.stack([values[stat].detach().to(torch.float64) for stat in Stat])
