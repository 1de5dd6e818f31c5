"""The terms of the objective, one formula each, from log-probabilities alone.

Log-probabilities are natural logs, of whole completions (sums over tokens) unless said otherwise.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


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


def kto_reference_point(mean_log_ratio: Tensor) -> Tensor:
    """z0: mean log-ratio of mismatched completions, at least 0, without gradient; scalar.

    The biased estimate of KL(policy || reference) of section 4.2 of arXiv 2402.01306.
    """
    return mean_log_ratio.detach().clamp(min=0)


def topr_loss(logprobs: Tensor, *, log_ratios: Tensor, positive: Tensor, lengths: Tensor) -> Tensor:
    """Tapered off-policy REINFORCE per completion; ``positive`` is bool, all [B], returns [B].

    -log pi(y|x) / |y| if positive, else f(pi(y|x) / mu(y|x)) / |y|, where mu is the policy that
    sampled y, ``log_ratios`` is log pi - log mu, and f(r) is r up to 1 and 1 + log r beyond. Its
    gradient is -R * taper * grad log pi / |y| with R = 1 or -1 and the taper of ``topr_tapers``:
    equations 7 and 8 of Le Roux et al. 2025, arXiv 2503.14286, and the division by the length of
    section 4 there. The size of the reward is in the example's weight. Written with f and not with
    a constant taper, the loss falls as a bad answer is unlearned, to 0.
    """
    # relu and clamp share no gradient where the ratio is exactly 1.
    unlearned = log_ratios.clamp(max=0).exp() + F.relu(log_ratios)
    return torch.where(positive, -logprobs, unlearned) / lengths


def topr_tapers(log_ratios: Tensor, *, positive: Tensor) -> Tensor:
    """How much each completion counts, without gradient: [B], [B] to [B], within [0, 1].

    1 if positive, else pi(y|x) / mu(y|x) clipped to [0, 1]: the limits a- = 0 and all others 1 of
    equation 7 of arXiv 2503.14286. So an answer that failed matters less as it is unlearned.
    """
    return torch.where(positive, 0.0, log_ratios.detach().clamp(max=0)).exp()


def tempered(table: Tensor, temperatures: Tensor) -> Tensor:
    """Log-probabilities [S, V] at each token's temperature [S], from those at temperature 1."""
    return (table / temperatures[:, None]).log_softmax(-1)


def nucleus_log_mass(table: Tensor, top_p: Tensor) -> Tensor:
    """Log of the probability in the nucleus of each token, without gradient: [U, V], [U] to [U].

    The nucleus is the smallest set of tokens that holds ``top_p`` of the probability, Holtzman et
    al. 2020, arXiv 1904.09751. Sampling from it divides every probability by this mass.
    """
    ordered = table.detach().exp().sort(descending=True).values
    inside = ordered.cumsum(-1) - ordered < top_p[:, None]
    return (ordered * inside).sum(-1).clamp(max=1).log()


def kl_divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) at each token over the whole vocabulary: [S, V] each, returns [S]."""
    return (logprobs.exp() * (logprobs - reference)).sum(-1)


def critique_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Self-distillation from a critique at each token, [S, V] each, returns [S].

    KL(pi(.|x, y_<t) || ref(.|x, f, y_<t)), the loss of SDPO in section 2 of Hübotter et al. 2026,
    arXiv 2601.20802: x is the prompt, f the critique, y the answer that was criticised. The teacher
    is the frozen parent: it needs no second set of weights and comes close to a moving average,
    where a teacher that moves freely diverges (table 4). y was sampled when it was served, as in
    Kleine Buening et al. 2026, arXiv 2603.12273, so that nothing is generated in a step.
    """
    return kl_divergence(student, teacher.detach())


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Distillation at each token, [S, V] log-probabilities each, returns [S].

    T^2 * KL(softmax(t / T) || softmax(s / T)): section 2 of Hinton et al. 2015, arXiv 1503.02531,
    whose T^2 keeps the gradient's size; on new inputs the loss by which Li & Hoiem 2016
    (arXiv 1606.09282, equation 2) keep what a network said before, less the teacher's entropy.
    """
    soft_teacher = (teacher.detach() / temperature).log_softmax(-1)
    soft_student = (student / temperature).log_softmax(-1)
    return temperature**2 * kl_divergence(soft_teacher, soft_student)
