"""The serving application, joined to the collector's stream, which keeps its interactions."""

from fastapi import FastAPI

from collector.ingest import interactions_topic
from collector.record import InteractionRecorder
from collector.streams import open_stream
from deploy.server import create_app as create_serving
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.database import Database
from tacit.keys import KeyStore
from tacit.signing import Verifier


def create_serving_app(settings: Settings) -> FastAPI:
    """The OpenAI-compatible application; it holds the public key only."""
    database = Database(settings.resolved_database_url)
    recorder = InteractionRecorder(open_stream(settings), topic=interactions_topic(settings))
    return create_serving(
        settings,
        db=database,
        store=CheckpointStore(settings.checkpoints_path),
        verifier=Verifier.load(settings.keys_path / "signing.pub"),
        keys=KeyStore(database),
        record=recorder.record,
    )
