"""Settings of the trainer: workers, adapters, rehearsal, objective."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tacit.config.base import Alphas, Count, Positive, Section, Share
from tacit.config.methods import SAMPLING, RewardSettings, SamplingSettings, StarSettings
from tacit.config.replay import RebuildSettings, ReplaySettings
from tacit.contracts import Digest


class LoraSettings(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) through PEFT."""

    rank: Count = 32
    alpha: Positive = 64.0
    target_modules: str = "all-linear"
    train_embeddings: bool = False
    """Train the token embeddings beside the adapter. For small vocabularies: where output and input
    embeddings are tied and frozen, a policy gets new words right but never becomes sure of them."""


class EwcSettings(Section):
    """Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv 1612.00796); off by default."""

    weight: Annotated[float, Field(ge=0)] = 0.0
    """lambda of lambda / 2 * sum_i F_i (theta_i - parent_i)^2; 0 is off. Needs replay."""


class DistillationSettings(Section):
    """A frozen teacher on new prompts (Li & Hoiem 2016, arXiv 1606.09282); off by default."""

    weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of KL(teacher || policy) on the answers that feedback is about; 0 is off."""
    temperature: Positive = 2.0
    """Both distributions are tempered by it; above 1 unlikely tokens count for more."""
    teacher: Literal["parent"] | Digest = "parent"
    """The policy that the update starts from, or the checkpoint of this digest."""

    def teacher_of(self, parent: Digest) -> Digest | None:
        """The checkpoint that teaches an update of ``parent``; None where this is off."""
        if self.weight == 0:
            return None
        return parent if self.teacher == "parent" else self.teacher


class SparseSettings(Section):
    """Training few weights (cf. sparse memory finetuning, arXiv 2510.15103); off by default."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the trainable weights that may move: those that matter most for the batch relative
    to replay. 1 is off."""


class ConsolidationSettings(Section):
    """``tacit consolidate``: adapters folded into the weights under them."""

    num_examples: Count = 256
    """Replay examples that are distilled on."""
    num_epochs: Count = 4
    """At the most; the best state seen is kept, the one before the first step among them."""
    learning_rate: Positive = 1e-5
    """About a tenth of the distance between neighbours in bfloat16 at usual weights."""


class TrainerSettings(Section):
    """The update: workers, adapters, objective."""

    num_workers: Count | None = None
    """Size of the data-parallel group; by default 2, or 1 where the cluster has one CPU."""
    cpus_per_worker: Positive = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    placement_timeout_s: Positive = 30.0
    """How long to wait for Ray to place the workers before failing with what is missing."""
    method: Literal["mixed", "sft", "dpo", "kto", "grpo", "rloo", "sdft", "sdpo", "star"] = "mixed"
    """``mixed`` is Tacit's own objective; docs/how-to/choose-a-method.md tells the others."""
    sampling: SamplingSettings = SamplingSettings()
    reward: RewardSettings = RewardSettings()
    star: StarSettings = StarSettings()
    full_fine_tuning: bool = False
    """Train all weights instead of an adapter."""
    lora: LoraSettings = LoraSettings()
    replay: ReplaySettings = ReplaySettings()
    rebuild: RebuildSettings = RebuildSettings()
    ewc: EwcSettings = EwcSettings()
    distillation: DistillationSettings = DistillationSettings()
    sparse: SparseSettings = SparseSettings()
    consolidation: ConsolidationSettings = ConsolidationSettings()
    learning_rate: Positive = 2e-3
    """Peak. The default suits adapters on small policies, 1e-4 those on billions of weights."""
    num_epochs: Count = 3
    batch_size: Count = 32
    """Examples per optimizer step over all workers."""
    max_length: Annotated[int, Field(ge=2)] = 512
    """Tokens per example; longer prompts are cut on the left."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What ``mixed`` multiplies matrices in. ``auto`` is bf16 where all workers have units for it
    (AMX, or a GPU from Ampere on) and fp32 elsewhere; what it came to stands in the candidate."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Compute layers again in the backward pass instead of keeping what they computed: less memory,
    about a third more time, the same weights. ``auto`` is off until memory runs out and smaller
    micro-batches no longer help; what it came to stands in the candidate."""
    sharding: Literal["none", "fsdp2"] = "none"
    """``fsdp2`` shares the layers of ``mixed``'s policy out over the workers, for policies that a
    GPU cannot hold; ``none`` has all of them on every worker."""
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
    """Weight of outcomes and ratings of answers that were sampled nobody knows how."""
    topr_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of outcomes and ratings of answers whose token ids and logprobs were logged."""
    critique_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of KL(policy || parent that read the critique) on answers with a critique."""
    kl_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of KL(policy || reference) on replay prompts that feedback did not teach."""
    kl_reference: Literal["parent", "anchor"] | Digest = "parent"
    """The reference of that term: the policy that the update starts from; or the frozen anchor,
    which is the line's first release, so that small losses do not add up; or a checkpoint."""
    doubted_weight: Share = 0.1
    """What is left of the trust weight of feedback that other feedback on similar questions
    contradicts. Below 1 such feedback is not rehearsed either, and what the anchor prompts
    contradict goes to quarantine (docs/adr/0023); 1 takes all as it comes."""
    interpolation_alphas: Alphas = (0.25, 0.5, 0.75, 1.0)
    """Shares of an update that may become the candidate; the largest that keeps what the champion
    knows is taken (docs/adr/0007). ``1`` alone always takes all of it."""
    seed: int = 0
    max_restarts: Annotated[int, Field(ge=0)] = 2
    """How often an update starts again after losing a worker."""

    def of_rebuild(self) -> "TrainerSettings":
        """These settings for an update that starts from the line's frozen anchor."""
        chosen = {
            "num_epochs": self.rebuild.num_epochs or self.num_epochs,
            "learning_rate": self.rebuild.learning_rate or self.learning_rate,
            "interpolation_alphas": self.rebuild.interpolation_alphas or self.interpolation_alphas,
        }
        return self.model_copy(update=chosen)

    def kl_anchor(self, parent: Digest, anchor: Digest | None = None) -> Digest | None:
        """The checkpoint that replay is held to in an update of ``parent``; None where none is.

        ``anchor`` is the line's frozen anchor; without one the parent takes its place.
        """
        if self.kl_weight == 0 or self.method != "mixed":
            return None
        named = {"parent": parent, "anchor": anchor or parent}
        return named.get(self.kl_reference, self.kl_reference)

    @property
    def samples_are_rewarded(self) -> bool:
        """Whether the method asks a reward function or model about answers it sampled."""
        judged = bool(self.reward.function or self.reward.model)
        return judged and self.method in ("grpo", "rloo", "sdpo")

    @model_validator(mode="after")
    def _add_ons_fit(self) -> "TrainerSettings":
        used = {
            "trainer.ewc.weight": self.ewc.weight > 0,
            "trainer.distillation.weight": self.distillation.weight > 0,
            "trainer.sparse.fraction": self.sparse.fraction < 1,
        }
        named = ", ".join(name for name, on in used.items() if on)
        if named and self.method != "mixed":
            raise ValueError(
                f"expected trainer.method=mixed with {named}; got {self.method}, which is TRL's own"
            )
        if self.ewc.weight > 0 and self.replay.share == 0:
            raise ValueError(
                "expected trainer.replay.share > 0 with trainer.ewc.weight, "
                "which protects what replay needs; got 0"
            )
        return self

    @model_validator(mode="after")
    def _can_be_sharded(self) -> "TrainerSettings":
        unsuitable = {
            f"trainer.method={self.method}": self.method != "mixed",
            "trainer.ewc.weight": self.ewc.weight > 0,
            "trainer.sparse.fraction": self.sparse.fraction < 1,
            f"trainer.kl_reference={self.kl_reference}": self.kl_reference != "parent",
        }
        named = ", ".join(name for name, on in unsuitable.items() if on)
        if named and self.sharding == "fsdp2":
            raise ValueError(f"expected trainer.sharding=none with {named}; got fsdp2")
        return self

    @model_validator(mode="after")
    def _suits_the_method(self) -> "TrainerSettings":
        for unsuitable in self._unsuitable():
            raise ValueError(f"{unsuitable} with trainer.method={self.method}")
        return self

    def _unsuitable(self) -> Iterator[str]:
        """What the method cannot work with: expected and got."""
        method, sampling = self.method, self.sampling
        if method != "mixed" and (self.num_workers or 1) > 1:
            yield f"expected trainer.num_workers=1 or unset; got {self.num_workers}"
        if method in ("grpo", "rloo") and not (self.reward.function or self.reward.model):
            yield "expected trainer.reward.function or trainer.reward.model; got neither"
        if method in ("grpo", "rloo", "sdpo") and self.batch_size % sampling.num_generations:
            yield (
                "expected a trainer.batch_size that trainer.sampling.num_generations="
                f"{sampling.num_generations} divides; got {self.batch_size}"
            )
        if method in SAMPLING and sampling.max_new_tokens >= self.max_length:
            yield (
                f"expected trainer.sampling.max_new_tokens < trainer.max_length={self.max_length}; "
                f"got {sampling.max_new_tokens}"
            )
