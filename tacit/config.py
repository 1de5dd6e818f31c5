"""One settings tree, a section a stage.

Sources, strongest first: ``--set a.b=c`` on the command line, ``TACIT_A__B`` in the environment,
``tacit.toml``, the defaults below. Secrets never stand in the file: they come from the environment.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tacit.contracts.base import Name
from tacit.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ScreeningSettings(Section):
    """What happens between an event being durable and an event being trained on."""

    enabled: bool = True
    """Off means every well-formed event is accepted at full weight. The ledger records it."""
    max_clock_skew_s: Positive = 300.0
    """An event from further in the future than this is quarantined."""
    holdout_share: Share = 0.1
    """Share of prompt clusters that are measured and never trained on."""
    max_events_per_subject: Count = 20
    """Accepted events of one subject per cycle; an absolute count, the rest is quarantined."""
    max_events_per_cluster: Count = 20
    """Accepted events of one near-duplicate cluster per cycle."""
    max_events_per_phrase: Count = 8
    """Corrections that share a phrase and an answer while few people send them, per cycle."""
    min_subjects_per_phrase_share: Share = 0.5
    """Below this ratio of distinct subjects to events, a shared phrase counts as a burst."""
    hold_ttl_s: Positive = 3 * 24 * 3600.0
    """How long feedback waits for the interaction it names."""
    unproven_subject_weight: Share = 0.7
    """Trust weight of a subject's first events; grows to 1 with accepted ones."""


class KafkaSettings(Section):
    """Connection to a Kafka cluster; user and password come from the environment."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """Comma-separated ``host:port``."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    num_partitions: Count = 4
    """Partitions of topics that Tacit creates."""
    replication_factor: Count = 1
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """For the SASL protocols; user and password are TACIT_KAFKA_USER and TACIT_KAFKA_PASSWORD."""
    bootstrap_timeout_s: Positive = 10.0
    """How long the cluster may take to answer the first time."""
    delivery_timeout_s: Positive = 15.0
    """How long an append may take before it fails as unavailable."""
    max_record_bytes: Count = 1_000_000
    """Events larger than this are refused; the broker's message.max.bytes must allow it."""


class CollectorSettings(Section):
    """HTTP API, stream and screening."""

    host: str = "127.0.0.1"
    port: Port = 8000
    """Feedback API and review pages."""
    stream: Literal["embedded", "kafka"] = "embedded"
    kafka: KafkaSettings = KafkaSettings()
    topic_prefix: Name = "tacit"
    """Topics are ``<prefix>.feedback`` and ``<prefix>.interactions``."""
    max_events_per_request: Count = 1_000
    max_request_bytes: Count = 5 * 1024 * 1024
    metrics: dict[Name, Literal["bool", "float"]] = {"resolved": "bool"}
    """Outcome metrics that products may report; any other is refused."""
    screening: ScreeningSettings = ScreeningSettings()


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


class EvaluatorSettings(Section):
    """Suites and statistics."""

    suites_path: Path | None = None
    """Folder of suite YAML files; by default ``<home>/suites``."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    batch_size: Count = 128
    min_holdout_items: Count = 20
    """A hold-out suite smaller than this is not evidence and is left out."""
    num_probe_prompts: Count = 150
    """Regression prompts that the trigger probe puts suspicious phrases into."""
    num_trigger_phrases: Count = 64
    """Recurring phrases of a batch that the trigger probe screens."""


class GatekeeperSettings(Section):
    """Gate policy and approvals."""

    gate_policy_path: Path | None = None
    """YAML gate policy; by default the one shipped with Tacit."""
    approval_ttl_s: Positive = 7 * 24 * 3600.0
    """How long a candidate waits for a person, and an approval for its promotion."""
    session_ttl_s: Positive = 8 * 3600.0
    """How long a reviewer stays logged in on the review pages."""


class DeploySettings(Section):
    """Serving."""

    host: str = "127.0.0.1"
    port: Port = 8001
    """OpenAI-compatible API."""
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
    refusal_retry_s: Positive = 30.0
    """How long until a release that was refused is tried again."""
    heartbeat_s: Positive = 2.0
    """How often a replica writes what it serves."""


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


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="TACIT_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    home: Path = Path(".tacit")
    """Where the embedded backends keep everything."""
    policy: Name = "default"
    """The policy line this service trains and serves."""
    model: str | None = None
    """Path or hub id of the first policy; by default the small demo policy is made."""
    database_url: str | None = None
    """SQLAlchemy URL; by default SQLite in ``home``."""
    log_json: bool = False
    """Log one JSON object a line."""
    collector: CollectorSettings = CollectorSettings()
    trainer: TrainerSettings = TrainerSettings()
    evaluator: EvaluatorSettings = EvaluatorSettings()
    gatekeeper: GatekeeperSettings = GatekeeperSettings()
    deploy: DeploySettings = DeploySettings()
    tracking: TrackingSettings = TrackingSettings()
    loop: LoopSettings = LoopSettings()

    @model_validator(mode="after")
    def _batch_fits(self) -> "Settings":
        if self.loop.max_events < self.loop.min_events:
            raise ValueError(
                f"expected loop.max_events >= loop.min_events; got {self.loop.max_events} < "
                f"{self.loop.min_events}"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over values passed in: what is passed in comes from ``tacit.toml``."""
        return env_settings, init_settings

    @property
    def resolved_database_url(self) -> str:
        """``database_url``, or SQLite in ``home``."""
        return self.database_url or f"sqlite:///{self.home.resolve()}/tacit.db"

    @property
    def tracking_uri(self) -> str:
        """``tracking.uri``, or the MLflow server that ``tacit up`` starts."""
        return self.tracking.uri or f"http://{self.tracking.host}:{self.tracking.port}"

    @property
    def checkpoints_path(self) -> Path:
        """Folder of the content-addressed store."""
        return self.home / "checkpoints"

    @property
    def keys_path(self) -> Path:
        """Folder of the signing key and of the keys made at first start."""
        return self.home / "keys"

    @property
    def anchor_path(self) -> Path:
        """JSONL of anchor prompts."""
        return self.trainer.replay.anchor_path or self.home / "anchor.jsonl"

    @property
    def suites_path(self) -> Path:
        """Folder of the suites."""
        return self.evaluator.suites_path or self.home / "suites"


class _PlainSettings(Settings):
    """The same tree read from a dict alone, so that an override beats the environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def load_settings(
    path: Path | None = None, *, overrides: list[str] | None = None, **values: Any
) -> Settings:
    """Settings from ``path`` (default ``tacit.toml`` if it is there), environment and overrides.

    ``overrides`` are ``a.b=c`` strings; ``values`` are top-level fields that win over the file.
    Raises ConfigError naming the field, what was got and how to mend it.
    """
    tree = _read_toml(path)
    tree.update({k: v for k, v in values.items() if v is not None})
    try:
        settings = Settings(**tree)
        if overrides:
            settings = with_overrides(settings, overrides)
    except ValidationError as error:
        raise _config_error(error) from error
    return settings


def public_dump(settings: Settings) -> dict[str, Any]:
    """The tree as JSON-ready values, with the password of ``database_url`` taken out."""
    tree = settings.model_dump(mode="json")
    if settings.database_url:
        tree["database_url"] = re.sub(r"(://[^:/@]+):[^@]*@", r"\1:***@", settings.database_url)
    return tree


def settings_from_json(text: str) -> Settings:
    """The tree that ``settings.model_dump_json()`` wrote; the environment is not looked at."""
    return _PlainSettings.model_validate_json(text)


def with_overrides(settings: Settings, overrides: list[str]) -> Settings:
    """A copy of ``settings`` with each ``a.b=c`` applied, strongest of all sources."""
    tree = settings.model_dump(mode="json")
    for override in overrides:
        key, separator, raw = override.partition("=")
        if not separator:
            raise ConfigError("--set a.b=c", got=override)
        _assign(tree, key.strip(), raw)
    try:
        return _PlainSettings.model_validate(tree)
    except ValidationError as error:
        raise _config_error(error) from error


def _assign(tree: dict[str, Any], key: str, raw: str) -> None:
    *parents, leaf = key.split(".")
    node: Any = tree
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if not isinstance(node, dict) or leaf not in node:
        raise ConfigError(
            "--set with the name of a setting",
            got=key,
            mend="`tacit config show` lists all of them.",
        )
    node[leaf] = None if raw in {"null", "none"} else raw


def _read_toml(path: Path | None) -> dict[str, Any]:
    chosen = path or Path("tacit.toml")
    if not chosen.exists():
        if path is not None:
            raise ConfigError("a settings file", got=f"{path}, which does not exist")
        return {}
    try:
        return tomllib.loads(chosen.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"TOML in {chosen}", got=str(error)) from error


def _config_error(error: ValidationError) -> ConfigError:
    rows = [
        f"{'.'.join(str(part) for part in row['loc']) or 'settings'}: {row['msg']} "
        f"(got {row.get('input')!r})"
        for row in error.errors()
    ]
    return ConfigError(
        "valid settings",
        got="; ".join(rows),
        mend="`tacit config show` prints every setting with its present value.",
    )
