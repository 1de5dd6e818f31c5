"""Delivery of drafts: ask what is there already, send the rest, write down what is refused.

In: drafts, a few hundred at a time. Out: a tally, and a line of JSON in the file of rejects for
each that cannot be taken, with its line or trace and the reason.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from collector.client import Rejection, TacitClient
from tacit.contracts import FeedbackEvent
from tacit.errors import (
    ConflictError,
    InvalidInputError,
    NotAllowedError,
    TacitError,
    TooLargeError,
)
from tacit.imports.bookmark import Tally
from tacit.remote import Remote

CHUNK = 500
"""Drafts delivered together; at most the 1,000 the service answers about at once."""
FLUSH_TIMEOUT_S = 120.0
_NOT_LET_IN = frozenset({"401", "403"})


class Draft(NamedTuple):
    """Something that may become an event."""

    where: dict[str, Any]
    """For a person: the line, or the trace and the assessment."""
    event_key: str | None
    """``source/event_id``; None if there is no telling."""
    named: bool
    """Whether the sender picked the id: then what is there under it may be something else."""
    build: Callable[[], FeedbackEvent]
    """Makes the event. Raises InvalidInputError."""
    original: str
    """What it is made from, for the file of rejects."""


class Rejects:
    """The file of rejects; it appears with the first of them."""

    def __init__(self, path: Path, *, keep_bytes: int) -> None:
        """``keep_bytes``: how much of a file from before belongs to work that stays done."""
        self.path = path
        self.num_bytes = 0
        if path.exists():
            # It may be shorter: people tidy it up.
            self.num_bytes = min(keep_bytes, path.stat().st_size)
            with path.open("r+b") as file:
                file.truncate(self.num_bytes)

    def write(self, drafts: Sequence[tuple[Draft, dict[str, Any]]]) -> None:
        """Add drafts, each with the fields of its error."""
        if not drafts:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            for draft, error in drafts:
                row = {**draft.where, "error": error, "original": draft.original}
                self.num_bytes += file.write(json.dumps(row).encode() + b"\n")


class Delivery:
    """Sends drafts to one service. Use as a context manager."""

    def __init__(self, remote: Remote, rejects: Rejects, *, source: str) -> None:
        self._remote = remote
        self._rejects = rejects
        self._source = source
        self._refused: dict[str, Rejection] = {}
        self._client = TacitClient(
            remote.url, api_key=remote.key, source=source, on_rejected=self._on_rejected
        )

    def __enter__(self) -> "Delivery":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._client.close(FLUSH_TIMEOUT_S)
            return
        # What is not acknowledged is sent by the next run, and the error at hand says why.
        with suppress(TacitError):
            self._client.close(0.0)

    def deliver(self, drafts: Sequence[Draft]) -> Tally:
        """Send what is not there yet; returns once it is durable.

        Raises UnavailableError and RemoteError if the service is away, NotAllowedError if it
        refuses the key: then deliver the same drafts again later.
        """
        self._refused.clear()
        known = self._known([d.event_key for d in drafts if d.event_key is not None])
        sent: dict[str, FeedbackEvent] = {}
        errors: dict[int, dict[str, Any]] = {}
        places: dict[str, int] = {}
        for number, draft in enumerate(drafts):
            if draft.event_key in known and not draft.named:
                continue
            try:
                event = draft.build()
                if _is_first(event, sent):
                    self._client.send(event)
                    sent[event.event_key] = event
                    places[event.event_key] = number
            except (InvalidInputError, TooLargeError, ConflictError) as error:
                errors[number] = error_fields(error)
        refused = self._settle()
        self._require_own_source(sent, refused)
        errors |= {places[key]: error for key, error in refused.items()}
        self._rejects.write([(drafts[number], errors[number]) for number in sorted(errors)])
        num_imported = len(sent.keys() - refused.keys() - known)
        return Tally(
            imported=num_imported,
            rejected=len(errors),
            already_there=len(drafts) - num_imported - len(errors),
        )

    def _known(self, event_keys: list[str]) -> set[str]:
        if not event_keys:
            return set()
        answer = self._remote.post("/v1/feedback/known", {"events": event_keys})
        return set(answer["known"])

    def _settle(self) -> dict[str, dict[str, Any]]:
        """Wait for the answers; errors by key of the event refused."""
        # The errors it raises for are those that _on_rejected was told of.
        with suppress(InvalidInputError):
            self._client.flush(FLUSH_TIMEOUT_S)
        for rejection in self._refused.values():
            if rejection.status in _NOT_LET_IN:
                got = f"HTTP {rejection.status}: {rejection.error.get('got', '')}"
                raise NotAllowedError("a key that may send these events", got=got)
        return {key: rejection.error for key, rejection in self._refused.items()}

    def _require_own_source(
        self, sent: Mapping[str, FeedbackEvent], refused: Mapping[str, dict[str, Any]]
    ) -> None:
        """Raises NotAllowedError if the key may not send as the import's own source.

        A row that names another source is the row's fault alone.
        """
        own = [key for key, event in sent.items() if event.source == self._source]
        errors = [refused.get(key, {}) for key in own]
        if errors and all(error.get("type") == NotAllowedError.__name__ for error in errors):
            first = errors[0]
            raise NotAllowedError(first["expected"], got=first["got"], mend=first["mend"])

    def _on_rejected(self, rejection: Rejection, body: bytes) -> None:
        self._refused[FeedbackEvent.model_validate_json(body).event_key] = rejection


def _is_first(event: FeedbackEvent, sent: Mapping[str, FeedbackEvent]) -> bool:
    """Whether nothing was sent under its id yet. Raises ConflictError if something else was."""
    first = sent.get(event.event_key)
    if first is not None and first != event:
        raise ConflictError("one body under one event_id", got=f"another {event.event_id} above")
    return first is None


def error_fields(error: TacitError) -> dict[str, Any]:
    """The fields of ``error``, in the form in which the service gives them."""
    return {
        "type": type(error).__name__,
        "expected": error.expected,
        "got": error.got,
        "mend": error.mend,
    }
