"""Streams carry events and interactions from the API to the screening consumer."""

from collector.streams.base import Stream, StreamRecord
from collector.streams.open import open_stream

__all__ = ["Stream", "StreamRecord", "open_stream"]
