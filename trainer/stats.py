"""Sums that workers add up each step, and the metrics that are made of them."""

from enum import IntEnum

from torch import Tensor

from tacit.metrics import MetricName


class Stat(IntEnum):
    """Places in the vector of sums that workers add up each step."""

    LOSS = 0
    DPO = 1
    NLL = 2
    KTO = 3
    TOPR = 4
    CRITIQUE = 5
    REPLAY = 6
    KL = 7
    MARGIN = 8
    TAPER = 9
    PAIR_WEIGHT = 10
    NLL_WEIGHT = 11
    KTO_WEIGHT = 12
    TOPR_WEIGHT = 13
    CRITIQUE_WEIGHT = 14
    REPLAY_WEIGHT = 15
    TOKENS = 16
    DISTILLATION = 17
    KL_NEW = 18
    NEW_WEIGHT = 19
    ANCHORED_WEIGHT = 20


def step_metrics(sums: Tensor, weight: float) -> dict[str, float]:
    """Weighted means from ``sums`` [Stat]; a term without examples is left out.

    ``weight`` is that of all examples of the step.
    """
    values = sums.tolist()
    metrics: dict[str, float] = {MetricName.LOSS.value: values[Stat.LOSS] / weight}
    for name, stat, divisor in (
        (MetricName.LOSS_DPO, Stat.DPO, Stat.PAIR_WEIGHT),
        (MetricName.REWARD_MARGIN, Stat.MARGIN, Stat.PAIR_WEIGHT),
        (MetricName.LOSS_NLL, Stat.NLL, Stat.NLL_WEIGHT),
        (MetricName.LOSS_KTO, Stat.KTO, Stat.KTO_WEIGHT),
        (MetricName.LOSS_TOPR, Stat.TOPR, Stat.TOPR_WEIGHT),
        (MetricName.TOPR_TAPER, Stat.TAPER, Stat.TOPR_WEIGHT),
        (MetricName.LOSS_CRITIQUE, Stat.CRITIQUE, Stat.CRITIQUE_WEIGHT),
        (MetricName.LOSS_REPLAY, Stat.REPLAY, Stat.REPLAY_WEIGHT),
        (MetricName.KL_REPLAY, Stat.KL, Stat.ANCHORED_WEIGHT),
        (MetricName.KL_NEW, Stat.KL_NEW, Stat.NEW_WEIGHT),
    ):
        if values[divisor] > 0:
            metrics[name.value] = values[stat] / values[divisor]
    return metrics
