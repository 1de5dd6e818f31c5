"""The control application: feedback API, decision API, release API and review pages on one port."""

import importlib.metadata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from sqlalchemy.orm import Session
from starlette.types import ASGIApp

from collector.api.feedback import FEEDBACK_SCHEMAS
from collector.application import Collector
from collector.store import EventStore
from collector.streams import open_stream
from deploy.api import create_router as deploy_router
from deploy.release import ReleaseDesk
from deploy.rollout import RolloutDesk
from deploy.rollout_api import create_rollout_router
from gatekeeper.api import create_router as gatekeeper_router
from gatekeeper.campaign import Campaigns
from gatekeeper.campaign_api import create_router as campaign_router
from gatekeeper.courier import Courier
from gatekeeper.decide import Gatekeeper
from gatekeeper.dossier import LoopStatus
from gatekeeper.key_entries import KeyEntries
from gatekeeper.ledger import Ledger
from gatekeeper.logbook import Logbook
from gatekeeper.outbox import Outbox
from gatekeeper.pages import Review, create_pages
from gatekeeper.review_tokens import ReviewTokens
from gatekeeper.sessions import session_secret
from gatekeeper.webhook_api import create_webhook_router
from tacit.api_page import add_api_page
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.consolidation import ConsolidationDesk, ConsolidationPlan, ConsolidationRequest
from tacit.contracts import Digest, ValueReport, short
from tacit.database import Database
from tacit.desks import StoredFeedback, StoredReleases
from tacit.http import ErrorAnswer, add_schemas, bearer_principal, install_error_handlers
from tacit.keys import KeyStore, Scope
from tacit.lineage import FeedbackLineage
from tacit.overview import Overview
from tacit.provenance import Provenance
from tacit.secrets_file import MasterSecret
from tacit.signing import Signer
from tacit.values import recorded_values


def create_control(settings: Settings) -> ASGIApp:
    """Feedback API, decision API, release API and review pages as one application."""
    database = Database(settings.resolved_database_url)
    signer = Signer.load_or_create(settings.signing_path)
    master = MasterSecret.load_or_create(settings.keys_path)
    ledger = Ledger(database, signer)
    keys = KeyStore(database, master=master, vouch=KeyEntries(database, ledger).require)
    events = EventStore(database)
    checkpoints = CheckpointStore(settings.checkpoints_path)
    desk = ReleaseDesk(database, checkpoints, signer, ledger.append, clock=ledger.moment)
    rollouts = RolloutDesk(database, ledger.append, clock=ledger.moment)
    gatekeeper = Gatekeeper(database, signer, ledger, settings.gatekeeper)
    hooks = settings.gatekeeper
    outbox = Outbox(database, hooks.webhooks, public_url=hooks.public_url)
    courier = Courier(outbox, master)
    tokens = ReviewTokens(gatekeeper, database, signer, ledger, keys.holder)
    overview = Overview(settings, database, desk, rollouts)
    policy = settings.policy

    def on_rollback(session: Session, batches: Sequence[Digest], keep: bool) -> None:
        # Learning is taken back with the weights: the next batch must not teach it again.
        events.take_back(session, [f"b-{short(b)}" for b in batches], keep=keep)

    collector = Collector(settings, database, open_stream(settings), keys)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with collector.run(), courier:
            yield
        database.dispose()

    app = FastAPI(
        title="Tacit",
        version=importlib.metadata.version("tacit"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": ErrorAnswer, "description": "Any error has this form."}},
    )
    add_schemas(app, FEEDBACK_SCHEMAS)
    add_api_page(app)
    install_error_handlers(app)
    lineage = FeedbackLineage(policy, database, desk)
    provenance = Provenance(policy, database, desk, gatekeeper.decision_id_of)
    served = collector.install(app, journal=ledger.append, lineage=lineage.of)
    app.include_router(
        gatekeeper_router(
            gatekeeper,
            ledger,
            overview,
            keys,
            policy=policy,
            tokens=tokens,
            related=provenance.ledger_subjects,
        )
    )
    app.include_router(create_webhook_router(courier, keys, policy=policy))
    campaigns = Campaigns(database, ledger)
    app.include_router(campaign_router(campaigns, keys, settings.gatekeeper, policy=policy))
    app.include_router(deploy_router(desk, keys, policy, on_rollback))
    app.include_router(create_rollout_router(rollouts, keys, policy, settings.deploy.rollout))
    review = Review(
        gatekeeper=gatekeeper,
        ledger=ledger,
        logbook=Logbook(database),
        campaigns=campaigns,
        candidates=overview,
        feedback=StoredFeedback(settings, database, journal=ledger.append, lineage=lineage),
        releases=StoredReleases(settings, desk, rollouts, on_rollback),
    )
    app.include_router(
        create_pages(
            review,
            keys,
            policy=policy,
            secret=session_secret(settings.keys_path),
            session_ttl_s=settings.gatekeeper.session_ttl_s,
        )
    )

    consolidation = ConsolidationDesk(policy, database, checkpoints, desk, journal=ledger.append)

    @app.post("/v1/consolidation")
    def consolidate(request: Request, asked: ConsolidationRequest) -> ConsolidationPlan:
        """Fold the promoted adapters next, or say what that would do; scope ``review``."""
        principal = bearer_principal(keys, request)
        principal.require(Scope.REVIEW)
        principal.require_target(policy=policy)
        return consolidation.plan() if asked.dry_run else consolidation.ask(by=principal.name)

    @app.get("/v1/lineage")
    def show_lineage(
        request: Request, of: Annotated[str, Query(max_length=512)], source: str | None = None
    ) -> dict[str, Any]:
        """What a release or candidate learned from; what an event or subject led to."""
        principal = bearer_principal(keys, request)
        principal.require(Scope.READ)
        principal.require_target(policy=policy, source=source)
        return provenance.of(of, source=source or principal.source)

    @app.get("/v1/value")
    def value(
        request: Request, source: str | None = None, metric: str | None = None
    ) -> ValueReport:
        """What each policy of the newest rollout is worth; scope ``read``."""
        principal = bearer_principal(keys, request)
        principal.require(Scope.READ)
        principal.require_target(policy=policy, source=source)
        return recorded_values(database, policy, source=source or principal.source, metric=metric)

    @app.get("/v1/status")
    def status(request: Request) -> LoopStatus:
        """What the loop does, what serves, how much feedback there is; scope ``read``."""
        principal = bearer_principal(keys, request)
        principal.require(Scope.READ)
        principal.require_target(policy=policy)
        return overview.status()

    return served
