"""Quorums: what must be said by several people before anyone's saying it teaches.

In: arrivals that no rule refuses. Out: how many subjects are still missing for each. Until enough
have taught the same answer for the cluster their events are held; the last one lets all go. Another
answer does not count, nor does the same subject twice, nor what a rule has refused.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from collector.reasons import Reason
from collector.screening.arrival import Arrival
from collector.tables import IS_HELD, EventRow
from tacit.config import QuorumRule, ScreeningSettings
from tacit.contracts import EventStatus, FeedbackEvent


class Claim(NamedTuple):
    """An answer for the prompts of one cluster."""

    cluster: str
    answer_key: str


class Quorum:
    """Who claims what, of the chunk that is judged; used by one thread."""

    def __init__(self, settings: ScreeningSettings, *, policy: str) -> None:
        self._rules = settings.quorum if settings.enabled else ()
        self._policy = policy
        self.begin()

    def begin(self) -> None:
        """Start with the next chunk."""
        self._subjects: dict[Claim, set[str]] = {}
        self._waited_for: set[Claim] = set()

    def read(self, session: Session, arrivals: Sequence[Arrival]) -> None:
        """Read who else claims what ``arrivals`` do."""
        claims = {claim for a in arrivals if (claim := self.claim_of(a)) is not None}
        unread = claims - self._subjects.keys()
        self._subjects.update((claim, set()) for claim in unread)
        if not unread:
            return
        let_through = EventRow.status.in_((EventStatus.ACCEPTED, EventStatus.HOLDOUT))
        waits = and_(IS_HELD, EventRow.reason == Reason.AWAITING_QUORUM)
        columns = (EventRow.cluster, EventRow.answer, EventRow.source, EventRow.subject_id)
        query = (
            select(*columns, EventRow.status)
            .where(
                EventRow.policy == self._policy,
                EventRow.cluster.in_({claim.cluster for claim in unread}),
                EventRow.answer.in_({claim.answer_key for claim in unread}),
                or_(let_through, waits),
            )
            .distinct()
        )
        for cluster, answer, source, subject_id, status in session.execute(query):
            claim = Claim(cluster, answer or "")
            if claim in unread:
                self._subjects[claim].add(f"{source}/{subject_id}")
                if status == EventStatus.HELD:
                    self._waited_for.add(claim)

    def claim_of(self, arrival: Arrival) -> Claim | None:
        """What ``arrival`` claims; None where no rule is about it."""
        key = arrival.answer_key
        return Claim(arrival.cluster, key) if key and self._needed(arrival.event) > 1 else None

    def missing(self, arrival: Arrival) -> int:
        """How many subjects are missing if this one counts; 0 or less is enough."""
        claim = self.claim_of(arrival)
        if claim is None:
            return 0
        return self._needed(arrival.event) - len(self._subjects[claim] | {arrival.subject})

    def count(self, arrival: Arrival, *, waits: bool) -> None:
        """Count the subject of what was let through or is held."""
        claim = self.claim_of(arrival)
        if claim is not None:
            self._subjects[claim].add(arrival.subject)
            if waits:
                self._waited_for.add(claim)

    def may_complete(self, arrival: Arrival) -> bool:
        """Whether ``arrival`` may be the one that others who claim the same wait for."""
        claim = self.claim_of(arrival)
        if claim is None or claim not in self._waited_for:
            return False
        number = len(self._subjects[claim] | {arrival.subject})
        # Rules may ask for different numbers: the largest need not be reached for some to go.
        return self.missing(arrival) <= 0 or number in {r.min_subjects for r in self._rules}

    def release(self, session: Session, arrival: Arrival) -> list[EventRow]:
        """The events that are held and claim what ``arrival``, which counts, claims; in order."""
        claim = self.claim_of(arrival)
        if claim is None:
            return []
        self._waited_for.discard(claim)
        query = (
            select(EventRow)
            .where(
                IS_HELD,
                EventRow.policy == self._policy,
                EventRow.reason == Reason.AWAITING_QUORUM,
                EventRow.cluster == claim.cluster,
                EventRow.answer == claim.answer_key,
            )
            .order_by(EventRow.sequence)
            # Rows may have changed under this session without its objects.
            .execution_options(populate_existing=True)
        )
        return list(session.scalars(query))

    def _needed(self, event: FeedbackEvent) -> int:
        return max((r.min_subjects for r in self._rules if _is_about(r, event)), default=1)


def _is_about(rule: QuorumRule, event: FeedbackEvent) -> bool:
    if rule.tag is None:
        return True
    return rule.tag in event.tags and rule.value in (None, event.tags[rule.tag])
