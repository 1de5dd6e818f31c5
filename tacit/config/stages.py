"""Settings of evaluator, gatekeeper, deploy, tracking and the loop."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tacit.config.base import Count, Port, Positive, Section, Share
from tacit.config.rollout import RolloutSettings
from tacit.contracts.base import Name


class EvaluatorSettings(Section):
    """Suites and statistics."""

    suites_path: Path | None = None
    """Folder of suite YAML files; by default ``<home>/suites``."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    batch_size: Count = 128
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Ray workers that answer suites; 0 answers them in the loop's own process."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs, or a share of one, of each evaluation worker; 0 computes on CPUs."""
    min_holdout_items: Count = 20
    """A hold-out or retention suite smaller than this is not evidence and is left out."""
    max_holdout_items: Count = 2_000
    """Prompt clusters in the hold-out suite; of more, half are the newest and half are drawn from
    the older ones, anew for each champion."""
    max_retention_items: Count = 400
    """Corrections of promoted candidates that later ones are asked again."""
    variant_margin: Share = 0.03
    """Loss on a regression suite, in accuracy, that a share of an update must be shown to stay
    below to be taken (``trainer.interpolation_alphas``). At most the margin of the gate policy."""
    num_probe_prompts: Count = 150
    """Regression prompts that the trigger probe puts suspicious phrases into."""
    num_trigger_phrases: Count = 256
    """Recurring phrases of all that was taught that the trigger probe looks at, at most."""


class WebhookSettings(Section):
    """One endpoint that is told what happens at the gate."""

    url: str | None = None
    """Where messages are posted to."""
    url_variable: str | None = None
    """Or the environment variable that holds the address, where that is a secret (Slack)."""
    format: Literal["standard", "slack"] = "standard"
    """``slack``: the ``{"text": …}`` that Slack, Mattermost and others take."""
    events: tuple[Literal["candidate.waiting", "candidate.decided", "release.rolled_back"], ...] = (
        "candidate.waiting",
        "candidate.decided",
        "release.rolled_back",
    )

    @model_validator(mode="after")
    def _one_address(self) -> "WebhookSettings":
        if (self.url is None) == (self.url_variable is None):
            raise ValueError("expected exactly one of url and url_variable")
        return self


class GatekeeperSettings(Section):
    """Gate policy and approvals."""

    gate_policy_path: Path | None = None
    """YAML gate policy; by default the one shipped with Tacit."""
    signing_path: Path | None = None
    """Folder of signing.pem, which control and the loop sign with, and of signing.pub, which is
    all that serving needs; by default ``<home>/keys``."""
    approval_ttl_s: Positive = 7 * 24 * 3600.0
    """How long a candidate waits for a person, and an approval for its promotion."""
    session_ttl_s: Positive = 8 * 3600.0
    """How long a reviewer stays logged in on the review pages."""
    public_url: str | None = None
    """Where people reach the review pages, for links in webhooks."""
    webhooks: dict[Name, WebhookSettings] = {}
    """Endpoints that are told when a candidate waits, is decided or is rolled back, by name."""


class WatchSettings(Section):
    """The watch over a release once it serves everyone: rolled back if live feedback is worse."""

    enabled: bool = True
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Probability of rolling back a release that loses no more than ``tolerance``, over its whole
    life and however often one looks."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Loss of success, as a share, that is no reason: what drift alone may do from before to
    after. Once the loss is shown to be smaller the watch ends."""
    baseline_feedback: Count = 2_000
    """Events on what served before that are compared with, the newest."""
    duration_s: Positive = 7 * 24 * 3600.0
    """How long a release is watched at most."""


class DeploySettings(Section):
    """Serving."""

    host: str = "127.0.0.1"
    port: Port = 8001
    """OpenAI-compatible API."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates: the embedded engine, or a running vLLM server."""
    vllm_url: str = "http://127.0.0.1:8000"
    """The vLLM server. Its key, if it wants one, stands in ``TACIT_VLLM_API_KEY``."""
    max_new_tokens: Count = 256
    """Upper limit of ``max_tokens`` in a request."""
    max_batch_size: Count = 32
    """Requests that share a forward pass."""
    max_queue: Count = 256
    """Requests that may wait; more get 429 with Retry-After."""
    poll_s: Positive = 0.25
    """How often serving looks for a newer release."""
    swap_timeout_s: Positive = 60.0
    """How long a promotion waits for serving to load the release."""
    device: str = "auto"
    """Where the policy runs: ``cpu``, ``cuda``, ``cuda:1``; ``auto`` takes a GPU if it can."""
    default_temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """Temperature of requests that name none; 1 as in OpenAI's API, 0 is greedy."""
    max_choices: Count = 16
    """Upper limit of ``n`` in a request."""
    max_request_bytes: Count = 4 * 1024 * 1024
    max_spool_bytes: Count = 256 * 1024 * 1024
    """Interactions that wait on disk while the stream is away; more are not recorded."""
    unrecorded_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of requests that leave no interaction, drawn by chance, for privacy."""
    refusal_retry_s: Positive = 30.0
    """How long until a release that was refused is tried again."""
    heartbeat_s: Positive = 2.0
    """How often a replica writes what it serves."""
    rollout: RolloutSettings = RolloutSettings()
    watch: WatchSettings = WatchSettings()


class TrackingSettings(Section):
    """MLflow."""

    uri: str | None = None
    """An MLflow server of your own; by default Tacit starts one on ``port``."""
    host: str = "127.0.0.1"
    port: Port = 5000


class LoopSettings(Section):
    """When a cycle starts."""

    min_events: Count = 64
    """Trainable events that start a cycle."""
    max_events: Count = 4_096
    """Events in one batch at the most."""
    poll_s: Positive = 0.5
    max_attempts: Count = 3
    """How often a step of a cycle is tried before the cycle is failed."""
