"""Collector: everything the control application has from this stage, put together.

``install`` adds routes to an application and wraps it; ``run`` is its life beside it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from collector.api.admission import Admission
from collector.api.direct import DirectIntake
from collector.api.feedback import Lineage
from collector.api.feedback import create_router as create_feedback_router
from collector.api.intake import Intake
from collector.api.known import create_known_route
from collector.api.token_routes import FeedbackCors
from collector.api.token_routes import create_router as create_token_router
from collector.api.tokens import FeedbackTokens
from collector.api.webhooks import create_router as create_webhook_router
from collector.ingest import Ingestor
from collector.monitoring.metrics import MetricsMiddleware
from collector.monitoring.routes import Monitoring
from collector.retention import Retention
from collector.store import EventStore
from collector.streams import Stream
from collector.triage.quarantine import Journal
from collector.triage.routes import create_triage
from tacit.config import Settings
from tacit.database import Database
from tacit.keys import KeyStore
from tacit.secrets_file import MasterSecret


class Collector:
    """The collector's part of one application."""

    def __init__(
        self, settings: Settings, database: Database, stream: Stream, keys: KeyStore
    ) -> None:
        self._settings = settings
        self._database = database
        self._stream = stream
        self._keys = keys
        self.ingestor = Ingestor(database, stream, settings)
        self._monitoring = Monitoring(settings, database, stream, keys)
        master = MasterSecret.load_or_create(settings.keys_path)
        self._tokens = FeedbackTokens(master, keys)
        self._admission = Admission(keys, self._tokens, settings.collector)
        self._retention = Retention(database, stream, self.ingestor.receipts, settings)

    def install(self, app: FastAPI, *, journal: Journal, lineage: Lineage) -> ASGIApp:
        """Add routes to ``app``, which has ``tacit.http.install_error_handlers``; what to serve.

        ``journal`` keeps decisions about events; ``lineage`` says what a batch was trained into.
        """
        intake = Intake(self.ingestor, self._admission, self._monitoring.ingest)
        store = EventStore(self._database)
        for router in (
            self._monitoring.create_router(),
            create_feedback_router(
                ingestor=self.ingestor,
                store=store,
                keys=self._keys,
                intake=intake,
                lineage=lineage,
            ),
            create_known_route(self.ingestor.receipts, self._keys),
            create_token_router(self._tokens, self._admission, self._settings),
            create_webhook_router(intake, self._keys, self._settings),
            create_triage(self._settings, self._database, self._stream, self._keys, journal),
        ):
            app.include_router(router)
        origins = self._settings.collector.cors_origins
        if origins:
            app.add_middleware(FeedbackCors, origins=origins)
        # Around the framework, so that what takes the direct way passes none of it.
        return MetricsMiddleware(DirectIntake(app, intake=intake), metrics=self._monitoring.http)

    @contextmanager
    def run(self) -> Iterator[None]:
        """Forget what may be forgotten, while it lasts; then let what waits be taken, and close."""
        stop = threading.Event()
        thread = threading.Thread(
            target=self._retention.run, args=(stop,), name="retention", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.ingestor.close()
            self._stream.close()
