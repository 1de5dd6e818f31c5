"""Is the database reachable, and does it have the schema of this version?"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from tacit.config import Settings
from tacit.database import MIGRATIONS_PATH, Database
from tacit.doctor.findings import Finding, fail, ok, warn
from tacit.doctor.home import nearest_folder

AREA = "database"
_CONNECT_S = 5
_SQLITE = "sqlite:///"


def check_database(settings: Settings) -> Iterator[Finding]:
    """Reachable, migrated."""
    url = settings.resolved_database_url
    if url.startswith(_SQLITE):
        yield from _sqlite(Path(url.removeprefix(_SQLITE)), url)
    elif url.startswith("postgresql") and find_spec("psycopg") is None:
        yield fail(AREA, "PostgreSQL without its driver", "pip install 'tacit[postgres]'")
    else:
        yield from _schema(url)


def _sqlite(path: Path, url: str) -> Iterator[Finding]:
    if path.exists():
        yield from _schema(url)
    elif os.access(nearest_folder(path.parent), os.W_OK):
        yield ok(AREA, f"{path} is made at the start")
    else:
        yield fail(AREA, f"{path} cannot be made", "Give the user of the service its folder.")


def _schema(url: str) -> Iterator[Finding]:
    shown = make_url(url).render_as_string(hide_password=True)
    if url.startswith("postgresql"):
        timed = make_url(url).update_query_dict({"connect_timeout": str(_CONNECT_S)})
        url = timed.render_as_string(hide_password=False)
    database = Database(url)
    try:
        current, newest = database.versions()
    except OperationalError as error:
        yield fail(
            AREA,
            f"{shown} does not answer: {' '.join(str(error.orig).split())}",
            "Start it, and check host, name, user and password in TACIT_DATABASE_URL.",
        )
        return
    finally:
        database.dispose()
    yield _revision(shown, current, newest)


def _revision(shown: str, current: str | None, newest: str | None) -> Finding:
    if current == newest:
        return ok(AREA, f"{shown} answers, schema {newest}")
    if current is None:
        return ok(AREA, f"{shown} answers and is empty; its tables are made at the start")
    known = ScriptDirectory(str(MIGRATIONS_PATH)).walk_revisions()
    if current in {script.revision for script in known}:
        return warn(
            AREA,
            f"{shown} has schema {current}, this version has {newest}",
            "The next `tacit up` migrates it: make a backup before.",
        )
    return fail(
        AREA,
        f"{shown} has schema {current}, which this version does not know",
        "Install the Tacit that made it, or a newer one.",
    )
