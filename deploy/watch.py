"""Keeps one replica on the newest release of its policy line, or on the old one if that is refused.

In: the ``releases`` table, polled. Out: the engine loaded with the release's weights, and a row of
``replicas`` that says what this replica serves and what it refused. A release is verified in full
each time it is loaded. Loading happens on this thread while the engine goes on answering.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import select

from deploy.engines.base import Engine
from deploy.tables import ReleaseRow, ReplicaRow
from deploy.verify import read_bundle, verify_bundle
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.contracts import Release, sha256_digest, utc_now
from tacit.database import Database
from tacit.errors import IntegrityError, TacitError, UnavailableError
from tacit.signing import Verifier

logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """A release this replica does not serve, and why."""

    release_id: str
    text: str
    bundle_digest: str
    at_s: float
    """When, on the watcher's clock."""


class ReleaseWatcher:
    """Polls, verifies, loads, swaps and reports."""

    def __init__(
        self,
        settings: Settings,
        *,
        db: Database,
        engine: Engine,
        store: CheckpointStore,
        verifier: Verifier,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.serving: Release | None = None
        self.refusal: Refusal | None = None
        self.replica_id = _replica_id(settings)
        self._settings = settings
        self._database = db
        self._engine = engine
        self._store = store
        self._verifier = verifier
        self._clock = clock
        self._reported_at_s: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="releases", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching and take this replica's row away."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            with self._database.session() as session:
                row = session.get(ReplicaRow, self.replica_id)
                if row is not None:
                    session.delete(row)
        except UnavailableError as error:
            logger.warning("the row of %s stays: %s", self.replica_id, error)

    def check(self) -> None:
        """One look at the releases. Raises UnavailableError if the database is away."""
        before = (self.serving, self.refusal)
        release_id = self._newest()
        if release_id is not None and release_id != self._serving_id:
            self._consider(release_id)
        elif self.refusal is not None:
            self.refusal = None
        due = self._reported_at_s is None or (
            self._clock() - self._reported_at_s >= self._settings.deploy.heartbeat_s
        )
        if due or before != (self.serving, self.refusal):
            self._report()

    @property
    def _serving_id(self) -> str | None:
        return None if self.serving is None else self.serving.release_id

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.check()
            except Exception as error:  # the edge of a thread that must outlive any failure
                logger.warning("releases could not be looked at: %s", error)
            self._stop.wait(self._settings.deploy.poll_s)

    def _newest(self) -> str | None:
        query = select(ReleaseRow.release_id).where(ReleaseRow.policy == self._settings.policy)
        with self._database.reader() as session:
            return session.scalar(query.order_by(ReleaseRow.sequence.desc()).limit(1))

    def _consider(self, release_id: str) -> None:
        with self._database.reader() as session:
            bundle = session.scalar(
                select(ReleaseRow.bundle).where(ReleaseRow.release_id == release_id)
            )
        bundle_digest = sha256_digest((bundle or "").encode())
        if self._refused_lately(release_id, bundle_digest):
            return
        try:
            release = self._verified(release_id, bundle or "")
            self._load(release)
        except Exception as error:  # whatever fails, the old release must go on serving
            self._refuse(release_id, bundle_digest, error)
            return
        self.serving, self.refusal = release, None
        logger.info("serving %s with %s", release.release_id, release.weights)

    def _refused_lately(self, release_id: str, bundle_digest: str) -> bool:
        refusal = self.refusal
        if refusal is None or (refusal.release_id, refusal.bundle_digest) != (
            release_id,
            bundle_digest,
        ):
            return False
        return self._clock() - refusal.at_s < self._settings.deploy.refusal_retry_s

    def _verified(self, release_id: str, bundle: str) -> Release:
        release = verify_bundle(
            read_bundle(bundle),
            policy=self._settings.policy,
            store=self._store,
            verifier=self._verifier,
        )
        if release.release_id != release_id:
            raise IntegrityError(f"the bundle of {release_id}", got=f"that of {release.release_id}")
        if self.serving is not None and release.sequence < self.serving.sequence:
            raise IntegrityError(
                f"a release after {self.serving.release_id}, which serves",
                got=release.release_id,
                mend="A rollback is a new release: `tacit rollback`.",
            )
        return release

    def _load(self, release: Release) -> None:
        if self._engine.weights != release.weights:
            self._engine.load(release.weights)

    def _refuse(self, release_id: str, bundle_digest: str, error: Exception) -> None:
        text = str(error) if isinstance(error, TacitError) else f"{type(error).__name__}: {error}"
        logger.error(
            "refused %s and still serving %s: %s", release_id, self._serving_id or "nothing", text
        )
        self.refusal = Refusal(release_id, text, bundle_digest, self._clock())

    def _report(self) -> None:
        row = ReplicaRow(
            replica_id=self.replica_id,
            policy=self._settings.policy,
            serving=self._serving_id,
            refused=None if self.refusal is None else self.refusal.release_id,
            refusal=None if self.refusal is None else self.refusal.text,
            seen_at=utc_now(),
        )
        with self._database.session() as session:
            session.merge(row)
        self._reported_at_s = self._clock()


def _replica_id(settings: Settings) -> str:
    # The port rather than the process: a replica that starts again takes its old row over.
    place = settings.deploy.port or f"pid-{os.getpid()}"
    return f"{socket.gethostname()[:100]}:{place}"
