"""A whole review desk for tests: keys, an app with API and pages, and a reader kept in memory."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from collector.store import EventStore
from collector.tables import EventRow
from deploy.release import ReleaseDesk
from deploy.rollout import RolloutDesk
from deploy.tables import ReplicaRow
from gatekeeper.api import create_router
from gatekeeper.campaign import Campaigns
from gatekeeper.logbook import Logbook
from gatekeeper.pages import Review, create_pages
from gatekeeper.review_tokens import ReviewTokens
from tacit.checkpoints import CheckpointStore
from tacit.config import GatekeeperSettings, RolloutSettings, load_settings
from tacit.contracts import (
    Digest,
    EvalReport,
    EventStatus,
    GateVerdict,
    PolicyCandidate,
    Release,
    ScreenedEvent,
    short,
    utc_now,
)
from tacit.database import Database
from tacit.desks import StoredFeedback, StoredReleases
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tacit.lineage import FeedbackLineage
from tests.builders import MOMENT, batch, candidate, digest
from tests.gatekeeper.builders import Office, good_report, office
from tests.gatekeeper.reader import MemoryReader

SECRET = "a secret for tests"
SESSION_TTL_S = 3600.0


@dataclass
class Desk:
    """The office with the app in front of it and a key for each kind of visitor."""

    office: Office
    reader: MemoryReader
    app: FastAPI
    keys: dict[str, str]
    releases: ReleaseDesk
    rollouts: RolloutDesk
    checkpoints: CheckpointStore
    review: Review
    weights: Callable[[CheckpointStore, int], Digest]
    """Makes the checkpoint with a number."""

    def put(
        self,
        about: PolicyCandidate,
        *,
        evidence: EvalReport | None = None,
        verdict: GateVerdict | None = None,
    ) -> str:
        """Submit a candidate with its evidence and return its id."""
        self.reader.candidates[about.candidate_id] = about
        self.reader.reports[about.digest()] = evidence or good_report(about)
        self.office.submit(about, verdict)
        return about.candidate_id

    def keep(
        self,
        *events: ScreenedEvent,
        status: EventStatus = EventStatus.ACCEPTED,
        reason: str | None = None,
        batch_id: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Put events into the table as screening does, one after another."""
        with self.office.db.session() as session:
            first = session.query(EventRow).count()
            for number, kept in enumerate(events, first):
                row = _event_row(kept, number, status, reason, batch_id)
                row.detail = detail
                session.add(row)

    def first(self) -> Release:
        """The first release of the line."""
        with self.office.db.session() as session:
            approval = self.office.gatekeeper.genesis(
                session, "default", self.weights(self.checkpoints, 0), by="ada"
            )
            return self.releases.first(session, "default", approval.envelope, by="ada")

    def trained(self, number: int) -> PolicyCandidate:
        """A candidate trained from what serves now, with a checkpoint."""
        serving = self.releases.current("default")
        assert serving is not None
        learned = batch(parent=serving.weights, merkle_root=digest(f"batch-{number}"))
        return candidate(
            weights=self.weights(self.checkpoints, number),
            parent=serving.weights,
            batch_digest=learned.digest(),
        )

    def promote(self, about: PolicyCandidate, number: int, **rollout: Any) -> Release:
        """What the loop does with an approved candidate of :meth:`trained`.

        ``rollout`` are settings of its rollout.
        """
        signed = self.office.gatekeeper.decision_on(about.digest())
        report = self.reader.reports[about.digest()]
        assert signed is not None
        learned = batch(parent=about.parent, merkle_root=digest(f"batch-{number}"))
        by = signed.decision.decided_by
        with self.office.db.session() as session:
            made = self.releases.promote(session, about, report, learned, signed.envelope, by=by)
            self.rollouts.begin(session, made, RolloutSettings(**rollout))
        return made

    def replica(self, name: str, **values: Any) -> None:
        """A serving replica that has just been heard of."""
        fields = {"policy": "default", "serving": None, "seen_at": utc_now(), **values}
        with self.office.db.session() as session:
            session.merge(ReplicaRow(replica_id=name, **fields))

    def client(self) -> TestClient:
        """A browser without script."""
        return TestClient(self.app, base_url="http://tacit.test", follow_redirects=False)


def names_of_weights(store: CheckpointStore, number: int) -> Digest:
    """A checkpoint that nobody can load: enough where nothing serves."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.safetensors").write_text(f"weights {number}")
        return store.put(Path(folder))


def desk(
    db: Database,
    *,
    settings: GatekeeperSettings | None = None,
    weights: Callable[[CheckpointStore, int], Digest] = names_of_weights,
) -> Desk:
    """A desk on ``db``, with a key for each kind of visitor."""
    desk_office, reader, keys = office(db, settings=settings), MemoryReader(), KeyStore(db)
    gatekeeper, ledger = desk_office.gatekeeper, desk_office.ledger
    home = Path(tempfile.mkdtemp(prefix="tacit-desk-"))
    checkpoints = CheckpointStore(home / "checkpoints")
    places = load_settings(home=home)
    releases = ReleaseDesk(
        db, checkpoints, desk_office.signer, ledger.append, clock=desk_office.clock
    )
    rollouts = RolloutDesk(db, ledger.append, clock=desk_office.clock)
    lineage = FeedbackLineage("default", db, releases)
    events = EventStore(db)
    review = Review(
        gatekeeper=gatekeeper,
        ledger=ledger,
        logbook=Logbook(db),
        campaigns=Campaigns(db, ledger),
        candidates=reader,
        feedback=StoredFeedback(places, db, journal=ledger.append, lineage=lineage),
        releases=StoredReleases(
            places,
            releases,
            rollouts,
            lambda session, batches, keep: events.take_back(
                session, [f"b-{short(b)}" for b in batches], keep=keep
            ),
        ),
    )
    app = FastAPI()
    install_error_handlers(app)
    tokens = ReviewTokens(gatekeeper, db, desk_office.signer, ledger, keys.holder)
    app.include_router(
        create_router(gatekeeper, ledger, reader, keys, policy="default", tokens=tokens)
    )
    app.include_router(
        create_pages(
            review,
            keys,
            policy="default",
            secret=SECRET,
            session_ttl_s=SESSION_TTL_S,
            clock=desk_office.clock,
        )
    )
    both = {Scope.READ, Scope.REVIEW}
    made = {
        "reviewer": keys.create("ada", scopes=both),
        "other": keys.create("grace", scopes=both),
        "admin": keys.create("root", scopes={Scope.ADMIN}),
        "reader": keys.create("rita", scopes={Scope.READ}),
        "sender": keys.create("shop", scopes={Scope.SEND}, source="shop"),
        "elsewhere": keys.create("eve", scopes=both, policy="other"),
        "bound": keys.create("bo", scopes=both, source="shop"),
    }
    return Desk(desk_office, reader, app, made, releases, rollouts, checkpoints, review, weights)


def _event_row(
    kept: ScreenedEvent, number: int, status: EventStatus, reason: str | None, batch_id: str | None
) -> EventRow:
    return EventRow(
        event_key=kept.event_key,
        policy=kept.policy,
        source=kept.event.source,
        event_id=kept.event.event_id,
        subject_id=kept.event.subject_id,
        kind=kept.event.feedback.type,
        status=status.value,
        reason=reason,
        trust=kept.weight,
        weight=kept.weight,
        cluster=kept.cluster,
        body_digest=kept.event.digest(),
        payload=kept.event.model_dump_json(),
        interaction=kept.interaction.model_dump_json(),
        occurred_at=kept.event.occurred_at,
        received_at=MOMENT,
        sequence=number,
        batch_id=batch_id,
    )
