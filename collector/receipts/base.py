"""What receipts are: which events were acknowledged, so that the second sending is answered alike.

A receipt is the memory of an append, committed after it and not synced to disk: were it lost with
the power, the event is still in the stream, and the consumer drops the second copy.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol


class ReceiptBook(Protocol):
    """Receipts by event key; safe to share between threads and processes."""

    def lookup(self, keys: Sequence[str]) -> dict[str, str]:
        """Hashes of the bodies acknowledged or screened under event ``keys``; see ``body_hash``.

        Raises UnavailableError.
        """
        ...

    def write_new(self, body_hashes: Mapping[str, str], append: Callable[[], None]) -> bool:
        """Write receipts of events nobody has sent before, by event key, and ``append`` them.

        Whether they were all new; else nothing was done. ``append`` is called before the receipts
        are committed, so that without it there are none. Raises UnavailableError, and what
        ``append`` raises.
        """
        ...

    def prune(self, *, before_s: int) -> int:
        """Forget receipts written before ``before_s`` (seconds since 1970); how many that was.

        For those of screened events, whose own rows remember them. Raises UnavailableError.
        """
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


def body_hash(body_digest: str) -> str:
    """What a receipt keeps of a ``sha256:`` digest: its first 32 hex digits."""
    return body_digest[7:39]


def key_hash(event_key: str) -> str:
    """What a receipt keeps of an event key. Keys come in random order, so rows are kept small."""
    return hashlib.sha256(event_key.encode()).hexdigest()[:32]
