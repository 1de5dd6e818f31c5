"""Which stream the settings ask for."""

from collector.streams.base import Stream
from collector.streams.embedded import EmbeddedStream
from tacit.config import Settings
from tacit.errors import ConfigError


def open_stream(settings: Settings) -> Stream:
    """The stream of ``settings.collector.stream``.

    Raises ConfigError if Kafka is asked for and kafka-python is not installed.
    """
    if settings.collector.stream == "embedded":
        return EmbeddedStream(settings.home / "stream.db")
    try:
        # kafka-python is an extra, so that the embedded default does without it.
        from collector.streams.kafka import KafkaStream
    except ImportError as error:
        raise ConfigError(
            "kafka-python, which collector.stream = 'kafka' needs",
            got=str(error),
            mend="pip install 'tacit[kafka]'",
        ) from error
    return KafkaStream(settings.collector.kafka)
