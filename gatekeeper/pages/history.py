"""What happened to one event of feedback, from when it was said to where it is served."""

from datetime import datetime
from typing import NamedTuple

from gatekeeper.desks import EventView, FeedbackDesk
from gatekeeper.logbook import Logbook
from gatekeeper.pages.words import STATUS_WORDS, entry_summary
from tacit.contracts import EventStatus


class Step(NamedTuple):
    """One thing that happened to an event."""

    title: str
    text: str
    when: datetime | None = None
    path: str | None = None
    """Where more is said about it."""


def history(view: EventView, feedback: FeedbackDesk, logbook: Logbook) -> list[Step]:
    """What happened to an event, oldest first."""
    event = view.event
    steps = [
        Step("Said", f"by {event.subject_id} in {event.source}", event.occurred_at),
        Step("Received", _lateness(view), view.received_at),
    ]
    entries = logbook.about_event(view.key)
    learned = [] if view.batch_id is None else _carriers(view.batch_id, feedback)
    if learned:
        steps += [Step("Screened", _accepted(view)), *learned]
    steps += [
        Step("Decided", entry_summary(entry), entry.created_at, f"/audit/{entry.sequence}")
        for entry in entries
    ]
    if not learned or view.status is not EventStatus.ACCEPTED:
        steps.append(Step("Stands as" if learned or entries else "Screened", _standing(view)))
    return steps


def _carriers(batch_id: str, feedback: FeedbackDesk) -> list[Step]:
    carried = feedback.carried_by(batch_id)
    steps = [Step("Sealed", f"into batch {batch_id}")]
    for candidate in carried["candidates"]:
        state = (candidate["state"] or "unknown").replace("_", " ")
        name = candidate["candidate_id"]
        steps.append(Step("Learned", f"by {name}: {state}", path=f"/candidates/{name}"))
    for release in reversed(carried["releases"]):
        state = release["state"].replace("_", " ")
        since = datetime.fromisoformat(release["since"])
        text = f"in {release['release_id']}: {state}"
        steps.append(Step("Served", text, since, "/releases"))
    return steps


def _accepted(view: EventView) -> str:
    doubts = view.detail if view.status is EventStatus.ACCEPTED and view.detail else ""
    return f"accepted; {doubts}" if doubts else "accepted"


def _standing(view: EventView) -> str:
    status = STATUS_WORDS[view.status]
    because = f" as {view.reason.replace('_', ' ')}" if view.reason else ""
    return f"{status}{because}" + (f": {view.detail}" if view.detail else "")


def _lateness(view: EventView) -> str:
    late_s = (view.received_at - view.event.occurred_at).total_seconds()
    return "by the collector" if late_s < 60 else f"by the collector, {late_s / 3600:.1f} h later"
