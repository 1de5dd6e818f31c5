"""DeadLetters: look at records that could not be taken, replay them into the stream, or drop them.

Replaying appends the payload, as it is or mended, to the end of its topic, and marks the letter.
What becomes of the new record is the consumer's business: a schema that was fixed or a metric that
was declared since lets it in, and what is still bad becomes a new dead letter. A crash between the
append and the mark leaves a letter that is replayed once more, and the consumer drops the second
record by its key.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    SQLColumnExpression,
    delete,
    func,
    select,
    tuple_,
    update,
)

from collector.ingest import interactions_topic
from collector.parse import parse_event, parse_interaction
from collector.reasons import Reason
from collector.streams import Stream
from collector.tables import DeadLetterRow
from collector.triage.dead_letters import MAX_PAYLOAD_BYTES, PLACE, Place, letter_id
from tacit.config import Settings
from tacit.contracts import utc_now
from tacit.database import Database
from tacit.errors import ConflictError, InvalidInputError, NotFoundError, TooLargeError

MAX_LETTERS = 1_000
"""Letters that one call replays or drops."""
_CHUNK = 64
"""Letters in memory at once: each has up to a MiB."""


ReplayStatus = Literal["replayed", "already_replayed", "too_large", "unknown"]


class Letter(NamedTuple):
    """One dead letter, or the beginning of it."""

    place: Place
    payload: bytes
    num_bytes: int
    """Of the payload that is kept; more than ``payload`` has where only the beginning was asked."""
    reason: str
    detail: str
    occurred_at: datetime
    replayed_at: datetime | None


class Replayed(NamedTuple):
    """What a replay did with one letter."""

    place: Place
    status: ReplayStatus


class DeadLetters:
    """The dead letters of one service; safe to share between threads."""

    def __init__(
        self,
        database: Database,
        stream: Stream,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._stream = stream
        self._interactions_topic = interactions_topic(settings)
        self._clock = clock

    def page(
        self,
        *,
        reason: str | None = None,
        replayed: bool = False,
        after: Place | None = None,
        limit: int = 100,
        num_payload_bytes: int = 1_024,
    ) -> list[Letter]:
        """Letters with the first bytes of their payloads, newest of each partition first.

        ``replayed``: those that were replayed as well. ``after``: the last of the page before.
        """
        wanted: list[ColumnElement[bool]] = []
        if not replayed:
            wanted.append(DeadLetterRow.replayed_at.is_(None))
        if reason is not None:
            wanted.append(DeadLetterRow.reason == reason)
        if after is not None:
            wanted.append(tuple_(*PLACE) < tuple_(*after))
        # SQLite takes no bytes of an empty value for NULL.
        beginning = func.coalesce(func.substr(DeadLetterRow.payload, 1, num_payload_bytes), b"")
        query = _letters(beginning).where(*wanted)
        newest_first = [column.desc() for column in PLACE]
        with self._database.reader() as session:
            rows = session.execute(query.order_by(*newest_first).limit(limit)).all()
        return [_letter(row) for row in rows]

    def get(self, place: Place) -> Letter:
        """One letter, whole. Raises NotFoundError."""
        with self._database.reader() as session:
            row = session.execute(_letters(DeadLetterRow.payload).where(_at(place))).first()
        if row is None:
            raise NotFoundError("a dead letter", got=letter_id(place))
        return _letter(row)

    def find(self, *, reason: str | None, until: datetime, unreplayed: bool) -> list[Place]:
        """The oldest letters buried ``until`` then, up to a thousand; of any reason if None."""
        wanted = [DeadLetterRow.occurred_at <= until]
        if reason is not None:
            wanted.append(DeadLetterRow.reason == reason)
        if unreplayed:
            wanted += [
                DeadLetterRow.replayed_at.is_(None),
                DeadLetterRow.reason != Reason.TOO_LARGE,
            ]
        query = select(*PLACE).where(*wanted).order_by(*PLACE).limit(MAX_LETTERS)
        with self._database.reader() as session:
            return [Place(*row) for row in session.execute(query)]

    def replay(self, places: Sequence[Place]) -> list[Replayed]:
        """Put letters back into the stream in their old order, each once however often asked for.

        Raises UnavailableError: then some may have been, and asking again is right.
        """
        in_order = sorted(set(places))
        done: dict[Place, Replayed] = {}
        for start in range(0, len(in_order), _CHUNK):
            for replayed in self._replay_chunk(in_order[start : start + _CHUNK]):
                done[replayed.place] = replayed
        return [done[place] for place in places]

    def replay_mended(self, place: Place, payload: bytes) -> Replayed:
        """Put a letter back with another payload.

        Raises NotFoundError, ConflictError if it was replayed before, TooLargeError.
        """
        if self.get(place).replayed_at is not None:
            raise ConflictError(
                "a dead letter that was not replayed yet",
                got=letter_id(place),
                mend="If it failed again there is a new letter; mend that one.",
            )
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise TooLargeError(
                f"a payload of at most {MAX_PAYLOAD_BYTES} bytes", got=str(len(payload))
            )
        self._append({place: payload})
        self._mark([place])
        return Replayed(place, "replayed")

    def drop(self, places: Sequence[Place]) -> int:
        """Delete letters; how many there were."""
        num_dropped = 0
        for start in range(0, len(places), MAX_LETTERS):
            chosen = tuple_(*PLACE).in_(places[start : start + MAX_LETTERS])
            with self._database.session() as session:
                done = session.execute(delete(DeadLetterRow).where(chosen))
            num_dropped += done.rowcount  # type: ignore[attr-defined]
        return num_dropped

    def _replay_chunk(self, places: Sequence[Place]) -> list[Replayed]:
        query = _letters(DeadLetterRow.payload).where(tuple_(*PLACE).in_(places))
        with self._database.reader() as session:
            letters = {letter.place: letter for letter in map(_letter, session.execute(query))}
        done = [Replayed(place, _what_to_do(letters.get(place))) for place in places]
        payloads = {p: letters[p].payload for p, status in done if status == "replayed"}
        if payloads:
            self._append(payloads)
            self._mark(list(payloads))
        return done

    def _append(self, payloads: dict[Place, bytes]) -> None:
        for topic in dict.fromkeys(place.topic for place in payloads):
            records = [
                (self._key(place, payload), payload)
                for place, payload in payloads.items()
                if place.topic == topic
            ]
            self._stream.append(topic, records)

    def _mark(self, places: Sequence[Place]) -> None:
        chosen = (tuple_(*PLACE).in_(places), DeadLetterRow.replayed_at.is_(None))
        with self._database.session() as session:
            session.execute(update(DeadLetterRow).where(*chosen).values(replayed_at=self._clock()))

    def _key(self, place: Place, payload: bytes) -> str:
        """The key it would have been sent with, so that one person's feedback keeps its order."""
        try:
            if place.topic == self._interactions_topic:
                said = parse_interaction(payload)
                return f"{said.source}/{said.subject_id or said.interaction_id}"
            event = parse_event(payload)
            return f"{event.source}/{event.subject_id}"
        except InvalidInputError:
            return letter_id(place)


def _letters(payload: SQLColumnExpression[bytes]) -> Select[Any]:
    row = DeadLetterRow
    num_bytes = func.length(row.payload)
    return select(
        *PLACE, payload, num_bytes, row.reason, row.detail, row.occurred_at, row.replayed_at
    )


def _letter(row: Sequence[Any]) -> Letter:
    topic, partition, offset, payload, num_bytes, reason, detail, occurred_at, replayed_at = row
    place = Place(topic, partition, offset)
    return Letter(place, payload, num_bytes, reason, detail, occurred_at, replayed_at)


def _at(place: Place) -> ColumnElement[bool]:
    return tuple_(*PLACE) == tuple_(*place)


def _what_to_do(letter: Letter | None) -> ReplayStatus:
    if letter is None:
        return "unknown"
    if letter.replayed_at is not None:
        return "already_replayed"
    return "too_large" if letter.reason == Reason.TOO_LARGE else "replayed"
