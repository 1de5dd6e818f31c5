"""The serving application, joined to the collector's stream, which keeps its interactions."""

import logging

from fastapi import FastAPI

from collector.ingest import interactions_topic
from collector.record import InteractionRecorder
from collector.sdk.spool import Spool
from collector.streams import open_stream
from deploy.server import create_app as create_serving
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.database import Database
from tacit.errors import UnavailableError
from tacit.keys import KeyStore
from tacit.signing import PUBLIC_NAME, Verifier

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 3.0


def create_serving_app(settings: Settings) -> FastAPI:
    """The OpenAI-compatible application; it holds the public key only."""
    database = Database(settings.resolved_database_url)
    spool = Spool(settings.spool_path, max_bytes=settings.deploy.max_spool_bytes)
    topic = interactions_topic(settings)
    recorder = InteractionRecorder(open_stream(settings), spool, topic=topic)
    return create_serving(
        settings,
        db=database,
        store=CheckpointStore(settings.checkpoints_path),
        verifier=Verifier.load(settings.signing_path / PUBLIC_NAME),
        keys=KeyStore(database),
        record=recorder.record,
        on_close=lambda: _close(recorder),
    )


def _close(recorder: InteractionRecorder) -> None:
    try:
        recorder.close(timeout_s=_CLOSE_TIMEOUT_S)
    except UnavailableError as error:
        logger.warning("the next process hands on what was recorded: %s", error)
