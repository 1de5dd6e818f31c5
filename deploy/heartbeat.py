"""What a replica says of itself: its row of ``replicas``, which the loop and people look at.

In: what the replica holds and refused. Out: the row, written when that changes and every
``deploy.heartbeat_s`` seconds, so that silence tells of one that was killed.
``deploy/replicas.py`` reads the rows.
"""

import logging
import os
import socket
from collections.abc import Callable
from typing import NamedTuple

from deploy.arms import Arms
from deploy.tables import ReplicaRow
from tacit.config import Settings
from tacit.contracts import utc_now
from tacit.database import Database
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """A release this replica does not serve, and why."""

    release_id: str
    text: str
    bundle_digest: str
    at_s: float
    """When, on the watcher's clock."""


class Heartbeat:
    """Keeps the row of one replica; used by one thread."""

    def __init__(self, settings: Settings, db: Database, *, clock: Callable[[], float]) -> None:
        self.replica_id = _replica_id(settings)
        self._settings = settings
        self._database = db
        self._clock = clock
        self._written_at_s = -float("inf")
        self._told: tuple[Arms | None, Refusal | None] = (None, None)

    def beat(self, arms: Arms | None, refusal: Refusal | None) -> None:
        """Write the row if it is due. Raises UnavailableError if the database is away."""
        now_s, told = self._clock(), (arms, refusal)
        if told == self._told and now_s - self._written_at_s < self._settings.deploy.heartbeat_s:
            return
        canary = None if arms is None else arms.canary
        row = ReplicaRow(
            replica_id=self.replica_id,
            policy=self._settings.policy,
            serving=None if arms is None else arms.champion.release_id,
            canary=None if canary is None else canary.release_id,
            canary_share=None if arms is None or canary is None else arms.share,
            refused=None if refusal is None else refusal.release_id,
            refusal=None if refusal is None else refusal.text,
            seen_at=utc_now(),
        )
        with self._database.session() as session:
            session.merge(row)
        self._written_at_s, self._told = now_s, told

    def end(self) -> None:
        """Take the row away: this replica ends as it should."""
        try:
            with self._database.session() as session:
                row = session.get(ReplicaRow, self.replica_id)
                if row is not None:
                    session.delete(row)
        except UnavailableError as error:
            logger.warning("the row of %s stays: %s", self.replica_id, error)


def _replica_id(settings: Settings) -> str:
    # The port rather than the process: a replica that starts again takes its old row over.
    place = settings.deploy.port or f"pid-{os.getpid()}"
    return f"{socket.gethostname()[:100]}:{place}"
