"""What serving replicas have said of themselves (``deploy/heartbeat.py``), and for how long.

One that ends as it should takes its row away; of one that was killed nobody else does.
"""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from deploy.tables import ReplicaRow
from tacit.contracts import utc_now

REPLICA_FORGOTTEN = timedelta(hours=1)
"""One that has been silent for so long does not come back under its name."""


def replica_rows(session: Session, policy: str) -> Sequence[ReplicaRow]:
    """The replicas of a policy line by name, those that died within the hour among them."""
    known = ReplicaRow.seen_at > utc_now() - REPLICA_FORGOTTEN
    query = select(ReplicaRow).where(ReplicaRow.policy == policy, known)
    return session.scalars(query.order_by(ReplicaRow.replica_id)).all()


def forget_replicas(session: Session) -> None:
    """Delete the rows of those that died longer ago."""
    session.execute(delete(ReplicaRow).where(ReplicaRow.seen_at <= utc_now() - REPLICA_FORGOTTEN))
