"""What the review pages show, computed from contracts so that the templates only lay it out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gatekeeper.audit import LedgerEntry
from gatekeeper.dossier import LoopStatus
from gatekeeper.plots import points
from tacit.contracts import (
    Criterion,
    EvalReport,
    EventStatus,
    Feedback,
    GateVerdict,
    ItemResult,
    ScreenedEvent,
    VerdictOutcome,
    short,
)
from tacit.cycles import CycleState

MAX_FLIPS = 12
MAX_SAMPLES = 8

HEADLINES = {
    VerdictOutcome.PASS: "Passes the gate",
    VerdictOutcome.FAIL: "Fails the gate",
    VerdictOutcome.INCONCLUSIVE: "Inconclusive",
}

_STAGE_OF_STATE = {
    CycleState.COLLECTING: "collect",
    CycleState.TRAINING: "train",
    CycleState.EVALUATING: "evaluate",
    CycleState.AWAITING_DECISION: "decide",
    CycleState.PROMOTING: "serve",
}


def worst_first(verdict: GateVerdict) -> list[Criterion]:
    """The whole table, with what decided the verdict on top."""
    order = [VerdictOutcome.FAIL, VerdictOutcome.INCONCLUSIVE, VerdictOutcome.PASS]
    return sorted(verdict.criteria, key=lambda row: order.index(row.outcome))


class Flip(NamedTuple):
    """An item on which candidate and champion differ in being right."""

    suite: str
    item: ItemResult


class Flips(NamedTuple):
    """All flips of a report; the first of each are shown."""

    lost: list[Flip]
    gained: list[Flip]


def find_flips(report: EvalReport | None) -> Flips:
    """Items the champion got right and the candidate wrong, and the other way round."""
    flips = [
        Flip(suite.name, item)
        for suite in (() if report is None else report.suites)
        for item in suite.items
        if (item.candidate < 1) != (item.champion < 1)
    ]
    # Non-negotiable items first: they decide, whatever the number of the others.
    flips.sort(key=lambda flip: not flip.item.non_negotiable)
    lost = [flip for flip in flips if flip.item.candidate < 1]
    return Flips(lost, [flip for flip in flips if flip.item.candidate >= 1])


class Lesson(NamedTuple):
    """One feedback event in words."""

    kind: str
    asked: str
    answered: str
    said: str
    subject: str
    weight: float


class Learned(NamedTuple):
    """What a candidate learned from."""

    num_events: int
    num_subjects: int
    kinds: Sequence[tuple[str, int]]
    samples: list[Lesson]


def summarize(events: Sequence[ScreenedEvent]) -> Learned:
    """Counts, and events spread evenly over the batch as samples."""
    step = max(1, len(events) // MAX_SAMPLES)
    return Learned(
        num_events=len(events),
        num_subjects=len({(e.event.source, e.event.subject_id) for e in events}),
        kinds=Counter(e.event.feedback.type for e in events).most_common(),
        samples=[_lesson(event) for event in events[::step][:MAX_SAMPLES]],
    )


def _lesson(event: ScreenedEvent) -> Lesson:
    return Lesson(
        kind=event.event.feedback.type,
        asked=event.interaction.prompt[-1].content,
        answered=event.interaction.completion,
        said=_said(event.event.feedback),
        subject=f"{event.event.source}/{event.event.subject_id}",
        weight=event.weight,
    )


def _said(feedback: Feedback) -> str:
    match feedback.type:
        case "correction":
            return f"should be: {feedback.completion}"
        case "outcome":
            return f"{feedback.metric}: {feedback.value}"
        case "preference":
            return f"better: {feedback.chosen} than: {feedback.rejected}"
        case "rating":
            return f"{feedback.value:g} of {feedback.scale.low:g} to {feedback.scale.high:g}"
        case "critique":
            return feedback.text


class Stage(NamedTuple):
    """One station of the loop, with what is there now."""

    name: str
    title: str
    number: str
    caption: str
    current: bool


def loop_stages(status: LoopStatus, *, num_pending: int) -> list[Stage]:
    """The five stations of the loop with live numbers."""
    current = _STAGE_OF_STATE.get(status.cycle_state or CycleState.COLLECTING, "collect")
    training, measuring = current == "train", current == "evaluate"
    accepted = status.events.get(EventStatus.ACCEPTED, 0)
    weights = "nothing yet" if status.weights is None else short(status.weights)
    stations = [
        ("collect", "Collect", f"{accepted:,}", "events accepted"),
        ("train", "Train", "●" if training else "–", "updating" if training else "idle"),
        ("evaluate", "Evaluate", "●" if measuring else "–", "measuring" if measuring else "idle"),
        ("decide", "Decide", f"{num_pending:,}", "waiting for a person"),
        ("serve", "Serve", _release_number(status.release_id), weights),
    ]
    return [Stage(*station, current=station[0] == current) for station in stations]


def _release_number(release_id: str | None) -> str:
    return "–" if release_id is None else f"#{release_id.rpartition('-')[2]}"


def entry_summary(entry: LedgerEntry) -> str:
    """What an entry records, in a line."""
    body = entry.body()
    if entry.kind == "decision" and isinstance(decision := body.get("decision"), dict):
        return f"{decision['outcome']} by {decision['decided_by']}: {decision['reason']}"
    if entry.kind == "verdict" and isinstance(verdict := body.get("verdict"), dict):
        rows = verdict["criteria"]
        bad = [row["name"] for row in rows if row["outcome"] != VerdictOutcome.PASS]
        return f"{verdict['outcome']}" + (f": {', '.join(bad)}" if bad else "")
    return ", ".join(f"{key}: {_brief(value)}" for key, value in body.items())


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def percent(fraction: float) -> str:
    """An accuracy or a share."""
    return f"{100 * fraction:.1f}%"


def quantity(row: Criterion, value: float | None) -> str:
    """Observed or threshold of a criterion, in the unit of its kind."""
    if value is None:
        return ""
    if row.ci_low is not None:
        return points(value)
    counts = (row.observed or 0.0).is_integer() and (row.threshold or 0.0).is_integer()
    return f"{value:,.0f}" if counts else percent(value)


def safe_link(url: str | None) -> str | None:
    """``url`` if it leads to a web page; anything else (``javascript:``) is not a link."""
    return url if url and urlsplit(url).scheme in {"http", "https"} else None
