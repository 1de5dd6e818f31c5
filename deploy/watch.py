"""Keeps one replica on the newest release of its policy line, or on the old one if that is refused.

In: the ``releases`` and ``rollouts`` tables, polled. Out: the engine loaded with the weights of one
release, or of two during a rollout, and ``arms``, which says who is answered by which. A release is
verified in full each time it is loaded; a canary that is refused leaves the champion answering
everything. Loading happens on this thread while the engine goes on answering.

A replica that starts amid a rollout answers nobody before it holds both: else whoever is drawn to
the canary would meet the champion each time a replica starts again.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import select

from deploy.arms import Arms
from deploy.engines.base import Engine
from deploy.heartbeat import Heartbeat, Refusal
from deploy.tables import ReleaseRow
from deploy.verify import read_bundle, verify_bundle
from deploy.wanted import Wanted, wanted_of
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.contracts import Release, sha256_digest
from tacit.database import Database
from tacit.errors import IntegrityError, TacitError
from tacit.signing import Verifier

logger = logging.getLogger(__name__)


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
        self.refusal: Refusal | None = None
        self._held: Arms | None = None
        """What the engine holds."""
        self._answers = False
        self._settings = settings
        self._database = db
        self._engine = engine
        self._store = store
        self._verifier = verifier
        self._clock = clock
        self._heartbeat = Heartbeat(settings, db, clock=clock)
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
        self._heartbeat.end()

    def check(self) -> None:
        """One look at the releases. Raises UnavailableError if the database is away."""
        with self._database.reader() as session:
            wanted = wanted_of(session, self._settings.policy)
        if wanted is not None:
            self._follow(wanted)
            self._answers = self._held is not None
        self._heartbeat.beat(self.arms, self.refusal)

    @property
    def arms(self) -> Arms | None:
        """What answers and who is answered by which; None while nothing does."""
        return self._held if self._answers else None

    @property
    def _serving_id(self) -> str | None:
        return None if self._held is None else self._held.champion.release_id

    @property
    def _canary_id(self) -> str | None:
        canary = None if self._held is None else self._held.canary
        return None if canary is None else canary.release_id

    def _follow(self, wanted: Wanted) -> None:
        if self._canary_id is not None and self._canary_id != wanted.canary:
            self._end_canary(takes_over=self._canary_id == wanted.champion)
        if self._serving_id != wanted.champion:
            self._consider(wanted.champion, self._serve)
        if self._serving_id != wanted.champion or self._held is None:
            return
        if wanted.canary is not None and self._canary_id != wanted.canary:
            self._consider(wanted.canary, self._add_canary)
        if self._canary_id == wanted.canary:
            self._held = replace(self._held, share=wanted.share, shadow_share=wanted.shadow_share)
            self.refusal = None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.check()
            except Exception as error:  # the edge of a thread that must outlive any failure
                logger.warning("releases could not be looked at: %s", error)
            self._stop.wait(self._settings.deploy.poll_s)

    def _consider(self, release_id: str, take: Callable[[Release], None]) -> None:
        with self._database.reader() as session:
            bundle = session.scalar(
                select(ReleaseRow.bundle).where(ReleaseRow.release_id == release_id)
            )
        bundle_digest = sha256_digest((bundle or "").encode())
        if self._refused_lately(release_id, bundle_digest):
            return
        try:
            take(self._verified(release_id, bundle or ""))
        except Exception as error:  # whatever fails, what served before must go on serving
            self._refuse(release_id, bundle_digest, error)

    def _serve(self, release: Release) -> None:
        if self._engine.weights != release.weights:
            self._engine.load(release.weights)
        self._held = Arms(release)
        logger.info("serving %s with %s", release.release_id, release.weights)

    def _add_canary(self, release: Release) -> None:
        assert self._held is not None
        champion = self._held.champion
        if release.previous != champion.release_id:
            raise IntegrityError(
                f"a canary that follows {champion.release_id}, which serves",
                got=f"one that follows {release.previous}",
            )
        if self._engine.beside != release.weights:
            self._engine.load_beside(release.weights)
        # Its share comes with the next line of _follow: nobody meets it before.
        self._held = Arms(champion, release)
        logger.info("%s stands beside %s", release.release_id, champion.release_id)

    def _end_canary(self, *, takes_over: bool) -> None:
        """Send all requests to the champion, or to the canary, which is loaded and verified."""
        assert self._held is not None
        champion, canary = self._held.releases
        self._held = Arms(champion)
        if takes_over:
            self._serve(canary)
        else:
            self._engine.load_beside(None)

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
        serving = None if self._held is None else self._held.champion
        if serving is not None and release.sequence < serving.sequence:
            raise IntegrityError(
                f"a release after {serving.release_id}, which serves",
                got=release.release_id,
                mend="A rollback is a new release: `tacit rollback`.",
            )
        return release

    def _refuse(self, release_id: str, bundle_digest: str, error: Exception) -> None:
        text = str(error) if isinstance(error, TacitError) else f"{type(error).__name__}: {error}"
        logger.error(
            "refused %s and still serving %s: %s", release_id, self._serving_id or "nothing", text
        )
        self.refusal = Refusal(release_id, text, bundle_digest, self._clock())
