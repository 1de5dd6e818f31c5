"""Connections to a Kafka cluster: clients, and errors that say what to check.

A client of kafka-python 3.0.12 that cannot reach its cluster leaves a thread and sockets behind and
says no more than "Unable to bootstrap"; here they are closed, and what the client logged on the way
is told.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from collector.streams.kafka_options import client_options, what_to_check
from tacit.config import KafkaSettings
from tacit.errors import UnavailableError

RECORD_OVERHEAD_BYTES = 512
_BATCH_BYTES = 256 * 1024
_LINGER_MS = 1
_FORCED_S = 5.0
"""For a thread that was told to end, which may first wait for its request's time limit."""


class KafkaConnection:
    """Opens clients of one cluster.

    Raises ConfigError if credentials are missing or a TLS file cannot be used.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._timeout_ms = int(settings.request_timeout_s * 1000)
        self._options = client_options(settings)

    def admin(self) -> Any:
        """A client that makes topics. Raises UnavailableError."""
        return self._open(KafkaAdminClient, {"request_timeout_ms": self._timeout_ms})

    def producer(self) -> Any:
        """A client that appends, idempotent, to all in-sync replicas. Raises UnavailableError."""
        timeout_ms = int(self._settings.delivery_timeout_s * 1000)
        options = {
            # Named, because any other acks turns idempotence off without a word.
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": _LINGER_MS,
            "batch_size": _BATCH_BYTES,
            "max_block_ms": timeout_ms,
            "delivery_timeout_ms": timeout_ms,
            "request_timeout_ms": max(timeout_ms // 2, 1),
            "metrics_enabled": False,
            "max_request_size": self._settings.max_record_bytes + RECORD_OVERHEAD_BYTES,
        }
        return self._open(KafkaProducer, options)

    def consumer(self, *, metadata_max_age_s: float) -> Any:
        """A client that reads committed records from where it is told. Raises UnavailableError."""
        options = {
            # These defaults would lose, invent or skip records here.
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "group_id": None,
            "metrics_enabled": False,
            "request_timeout_ms": self._timeout_ms,
            "metadata_max_age_ms": int(metadata_max_age_s * 1000),
            "max_partition_fetch_bytes": self._settings.max_record_bytes + RECORD_OVERHEAD_BYTES,
        }
        return self._open(KafkaConsumer, options)

    def unavailable(self, error: Exception, *, cause: str = "") -> UnavailableError:
        """What a caller is told of ``error``, with what the client logged as its ``cause``."""
        settings = self._settings
        got = f"{type(error).__name__}: {error}" + (f" ({cause})" if cause else "")
        return UnavailableError(
            f"a Kafka cluster that answers at {settings.bootstrap_servers} "
            f"over {settings.security_protocol}",
            got=got,
            mend=what_to_check(settings, got),
        )

    def _open(self, kind: Callable[..., Any], options: dict[str, Any]) -> Any:
        made: list[Any] = []
        network = KafkaConsumer.DEFAULT_CONFIG["kafka_client"]

        def remember(**configs: Any) -> Any:
            made.append(network(**configs))
            return made[-1]

        with _complaints() as complaints:
            try:
                return kind(**self._options, **options, kafka_client=remember)
            except (KafkaError, OSError) as error:
                for half_made in made:
                    half_made.close()
                # Refused sockets hang in reference cycles of the client, open until they are
                # collected; by itself Python may wait for thousands of them.
                gc.collect()
                raise self.unavailable(error, cause=complaints.telling()) from error


def close_producer(producer: Any, *, timeout_s: float) -> None:
    """Close ``producer`` when all it holds is delivered or given up, or at the time limit.

    What is pending then fails. Left to itself the client would raise, keep its thread, and raise
    again, unheard, when it is collected.
    """
    try:
        producer.close(timeout=timeout_s)
    except KafkaError:
        producer._sender.force_close()
        producer._sender.join(_FORCED_S)
        with suppress(KafkaError):
            producer.close(timeout=_FORCED_S)


class FailTogether:
    """A lock under which something is opened; those who waited for a failure share it.

    Without it a cluster that is away would let a hundred requests wait one timeout after the other.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.lock = threading.RLock()
        """For those who close: a failure to open is nothing to them."""
        self._failed_at = 0.0
        self._failure: UnavailableError | None = None

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Holds the lock. Raises UnavailableError if another caller failed since this one asked."""
        asked_at = self._clock()
        with self.lock:
            if self._failure is not None and self._failed_at > asked_at:
                known = self._failure
                raise UnavailableError(known.expected, got=known.got, mend=known.mend)
            try:
                yield
            except UnavailableError as error:
                self._failure, self._failed_at = error, self._clock()
                raise


class _Complaints(logging.Handler):
    """Keeps what the client logs while it connects."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the text of ``record``."""
        self._texts.append(record.getMessage())

    def telling(self) -> str:
        """The text that says most; a refused login is followed by mere disconnections."""
        for sign in ("SaslAuthentication", "CERTIFICATE", "SSL", "failed"):
            for text in self._texts:
                if sign in text:
                    return text
        return ""


@contextmanager
def _complaints() -> Iterator[_Complaints]:
    logger, handler = logging.getLogger("kafka.net"), _Complaints()
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
