"""A consumer in a process of its own, for tests that kill it.

python -m tests.collector.screening_process DATABASE_URL SETTINGS_JSON

Screens until it is killed. Says on standard output, a line each, ``ready`` and how many chunks were
written (``wrote N``) and rolled back (``lost N``) so far.
"""

import logging
import sys
import threading

from collector.consume import Consumer
from collector.streams import open_stream
from tacit.config import settings_from_json
from tacit.database import Database


class _Rollbacks(logging.Handler):
    """Tells of each chunk that another consumer was faster with."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line if ``record`` says so."""
        if "was faster" in record.getMessage():
            say("lost")


def say(word: str) -> None:
    """One line at once, so that it is there even when the next moment is the last."""
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main() -> None:
    """Screen until killed."""
    url, text = sys.argv[1:]
    settings = settings_from_json(text)
    logger = logging.getLogger("collector.consume")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Rollbacks())
    stream = open_stream(settings)
    consumer = Consumer(Database(url), stream, settings)
    say("ready")
    consumer.run(threading.Event())


if __name__ == "__main__":
    main()
