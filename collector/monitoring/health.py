"""Readiness: whether this process could make an event durable and screen it now.

In: the database, the stream and the settings. Out: a report with a line for each check, never more
than two seconds late, whatever hangs. Anyone may ask, so the report names no address, path or user;
the log has the details.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select, text

from collector.ingest import feedback_topic
from collector.monitoring.probes import Probe
from collector.streams import Stream
from tacit.config import Settings
from tacit.database import MIGRATIONS_PATH, Database
from tacit.errors import UnavailableError
from tacit.keys import ApiKeyRow

logger = logging.getLogger(__name__)

TIMEOUT_S = 1.5
CACHE_S = 1.0


class Check(NamedTuple):
    """One thing readiness depends on."""

    name: str
    expected: str
    mend: str
    probe: Callable[[], str | None]
    """None when all is well, else what was found; may raise, may hang."""


class Line(NamedTuple):
    """What became of one check."""

    ok: bool
    expected: str = ""
    got: str = ""
    mend: str = ""


class Readiness:
    """Runs the checks and keeps their result for ``CACHE_S`` seconds."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stream: Stream,
        *,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._checks = _checks(settings, database, stream)
        self._probes = {check.name: Probe(check.name, check.probe) for check in self._checks}
        self._clock = clock
        self._timeout_s = timeout_s
        self._lines: dict[str, Line] = {}
        self._asked_at = float("-inf")

    async def lines(self) -> dict[str, Line]:
        """The line of each check, at most ``CACHE_S`` old."""
        if self._clock() - self._asked_at >= CACHE_S:
            found = await asyncio.gather(*(self._run(check) for check in self._checks))
            lines = {check.name: line for check, line in zip(self._checks, found, strict=True)}
            self._lines, self._asked_at = lines, self._clock()
        return self._lines

    async def _run(self, check: Check) -> Line:
        try:
            got = await self._probes[check.name].ask(timeout_s=self._timeout_s)
            detail: object = got
        except Exception as error:
            # The edge of the process: whatever is broken, the others' lines are still told.
            got, detail = type(error).__name__, error
        if got is None:
            return Line(ok=True)
        self._log(check, detail)
        return Line(False, check.expected, got, check.mend)

    def _log(self, check: Check, detail: object) -> None:
        before = self._lines.get(check.name)
        if before is None or before.ok:
            logger.warning("not ready: %s: expected %s; got %s", check.name, check.expected, detail)


def _checks(settings: Settings, database: Database, stream: Stream) -> list[Check]:
    limit = settings.collector.min_free_bytes
    folders = _folders(settings)
    return [
        Check(
            "database",
            "a database that answers",
            "Check that it runs and that database_url is right.",
            partial(_ask_database, database),
        ),
        Check(
            "migrations",
            "a schema at the newest migration",
            "`tacit up` migrates; a schema that is newer needs a newer Tacit.",
            partial(_ask_schema, database),
        ),
        Check(
            "stream",
            "a stream that can be reached",
            "Check collector.stream, and collector.kafka if it is Kafka.",
            partial(_ask_stream, stream, feedback_topic(settings)),
        ),
        Check(
            "disk",
            f"at least {limit} bytes free (collector.min_free_bytes)",
            "Make room on the disk: with it full no event can be acknowledged.",
            partial(_ask_disk, folders, limit),
        ),
    ]


def _folders(settings: Settings) -> list[Path]:
    """Folders that are written to: home, and that of a SQLite database elsewhere."""
    url = settings.resolved_database_url
    prefix = "sqlite:///"
    elsewhere = [Path(url.removeprefix(prefix)).parent] if url.startswith(prefix) else []
    return [settings.home, *elsewhere]


def _ask_database(database: Database) -> None:
    # A bare SELECT 1 would not touch the file of a SQLite database.
    with database.reader() as session:
        session.execute(select(ApiKeyRow.key_id).limit(1))


def _ask_schema(database: Database) -> str | None:
    with database.reader() as session:
        found = sorted(session.scalars(text("SELECT version_num FROM alembic_version")))
    return None if found == [_head()] else f"{', '.join(found) or 'none'}, not {_head()}"


@cache
def _head() -> str:
    from alembic.script import ScriptDirectory

    head = ScriptDirectory(str(MIGRATIONS_PATH)).get_current_head()
    if head is None:
        raise UnavailableError("migrations beside the code", got="none")
    return head


def _ask_stream(stream: Stream, topic: str) -> None:
    stream.end_offsets(topic)


def _ask_disk(folders: list[Path], limit: int) -> str | None:
    free = min(shutil.disk_usage(folder).free for folder in folders)
    return None if free >= limit else f"{free} bytes"
