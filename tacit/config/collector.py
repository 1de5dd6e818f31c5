"""Settings of the collector: HTTP API, stream, screening."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic_settings import NoDecode

from tacit.config.base import Count, Port, Positive, Section, Share
from tacit.contracts.base import Name

TokenLife = Annotated[float, Field(gt=0, le=30 * 24 * 3600)]
Origin = Annotated[str, StringConstraints(pattern=r"^(\*|https?://[a-z0-9.:\[\]-]+)$")]
"""As browsers send it: scheme, host and port in lower case, no path and no slash at the end."""


def _split_at_commas(value: object) -> object:
    # The command line and the environment give one string: ``https://a,https://b``, or JSON.
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.startswith("[") else [v.strip() for v in value.split(",")]


def _from_json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


class QuorumRule(Section):
    """Corrections and preferences that teach only once several people say the same."""

    tag: Name | None = None
    """Which events: those with this tag, such as ``kind``; every event without it."""
    value: str | None = None
    """What the tag must be, such as ``fact``; anything without it."""
    min_subjects: Annotated[int, Field(ge=2)]
    """Distinct subjects who must teach the same answer for the same prompt, near-duplicates
    included."""

    @model_validator(mode="after")
    def _value_of_a_tag(self) -> "QuorumRule":
        if self.value is not None and self.tag is None:
            raise ValueError(f"expected a tag beside value {self.value!r}; got none")
        return self


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
    max_total_events_per_subject: Count = 100
    """Accepted events of one subject over all cycles, trained ones included. Some 250 poisoned
    examples suffice whatever the size of the model (Souly et al. 2025, arXiv 2510.07192)."""
    max_total_events_per_cluster: Count = 100
    """Accepted events of one near-duplicate cluster over all cycles."""
    near_duplicate_similarity: Annotated[float, Field(ge=0.6, le=1)] = 0.7
    """Share of letter triples in common from which on two prompts are one cluster."""
    max_events_per_phrase: Count = 8
    """Corrections that share a phrase and an answer while few people send them, per cycle."""
    min_subjects_per_phrase_share: Share = 0.5
    """Below this ratio of distinct subjects to events, a shared phrase counts as a burst."""
    hold_ttl_s: Positive = 3 * 24 * 3600.0
    """How long feedback waits for the interaction it names."""
    max_held_events: Count = 200
    """Events of one subject that may wait at a time; what comes on top is quarantined."""
    max_held_events_per_source: Count = 100_000
    """Events of one source that may wait at a time: subject ids are the source's own choice."""
    quorum: Annotated[tuple[QuorumRule, ...], NoDecode, BeforeValidator(_from_json)] = ()
    """Rules for what several people must say; of several that match the largest counts."""
    quorum_ttl_s: Positive = 30 * 24 * 3600.0
    """How long an event waits for its quorum."""
    unproven_subject_weight: Share = 0.7
    """Trust weight of a subject's first events; grows to 1 with accepted ones."""


class KafkaSettings(Section):
    """Connection to a Kafka cluster; secrets come from the environment alone.

    TACIT_KAFKA_USER and TACIT_KAFKA_PASSWORD for the SASL protocols, TACIT_KAFKA_KEY_PASSWORD where
    ``ssl_keyfile`` is encrypted.
    """

    bootstrap_servers: str = "127.0.0.1:9092"
    """Comma-separated ``host:port``."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    num_partitions: Count = 4
    """Partitions of topics that Tacit creates."""
    replication_factor: Count = 1
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """For the SASL protocols; user and password are TACIT_KAFKA_USER and TACIT_KAFKA_PASSWORD."""
    ssl_cafile: Path | None = None
    """PEM of the authorities that may vouch for brokers; by default those of the system."""
    ssl_certfile: Path | None = None
    """PEM of the client's certificate chain, where brokers ask for one."""
    ssl_keyfile: Path | None = None
    """PEM of the key of ``ssl_certfile``; by default it stands in the same file."""
    ssl_check_hostname: bool = True
    """Whether a broker's certificate must name the host that was asked for."""
    bootstrap_timeout_s: Positive = 10.0
    """How long the cluster may take to answer the first time."""
    delivery_timeout_s: Positive = 15.0
    """How long an append may take before it fails as unavailable."""
    request_timeout_s: Positive = 10.0
    """How long a read waits for an answer of the cluster before it fails as unavailable."""
    max_record_bytes: Count = 1_000_000
    """Events larger than this are refused; the broker's message.max.bytes must allow it."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "KafkaSettings":
        files = {"ssl_cafile", "ssl_certfile", "ssl_keyfile"}
        given = sorted(name for name in files if getattr(self, name) is not None)
        if given and not self.security_protocol.endswith("SSL"):
            raise ValueError(
                f"expected security_protocol SSL or SASL_SSL beside {', '.join(given)}; got "
                f"{self.security_protocol}"
            )
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("expected ssl_certfile beside ssl_keyfile; got none")
        return self


class MetricSettings(Section):
    """An outcome metric."""

    type: Literal["bool", "float"]
    """``float`` is a number in [-1, 1]."""
    better: Literal["higher", "lower"] = "higher"
    """Which way is better: ``higher`` for "resolved", ``lower`` for "escalated"."""

    def reward(self, value: bool | float) -> float:
        """``value`` as a reward in [-1, 1], of which more is better."""
        signed = float(value) if not isinstance(value, bool) else (1.0 if value else -1.0)
        return signed if self.better == "higher" else -signed


def _metric_of_type(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


class CollectorSettings(Section):
    """HTTP API, stream and screening."""

    host: str = "127.0.0.1"
    port: Port = 8000
    """Feedback API and review pages."""
    stream: Literal["embedded", "kafka"] = "embedded"
    kafka: KafkaSettings = KafkaSettings()
    topic_prefix: Name = "tacit"
    """Topics are ``<prefix>.feedback`` and ``<prefix>.interactions``."""
    stream_retention_s: Positive = 3600.0
    """How long the embedded stream keeps what is screened, as it was sent and unredacted."""
    max_events_per_request: Count = 1_000
    max_request_bytes: Count = 5 * 1024 * 1024
    max_event_bytes: Count = 1_000_000
    """One event, as JSON without white space. Kafka's ``max_record_bytes`` must allow it."""
    metrics: dict[Name, Annotated[MetricSettings, BeforeValidator(_metric_of_type)]] = {
        "resolved": MetricSettings(type="bool")
    }
    """Outcome metrics that products may report; any other is refused. ``"bool"`` and ``"float"``
    stand for a metric of that type of which more is better."""
    max_dead_letters: Count = 100_000
    """Records that could not be taken and are kept; the oldest go first."""
    dead_letter_ttl_s: Positive = 30 * 24 * 3600.0
    """How long they are kept at most: their payloads are not redacted."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """With less of the disk free than this, ``/readyz`` says 503."""
    metrics_public: bool | None = None
    """Whether ``/metrics`` needs no key; by default only where ``host`` is a loopback address and
    no proxy passed the request on. With a key it needs scope ``read``."""
    rate_limit_per_s: Positive | None = None
    """Events a second that a key may send if it has no limit of its own; None for no limit. Each
    process of the control API counts for itself."""
    rate_limit_burst_s: Positive = 10.0
    """Seconds' worth of events that a key which was silent may send at once."""
    token_ttl_s: TokenLife = 3600.0
    """How long a feedback token lives if its request does not say."""
    token_max_ttl_s: TokenLife = 24 * 3600.0
    """How long it may live at most."""
    token_rate_limit_per_s: Positive = 1.0
    """Events a second of one token, within the limit of the key that issued it."""
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split_at_commas)] = ()
    """Web origins whose pages may send feedback, such as https://shop.example; ``*`` for all."""
    screening: ScreeningSettings = ScreeningSettings()

    @model_validator(mode="after")
    def _events_fit_records(self) -> "CollectorSettings":
        if self.stream == "kafka" and self.max_event_bytes > self.kafka.max_record_bytes:
            raise ValueError(
                f"expected max_event_bytes <= kafka.max_record_bytes; got {self.max_event_bytes} "
                f"> {self.kafka.max_record_bytes}"
            )
        return self

    @model_validator(mode="after")
    def _token_life_fits(self) -> "CollectorSettings":
        if self.token_ttl_s > self.token_max_ttl_s:
            raise ValueError(
                f"expected token_ttl_s <= token_max_ttl_s; got {self.token_ttl_s} > "
                f"{self.token_max_ttl_s}"
            )
        return self
