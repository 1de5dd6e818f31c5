"""The outbox of webhooks: what is to be delivered where, and what became of each try.

It follows the ledger: the place reached and the deliveries made of it move in one transaction, so
that each message is put in once, whatever is killed when. Delivering is in ``gatekeeper.courier``.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from gatekeeper.notices import Notice, as_slack, notice_of
from gatekeeper.tables import DecisionRow, LedgerRow, WebhookDeliveryRow, WebhookEndpointRow
from tacit.config import WebhookSettings
from tacit.database import Database
from tacit.errors import NotFoundError

LEASE = timedelta(minutes=2)
"""A try that was not finished by then, because its process died, is made again."""
FIRST_RETRY = timedelta(seconds=5)
LONGEST_RETRY = timedelta(hours=1)
MAX_ATTEMPTS = 16
"""With the waits above about seven hours."""
_ENTRIES_AT_ONCE = 200


class Outbox:
    """Deliveries to the configured endpoints; safe to share between threads and processes."""

    def __init__(
        self,
        db: Database,
        endpoints: Mapping[str, WebhookSettings],
        *,
        public_url: str | None = None,
    ) -> None:
        self._db = db
        self.endpoints = dict(endpoints)
        self._public_url = public_url

    def follow(self, now: datetime) -> int:
        """Put in what the ledger says since the last time; returns how many deliveries.

        An endpoint that is new begins with the next entry.
        """
        return sum(self._follow(name, settings, now) for name, settings in self.endpoints.items())

    def _follow(self, name: str, settings: WebhookSettings, now: datetime) -> int:
        with self._db.session() as session:
            endpoint = session.get(WebhookEndpointRow, name, with_for_update=True)
            if endpoint is None:
                last = session.scalar(select(func.max(LedgerRow.sequence)))
                session.add(WebhookEndpointRow(name=name, cursor=-1 if last is None else last))
                return 0
            entries = session.scalars(
                select(LedgerRow)
                .where(LedgerRow.sequence > endpoint.cursor)
                .order_by(LedgerRow.sequence)
                .limit(_ENTRIES_AT_ONCE)
            ).all()
            made = 0
            for entry in entries:
                endpoint.cursor = entry.sequence
                notice = notice_of(entry.entry, public_url=self._public_url)
                if notice is None or notice.type not in settings.events:
                    continue
                if notice.type == "candidate.waiting" and _is_decided(session, notice):
                    continue
                self._put(session, name, f"{name}-{entry.sequence}", notice, now)
                made += 1
            return made

    def put_test(self, name: str, now: datetime) -> str:
        """Put in a message that only says it is a test; returns the delivery's id.

        Raises NotFoundError.
        """
        if name not in self.endpoints:
            raise NotFoundError(
                "a webhook of the settings", got=name, mend="`tacit webhooks list`."
            )
        delivery_id = f"{name}-test-{now.timestamp():.6f}"
        with self._db.session() as session:
            notice = Notice(type="webhook.test", timestamp=now, data={"endpoint": name})
            self._put(session, name, delivery_id, notice, now)
        return delivery_id

    def _put(
        self, session: Session, name: str, delivery_id: str, notice: Notice, now: datetime
    ) -> None:
        slack = self.endpoints[name].format == "slack"
        payload = as_slack(notice) if slack else notice.model_dump(mode="json")
        session.add(
            WebhookDeliveryRow(
                delivery_id=delivery_id,
                endpoint=name,
                type=notice.type,
                payload=json.dumps(payload, ensure_ascii=False),
                state="pending",
                attempts=0,
                next_at=now,
                created_at=now,
            )
        )

    def due(self, now: datetime) -> list[str]:
        """Ids of deliveries whose time has come, oldest first."""
        query = select(WebhookDeliveryRow.delivery_id).where(
            WebhookDeliveryRow.state == "pending",
            WebhookDeliveryRow.next_at <= now,
            WebhookDeliveryRow.endpoint.in_(self.endpoints),
        )
        with self._db.reader() as session:
            return list(session.scalars(query.order_by(WebhookDeliveryRow.created_at).limit(50)))

    def claim(self, delivery_id: str, now: datetime) -> WebhookDeliveryRow | None:
        """The delivery, for one try; None if another process has it."""
        here = (
            (WebhookDeliveryRow.delivery_id == delivery_id)
            & (WebhookDeliveryRow.state == "pending")
            & (WebhookDeliveryRow.next_at <= now)
        )
        with self._db.session() as session:
            taken = session.execute(
                update(WebhookDeliveryRow)
                .where(here)
                .values(next_at=now + LEASE, attempts=WebhookDeliveryRow.attempts + 1)
            )
            if taken.rowcount != 1:  # type: ignore[attr-defined]
                return None
            return session.get(WebhookDeliveryRow, delivery_id)

    def settle(
        self, row: WebhookDeliveryRow, now: datetime, *, status: int | None, error: str | None
    ) -> None:
        """Note how a try ended: delivered, to be tried again, or given up."""
        values: dict[str, object] = {"status_code": status, "error": error}
        if error is None:
            values |= {"state": "delivered", "delivered_at": now}
        elif row.attempts >= MAX_ATTEMPTS or status == 410:
            values |= {"state": "given_up"}
        else:
            wait = min(FIRST_RETRY * 2 ** (row.attempts - 1), LONGEST_RETRY)
            values |= {"next_at": now + wait}
        about = WebhookDeliveryRow.delivery_id == row.delivery_id
        with self._db.session() as session:
            session.execute(update(WebhookDeliveryRow).where(about).values(**values))

    def log(self, *, endpoint: str | None = None, limit: int = 50) -> Sequence[WebhookDeliveryRow]:
        """The newest deliveries, of one endpoint or of all."""
        query = select(WebhookDeliveryRow).order_by(WebhookDeliveryRow.created_at.desc())
        if endpoint is not None:
            query = query.where(WebhookDeliveryRow.endpoint == endpoint)
        with self._db.reader() as session:
            return session.scalars(query.limit(limit)).all()


def _is_decided(session: Session, notice: Notice) -> bool:
    """Whether nobody waits any more: the gate decided itself, or somebody was quick."""
    return session.get(DecisionRow, notice.data["candidate_digest"]) is not None
