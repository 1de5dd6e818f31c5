"""Records of one chunk as they were sent: what each says, and which of them are new."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.orm import Session

from collector.parse import body_of, parse_event, require_admissible
from collector.reasons import Reason
from collector.redaction.redact import redact_event
from collector.screening.counters import DUPLICATE, ScreeningCounts
from collector.screening.event_rows import known_bodies
from collector.streams import StreamRecord
from collector.triage.dead_letters import bury
from tacit.config import Settings
from tacit.contracts import FeedbackEvent
from tacit.errors import InvalidInputError


class Sent(NamedTuple):
    """One record and what it says."""

    record: StreamRecord
    event: FeedbackEvent | None
    """Redacted; None if the record does not parse."""
    body_digest: str
    """Of the event as sent."""
    refusal: InvalidInputError | None
    """Why it does not parse, or why this service does not take it."""


def read(record: StreamRecord, settings: Settings) -> Sent:
    """Parse and redact ``record``; needs no database."""
    try:
        event = parse_event(record.value)
    except InvalidInputError as error:
        return Sent(record, None, "", error)
    refusal = None
    try:
        require_admissible(event, settings)
    except InvalidInputError as error:
        refusal = error
    return Sent(record, redact_event(event), body_of(event)[1], refusal)


def new_ones(
    session: Session, sent: Sequence[Sent], *, counts: ScreeningCounts, now: datetime
) -> list[tuple[Sent, FeedbackEvent]]:
    """Those whose key is new. The same body again is a retry; another body a conflict.

    What does not parse and what conflicts goes to dead letter; ``counts`` has all that is left out.
    """
    known = known_bodies(session, {s.event.event_key for s in sent if s.event is not None})
    fresh: dict[str, tuple[Sent, FeedbackEvent]] = {}
    for each in sent:
        if each.event is None:
            _bury(session, each, Reason.UNPARSABLE, str(each.refusal), counts=counts, now=now)
            continue
        key = each.event.event_key
        if key in fresh and fresh[key][0].refusal is not None:
            # Here as in another chunk: a dead letter is no answer, what comes next is judged.
            bury_inadmissible(session, fresh.pop(key)[0], counts=counts, now=now)
            del known[key]
        first = known.setdefault(key, "")
        if not first:
            known[key] = each.body_digest
            fresh[key] = (each, each.event)
        elif first == each.body_digest:
            counts.add(DUPLICATE, Reason.RETRY)
        else:
            detail = f"{key} was sent before with another body"
            _bury(session, each, Reason.CONFLICT, detail, counts=counts, now=now)
    return list(fresh.values())


def bury_inadmissible(
    session: Session, sent: Sent, *, counts: ScreeningCounts, now: datetime
) -> None:
    """Keep what this service does not take as a dead letter, with its reason, and count it."""
    _bury(session, sent, Reason.INADMISSIBLE, str(sent.refusal), counts=counts, now=now)


def _bury(
    session: Session,
    sent: Sent,
    reason: Reason,
    detail: str,
    *,
    counts: ScreeningCounts,
    now: datetime,
) -> None:
    bury(session, sent.record, reason=reason, detail=detail, now=now)
    counts.add_dead_letter(reason)
