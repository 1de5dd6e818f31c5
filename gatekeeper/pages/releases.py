"""Releases: what serves, how far a change has come, what served before, rolling back and out."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from gatekeeper.cases import Case
from gatekeeper.decide import Gatekeeper
from gatekeeper.desks import ReleaseControl, Replica
from gatekeeper.logbook import Logbook
from gatekeeper.pages.route import Field, go, render
from gatekeeper.pages.visits import Visits, may_review
from gatekeeper.refusals import require_text
from tacit.contracts import Digest, Release
from tacit.contracts.base import Name
from tacit.errors import ConflictError

NO_REASON = "rolled back on the review page, no reason given"


class Era(NamedTuple):
    """One release, and how long it served."""

    release: Release
    state: str
    """``serving``, ``rolling out``, ``replaced`` or ``rolled back``."""
    how: str
    """How it came to serve, in words."""
    reason: str | None
    """Of a rollback."""
    case: Case | None
    """The candidate's, where the weights came through the gate."""
    lasted: timedelta
    goes_back_to: bool
    """Whether one can roll back to it: its weights are not those that serve."""


class Uptake(NamedTuple):
    """How many replicas have the newest release, alone or as their canary."""

    num_serving: int
    num_alive: int
    replicas: Sequence[Replica]


def add_releases(
    router: APIRouter,
    visits: Visits,
    gatekeeper: Gatekeeper,
    control: ReleaseControl,
    logbook: Logbook,
    *,
    policy: Name,
    clock: Callable[[], datetime],
) -> None:
    """``/releases`` and the form that rolls back."""

    @router.get("/releases")
    def timeline(request: Request) -> Response:
        login = visits.reader(request)
        releases, rollout = control.releases(), control.rollout()
        cases, reasons = _cases(gatekeeper, policy), _reasons(logbook, releases)
        return render(
            "releases.html",
            login=login,
            eras=_eras(releases, cases, reasons, clock(), rolling=rollout is not None),
            rollout=rollout,
            uptake=_uptake(releases, control.replicas()),
            before=control.before(),
            may_review=may_review(login),
            now=clock(),
        )

    @router.post("/releases/rollback")
    def roll_back(
        request: Request, to: Field = "", seen: Field = "", reason: Field = "", csrf: Field = ""
    ) -> Response:
        login = visits.reviewer(request, csrf)
        said = reason.strip() or NO_REASON
        require_text(by=login.principal.name, reason=said)
        serving = next((r.release_id for r in control.releases()), "nothing")
        if seen != serving:
            # Two people who click at once go one step back, not two.
            raise ConflictError(
                f"a rollback of what serves now, {serving}",
                got=f"one of {seen or 'nothing'}",
                mend="Open the page again and see what serves now.",
            )
        control.roll_back(to=to, by=login.principal.name, reason=said)
        return go("/releases")

    @router.post("/releases/full")
    def go_full(
        request: Request, release: Field = "", reason: Field = "", csrf: Field = ""
    ) -> Response:
        login = visits.reviewer(request, csrf)
        said = reason.strip()
        require_text(by=login.principal.name, reason=said)
        control.go_full(release, by=login.principal.name, reason=said)
        return go("/releases")


def _cases(gatekeeper: Gatekeeper, policy: Name) -> dict[Digest, Case]:
    """Cases by the digest of the decision on them."""
    return {
        decided.decision.digest(): case for case, decided in gatekeeper.cases(policy) if decided
    }


def _reasons(logbook: Logbook, releases: Sequence[Release]) -> dict[str, str]:
    entries = logbook.about([release.release_id for release in releases if release.rollback_of])
    return {entry.subject: str(entry.body().get("reason", "")) for entry in entries}


def _eras(
    newest_first: Sequence[Release],
    cases: Mapping[Digest, Case],
    reasons: Mapping[str, str],
    now: datetime,
    *,
    rolling: bool,
) -> list[Era]:
    """What served from when to when; the newest does not yet where it is ``rolling`` out."""
    taken_back = {release.rollback_of for release in newest_first}
    eras = []
    until = now
    for place, release in enumerate(newest_first):
        if place > rolling:
            state = "rolled back" if release.release_id in taken_back else "replaced"
        else:
            state = "serving" if place == rolling else "rolling out"
        case = cases.get(release.decision_digest)
        eras.append(
            Era(
                release=release,
                state=state,
                how=_how(release, newest_first[place + 1 :]),
                reason=reasons.get(release.release_id),
                case=case,
                lasted=until - release.released_at,
                goes_back_to=release.weights != newest_first[0].weights,
            )
        )
        until = now if state == "rolling out" else release.released_at
    return eras


def _how(release: Release, earlier: Sequence[Release]) -> str:
    if release.rollback_of is None:
        return "first release" if release.sequence == 0 else "promoted"
    target = next((r.release_id for r in earlier if r.weights == release.weights), "")
    return f"rolled back to {target}"


def _uptake(newest_first: Sequence[Release], replicas: Sequence[Replica]) -> Uptake:
    newest = newest_first[0].release_id if newest_first else None
    alive = [replica for replica in replicas if replica.alive]
    have = sum(newest in (r.serving, r.canary) for r in alive)
    return Uptake(have, len(alive), replicas)
