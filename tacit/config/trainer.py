"""Settings of the trainer: workers, adapters, rehearsal, objective."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tacit.config.base import Count, Positive, Section, Share


class LoraSettings(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) through PEFT."""

    rank: Count = 32
    alpha: Positive = 64.0
    target_modules: str = "all-linear"
    train_embeddings: bool = False
    """Train the token embeddings beside the adapter. For small vocabularies: where output and input
    embeddings are tied and frozen, a policy gets new words right but never becomes sure of them."""


class ReplaySettings(Section):
    """Rehearsal against forgetting; on by default."""

    share: Share = 0.1
    """Replay examples over all examples of an update."""
    anchor_path: Path | None = None
    """JSONL of ``{"prompt": str | messages, "completion": str}`` the policy must keep."""


class TrainerSettings(Section):
    """The update: workers, adapters, objective."""

    num_workers: Count | None = None
    """Size of the data-parallel group; by default 2, or 1 where the cluster has one CPU."""
    cpus_per_worker: Positive = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    placement_timeout_s: Positive = 30.0
    """How long to wait for Ray to place the workers before failing with what is missing."""
    method: Literal["mixed", "sft", "dpo", "kto"] = "mixed"
    """``mixed`` is Tacit's own objective; the others are TRL's trainers."""
    full_fine_tuning: bool = False
    """Train all weights instead of an adapter."""
    lora: LoraSettings = LoraSettings()
    replay: ReplaySettings = ReplaySettings()
    learning_rate: Positive = 2e-3
    """Peak. The default suits adapters on small policies, 1e-4 those on billions of weights."""
    num_epochs: Count = 3
    batch_size: Count = 32
    """Examples per optimizer step over all workers."""
    max_length: Count = 512
    """Tokens per example; longer prompts are cut on the left."""
    micro_batch_tokens: Count = 8_192
    """Tokens, padding included, that a worker takes through the model at once."""
    warmup_share: Share = 0.05
    """Share of the steps over which the learning rate rises to its peak; a cosine follows."""
    max_grad_norm: Positive = 1.0
    dpo_beta: Positive = 0.1
    kto_beta: Positive = 0.1
    dpo_weight: Annotated[float, Field(ge=0)] = 1.0
    nll_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the negative log-likelihood of corrected and chosen completions."""
    kto_weight: Annotated[float, Field(ge=0)] = 1.0
    kl_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of KL(policy || reference) on replay prompts."""
    seed: int = 0
    max_restarts: Annotated[int, Field(ge=0)] = 2
    """How often an update starts again after losing a worker."""
