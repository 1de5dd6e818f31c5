"""Triage: the routes by which a person looks after what did not go through by itself.

``replay.py`` is about records that could not be taken, ``quarantine.py`` about events that were
taken and set aside.
"""

from fastapi import APIRouter

from collector.streams import Stream
from collector.triage.dead_letter_routes import create_dead_letter_routes
from collector.triage.quarantine import Journal, Quarantine
from collector.triage.quarantine_routes import create_quarantine_routes
from collector.triage.replay import DeadLetters
from tacit.config import Settings
from tacit.database import Database
from tacit.keys import KeyStore


def create_triage(
    settings: Settings, database: Database, stream: Stream, keys: KeyStore, journal: Journal
) -> APIRouter:
    """``/v1/dead-letters`` and ``/v1/quarantine``; decisions on events go to ``journal``."""
    letters = DeadLetters(database, stream, settings)
    quarantine = Quarantine(database, settings, journal)
    router = APIRouter()
    router.include_router(create_dead_letter_routes(letters, keys, policy=settings.policy))
    router.include_router(create_quarantine_routes(quarantine, keys, policy=settings.policy))
    return router
