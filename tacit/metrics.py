"""Names of all metrics Tacit logs; apart from ``tacit.tracking`` so that workers need no MLflow."""

from enum import StrEnum


class MetricName(StrEnum):
    """Names of all metrics Tacit logs."""

    LOSS = "train/loss"
    LOSS_DPO = "train/loss_dpo"
    LOSS_NLL = "train/loss_nll"
    LOSS_KTO = "train/loss_kto"
    LOSS_TOPR = "train/loss_topr"
    LOSS_CRITIQUE = "train/loss_critique"
    LOSS_REPLAY = "train/loss_replay"
    KL_REPLAY = "train/kl_replay"
    REWARD_MARGIN = "train/reward_margin"
    TOPR_TAPER = "train/topr_taper"
    """How much answers with a known behaviour still count: 1 where the policy still gives them."""
    GRAD_NORM = "train/grad_norm"
    LEARNING_RATE = "train/learning_rate"
    TOKENS_PER_SECOND = "train/tokens_per_second"
    MICRO_BATCH_TOKENS = "train/micro_batch_tokens"
    ALPHA = "variant/alpha"
    STANDS = "variant/stands"
    NUM_EVENTS = "batch/num_events"
    NUM_REPLAY = "batch/num_replay"
    REPLAY_ANCHOR = "batch/replay_anchor"
    REPLAY_ACCEPTED = "batch/replay_accepted"
    REPLAY_ON_POLICY = "batch/replay_on_policy"
    """Replay by origin; the sum is ``NUM_REPLAY``."""
