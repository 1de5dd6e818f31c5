"""Settings of the collector: HTTP API, stream, screening."""

from typing import Annotated, Literal

from pydantic import Field

from tacit.config.base import Count, Port, Positive, Section, Share
from tacit.contracts.base import Name


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
    max_dead_letters: Count = 100_000
    """Records that could not be taken and are kept; the oldest go first."""
    dead_letter_ttl_s: Positive = 30 * 24 * 3600.0
    """How long they are kept at most: their payloads are not redacted."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """With less of the disk free than this, ``/readyz`` says 503."""
    metrics_public: bool | None = None
    """Whether ``/metrics`` needs no key; by default only where ``host`` is a loopback address and
    no proxy passed the request on. With a key it needs scope ``read``."""
    screening: ScreeningSettings = ScreeningSettings()
