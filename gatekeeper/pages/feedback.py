"""Feedback: searching it, the history of one event, and ruling on the quarantine.

Who may not review sees nothing of what is quarantined, as in the API; a key bound to a source sees
that source's events alone.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response

from gatekeeper.desks import FeedbackDesk, FeedbackQuery, Verb
from gatekeeper.logbook import Logbook
from gatekeeper.pages.history import history
from gatekeeper.pages.route import Field, Word, go, plain, render
from gatekeeper.pages.visits import Visits, may_review
from gatekeeper.pages.words import STATUS_WORDS
from gatekeeper.refusals import require_text
from gatekeeper.sessions import Login
from tacit.contracts import EventStatus
from tacit.errors import InvalidInputError, NotFoundError
from tacit.keys import Scope

KINDS = ("correction", "preference", "outcome", "rating", "critique")
SHOWN = tuple(status for status in EventStatus if status is not EventStatus.QUEUED)
"""Statuses an event can have once it is screened."""


def add_feedback(
    router: APIRouter, visits: Visits, feedback: FeedbackDesk, logbook: Logbook
) -> None:
    """``/feedback``, ``/feedback/SOURCE/EVENT`` and the form of the quarantine."""

    @router.get("/feedback")
    def search(
        request: Request,
        q: Word = "",
        status: Word = "",
        reason: Word = "",
        kind: Word = "",
        source: Word = "",
        subject: Word = "",
        after: Word = "",
        done: int = 0,
    ) -> Response:
        login = visits.reader(request)
        mine = login.principal.source
        login.principal.require_target(source=source or None)
        asked = {"q": q, "status": status, "reason": reason, "kind": kind}
        asked |= {"source": source, "subject": subject}
        asked = {name: text for name, text in asked.items() if text}
        wanted = FeedbackQuery(
            text=asked.get("q"),
            status=_status(status),
            reason=asked.get("reason"),
            kind=asked.get("kind"),
            source=asked.get("source") or mine,
            subject=asked.get("subject"),
            after=after or None,
            hidden=_hidden(login),
        )
        page = feedback.search(wanted)
        return render(
            "feedback.html",
            login=login,
            asked=asked,
            page_of_events=page.events,
            older=_link({**asked, "after": page.next}) if page.next else None,
            newest=_link(asked) if after else None,
            here=_link({**asked, "after": after}),
            tabs=_tabs(feedback, login, current=wanted.status),
            reasons=_reasons(feedback, login) if wanted.status is EventStatus.QUARANTINED else [],
            kinds=KINDS,
            done=max(0, done),
            may_review=may_review(login),
        )

    @router.get("/feedback/{source}/{event_id}")
    def one_event(source: str, event_id: str, request: Request) -> Response:
        login = visits.reader(request)
        login.principal.require_target(source=source)
        view = feedback.event(plain(f"{source}/{event_id}"))
        if view.status in _hidden(login):
            login.principal.require(Scope.REVIEW)
        return render(
            "event.html",
            login=login,
            view=view,
            history=history(view, feedback, logbook),
            may_review=may_review(login),
            here=f"/feedback/{view.key}",
        )

    @router.post("/feedback/{verb}")
    def rule(
        verb: str,
        request: Request,
        events: Annotated[list[str] | None, Form()] = None,
        every: Annotated[list[str] | None, Form()] = None,
        whole: Field = "",
        reason: Field = "",
        back: Field = "/feedback",
        csrf: Field = "",
    ) -> Response:
        login = visits.reviewer(request, csrf)
        require_text(by=login.principal.name, reason=reason)
        chosen = [plain(key) for key in ((every if whole else events) or [])]
        if not chosen:
            raise InvalidInputError("at least one event", got="none", mend="Tick the events first.")
        rulings = feedback.rule(_verb(verb), chosen, by=login.principal, why=reason.strip())
        refused = [ruling for ruling in rulings if ruling.refusal is not None]
        if refused:
            return render(
                "rulings.html", code=409, login=login, rulings=rulings, refused=refused, verb=verb
            )
        return go(_back(back, num_done=len(rulings)))


class Tab(NamedTuple):
    """One status with the number of events in it."""

    title: str
    number: int
    path: str
    current: bool


def _tabs(feedback: FeedbackDesk, login: Login, *, current: EventStatus | None) -> list[Tab]:
    counts = feedback.counts(source=login.principal.source)
    shown = [s for s in SHOWN if s not in _hidden(login) and (counts.get(s) or s is current)]
    total = sum(counts.get(status, 0) for status in shown)
    tabs = [Tab("all", total, "/feedback", current is None)]
    return tabs + [
        Tab(STATUS_WORDS[s], counts.get(s, 0), _link({"status": s.value}), s is current)
        for s in shown
    ]


def _reasons(feedback: FeedbackDesk, login: Login) -> list[Tab]:
    found = feedback.reasons(source=login.principal.source).items()
    return [
        Tab(name.replace("_", " "), number, _link({"status": "quarantined", "reason": name}), False)
        for name, number in sorted(found, key=lambda pair: -pair[1])
    ]


def _hidden(login: Login) -> frozenset[EventStatus]:
    return frozenset() if may_review(login) else frozenset({EventStatus.QUARANTINED})


def _status(text: str) -> EventStatus | None:
    if not text:
        return None
    try:
        return EventStatus(text)
    except ValueError as error:
        names = ", ".join(SHOWN)
        raise NotFoundError(f"a status, one of {names}", got=repr(text)) from error


def _verb(text: str) -> Verb:
    if text == "release":
        return "release"
    if text == "drop":
        return "drop"
    raise NotFoundError("release or drop", got=repr(text))


def _link(asked: Mapping[str, str | None]) -> str:
    return f"/feedback?{urlencode({k: v for k, v in asked.items() if v})}"


def _back(path: str, *, num_done: int) -> str:
    """Where the form was; anywhere else could be another site."""
    if path.startswith("/feedback/"):
        return path
    asked = path.removeprefix("/feedback?") if path.startswith("/feedback?") else ""
    return f"/feedback?{asked}{'&' if asked else ''}done={num_done}"
