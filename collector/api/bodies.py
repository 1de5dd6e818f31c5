"""Request bodies: read within a limit, unpacked, and cut into events.

In: a request of the feedback API. Out: the bytes of each event and how to read them: plain events
and CloudEvents, one or many.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pydantic_core
from starlette.requests import Request

from collector.api.cloud_events import binary_attributes, parse_binary, parse_structured
from collector.parse import parse_event
from tacit.contracts import FeedbackEvent
from tacit.errors import InvalidInputError, TooLargeError, UnsupportedMediaTypeError

_GZIP = 16 + zlib.MAX_WBITS


class Body(NamedTuple):
    """What a request carries."""

    items: Sequence[bytes]
    parse: Callable[[bytes], FeedbackEvent]
    """Reads one of ``items``. Raises InvalidInputError."""
    single: bool
    """One event by itself, which is answered by itself."""


async def read_body(request: Request, *, limit_bytes: int) -> bytes:
    """The body, unpacked if it came with ``Content-Encoding: gzip``.

    Raises TooLargeError as soon as ``limit_bytes`` is passed, packed or unpacked, not when all of
    it came; UnsupportedMediaTypeError for another encoding; InvalidInputError for a body that is
    not what it says.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaTypeError("Content-Encoding gzip or none", got=encoding)
    if int(_length(request)) > limit_bytes:
        raise _too_large(limit_bytes)
    chunks: list[bytes] = []
    num_bytes = 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        if num_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        chunks.append(chunk)
    raw = b"".join(chunks)
    return _unpacked(raw, limit_bytes) if encoding == "gzip" else raw


def split_body(raw: bytes, request: Request) -> Body:
    """Cut ``raw`` into events by what the headers say it is. Raises InvalidInputError."""
    kind = request.headers.get("content-type", "").lower()
    if "cloudevents-batch+json" in kind:
        return Body(_array(raw), parse_structured, single=False)
    if "cloudevents+json" in kind:
        return Body([raw], parse_structured, single=True)
    if "ce-specversion" in request.headers:
        attributes = binary_attributes(request.headers)
        return Body([raw], partial(parse_binary, attributes), single=True)
    if "ndjson" in kind or "jsonl" in kind:
        return Body(_lines(raw), parse_event, single=False)
    if raw.lstrip()[:1] == b"[":
        return Body(_array(raw), parse_event, single=False)
    return Body([raw], parse_event, single=True)


def _length(request: Request) -> str:
    declared = request.headers.get("content-length", "0")
    return declared if declared.isascii() and declared.isdigit() else "0"


def _too_large(limit_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"a body of at most {limit_bytes} bytes", got="more", mend="Send smaller batches."
    )


def _unpacked(raw: bytes, limit_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        # Bounded, because a few packed kilobytes can stand for gigabytes.
        unpacked = unpacker.decompress(raw, limit_bytes + 1)
    except zlib.error as error:
        raise InvalidInputError("a gzip body", got=str(error)) from error
    if len(unpacked) > limit_bytes:
        raise _too_large(limit_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidInputError("one whole gzip member", got="a body that is cut or goes on")
    return unpacked


def _lines(raw: bytes) -> list[bytes]:
    # On line feeds alone: bytes.splitlines would also cut at others, which JSON may hold.
    lines = [line for line in raw.split(b"\n") if line.strip()]
    if not lines:
        raise InvalidInputError("at least one event", got="none")
    return lines


def _array(raw: bytes) -> list[bytes]:
    try:
        parsed: Any = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInputError(
            "a JSON array of events", got=str(error), mend="NaN and infinity are not JSON."
        ) from error
    if not isinstance(parsed, list) or not parsed:
        got = repr(parsed)[:80] if parsed else "none"
        raise InvalidInputError("a JSON array of at least one event", got=got)
    return [pydantic_core.to_json(item) for item in parsed]
