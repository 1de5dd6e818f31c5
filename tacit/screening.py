"""The screening process: reads the stream and screens, apart from the loop's training.

A process of its own, because screening is all interpreter and would take turns with evaluation and
Ray on one lock. It has no port: that it runs is written to ``<home>/screening.pid`` once database
and stream have answered. Killed at any point it loses nothing; see ``collector/consume.py``.
"""

import gc
import logging
import threading
from pathlib import Path

from collector.consume import Consumer
from collector.ingest import feedback_topic
from collector.redaction.personal_data import load_recognizers
from collector.streams import Stream, open_stream
from tacit.config import Settings
from tacit.database import Database
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

_RETRY_S = 1.0
_GC_THRESHOLD = 50_000


def screen(settings: Settings, stop: threading.Event, *, pid: int) -> None:
    """Screen what comes until ``stop`` is set; says under ``pid`` that it does."""
    load_recognizers()
    # What is loaded by now stays, and a chunk of events makes many objects and no cycles.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    database = Database(settings.resolved_database_url)
    stream = open_stream(settings)
    path = pid_path(settings)
    path.unlink(missing_ok=True)  # in a container every process may have the same number
    try:
        if _wait_for(stream, settings, stop):
            path.write_text(str(pid))
            Consumer(database, stream, settings).run(stop)
    finally:
        path.unlink(missing_ok=True)
        stream.close()
        database.dispose()


def is_screening(settings: Settings, pid: int) -> bool:
    """Whether the process ``pid`` has come as far as screening."""
    try:
        return pid_path(settings).read_text() == str(pid)
    except OSError:
        return False


def pid_path(settings: Settings) -> Path:
    """Where the process says that it screens; left behind when it is killed."""
    return settings.home / "screening.pid"


def _wait_for(stream: Stream, settings: Settings, stop: threading.Event) -> bool:
    """Until the stream answers; False if told to stop before."""
    while not stop.is_set():
        try:
            stream.end_offsets(feedback_topic(settings))
            return True
        except UnavailableError as error:
            logger.warning("screening waits: %s", error)
            stop.wait(_RETRY_S)
    return False
