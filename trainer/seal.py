"""Sealing a batch: fixing which events, which replay and which parent one update learns from.

Input: screened events in order and a replay sample. Output: a SealedBatch, the manifest that the
rest of the pipeline commits to. ``verify_batch`` checks the inputs of an update against it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from tacit.contracts import (
    BatchEntry,
    Digest,
    ReplayExample,
    ScreenedEvent,
    SealedBatch,
)
from tacit.errors import IntegrityError, InvalidInputError
from tacit.merkle import leaf_hash, merkle_root


def seal_batch(
    events: Sequence[ScreenedEvent],
    *,
    policy: str,
    parent: Digest,
    replay: Sequence[ReplayExample],
    watermark: Mapping[str, int],
    sealed_at: datetime,
    start: Digest | None = None,
) -> SealedBatch:
    """The manifest of one update, events and replay in the order given.

    ``start`` is the checkpoint that training starts from, by default ``parent``.
    Raises InvalidInputError when there is no event, when an event stands twice, or when one belongs
    to another policy line.
    """
    _check_events(events, policy)
    return SealedBatch(
        policy=policy,
        parent=parent,
        start=start if start != parent else None,
        entries=tuple(_entry(event) for event in events),
        replay=tuple(example.digest() for example in replay),
        merkle_root=event_root([event.event_digest for event in events]),
        watermark=dict(watermark),
        sealed_at=sealed_at,
    )


def seal_consolidation(
    *,
    policy: str,
    parent: Digest,
    replay: Sequence[ReplayExample],
    watermark: Mapping[str, int],
    sealed_at: datetime,
) -> SealedBatch:
    """The manifest of a consolidation of ``parent``: no events, replay in the order given."""
    return SealedBatch(
        policy=policy,
        purpose="consolidation",
        parent=parent,
        entries=(),
        replay=tuple(example.digest() for example in replay),
        merkle_root=event_root([]),
        watermark=dict(watermark),
        sealed_at=sealed_at,
    )


def event_root(digests: Sequence[Digest]) -> Digest:
    """RFC 6962 root over the 32 bytes of each digest, in order."""
    leaves = [leaf_hash(bytes.fromhex(digest.removeprefix("sha256:"))) for digest in digests]
    return "sha256:" + merkle_root(leaves).hex()


def verify_batch(
    batch: SealedBatch, events: Sequence[ScreenedEvent], replay: Sequence[ReplayExample]
) -> None:
    """Check that ``events`` and ``replay`` are exactly what ``batch`` names, in its order.

    Raises IntegrityError naming the first difference.
    """
    if len(events) != len(batch.entries):
        raise IntegrityError(
            f"the {len(batch.entries)} events of batch {batch.batch_id}", got=f"{len(events)}"
        )
    for number, (entry, event) in enumerate(zip(batch.entries, events, strict=True)):
        if entry != _entry(event):
            raise IntegrityError(
                f"event {number} of batch {batch.batch_id} to be {entry.event_key} "
                f"({entry.event_digest}, weight {entry.weight})",
                got=f"{event.event_key} ({event.event_digest}, weight {event.weight})",
                mend="Hand over the events as they were sealed, in the same order.",
            )
    verify_replay(batch, replay)
    root = event_root([entry.event_digest for entry in batch.entries])
    if root != batch.merkle_root:
        raise IntegrityError(f"Merkle root {batch.merkle_root} over the events", got=root)


def verify_replay(batch: SealedBatch, replay: Sequence[ReplayExample]) -> None:
    """Check that ``replay`` is what ``batch`` names, in its order. Raises IntegrityError."""
    digests = tuple(example.digest() for example in replay)
    if digests == batch.replay:
        return
    if len(digests) != len(batch.replay):
        raise IntegrityError(
            f"the {len(batch.replay)} replay examples of batch {batch.batch_id}",
            got=f"{len(digests)}",
        )
    number = next(i for i, digest in enumerate(digests) if digest != batch.replay[i])
    raise IntegrityError(
        f"replay example {number} of batch {batch.batch_id} with digest {batch.replay[number]}",
        got=digests[number],
    )


def _entry(event: ScreenedEvent) -> BatchEntry:
    return BatchEntry(
        event_key=event.event_key, event_digest=event.event_digest, weight=event.weight
    )


def _check_events(events: Sequence[ScreenedEvent], policy: str) -> None:
    if not events:
        raise InvalidInputError("at least one event to seal", got="none")
    seen: set[str] = set()
    for event in events:
        if event.policy != policy:
            raise InvalidInputError(
                f"events of policy line {policy}", got=f"{event.event_key} of {event.policy}"
            )
        if event.event_key in seen:
            raise InvalidInputError("every event once", got=f"{event.event_key} twice")
        seen.add(event.event_key)
