"""Names of all metrics Tacit logs; apart from ``tacit.tracking`` so that workers need no MLflow."""

from enum import StrEnum


class MetricName(StrEnum):
    """Names of all metrics Tacit logs."""

    LOSS = "train/loss"
    LOSS_DPO = "train/loss_dpo"
    LOSS_NLL = "train/loss_nll"
    LOSS_KTO = "train/loss_kto"
    LOSS_REPLAY = "train/loss_replay"
    KL_REPLAY = "train/kl_replay"
    REWARD_MARGIN = "train/reward_margin"
    GRAD_NORM = "train/grad_norm"
    LEARNING_RATE = "train/learning_rate"
    TOKENS_PER_SECOND = "train/tokens_per_second"
    NUM_EVENTS = "batch/num_events"
    NUM_REPLAY = "batch/num_replay"
