"""Fixtures shared by all tests: a migrated database on SQLite and on PostgreSQL, a store."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tacit.checkpoints import CheckpointStore
from tacit.database import Database

# Tiny models are slower on two threads than on one, the more so on a busy machine. torch reads it
# on import, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

POSTGRES_BINARIES = Path("/usr/lib/postgresql/15/bin")


def free_port() -> int:
    """A TCP port nobody listens on at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def skip_or_fail(reason: str) -> None:
    """Skip where a tool is missing on a laptop; in CI a skip would hide a hole, so fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def _migrated_sqlite() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tacit-schema-"))
    database = Database(f"sqlite:///{folder}/template.db")
    database.migrate()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    return folder / "template.db"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL prefix of a PostgreSQL server of our own in a temporary folder."""
    if not (POSTGRES_BINARIES / "initdb").exists():
        skip_or_fail("expected PostgreSQL 15; apt-get install postgresql-15")
    folder = Path(tempfile.mkdtemp(prefix="tacit-pg-", dir="/tmp"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data, port = folder / "data", free_port()
    initdb = [*as_user, POSTGRES_BINARIES / "initdb", "-D", data, "-A", "trust", "-U", "tacit"]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [*as_user, POSTGRES_BINARIES / "pg_ctl", "-D", data]
    start = [*control, "-w", "-l", folder / "log", "-o", options, "start"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd="/")
    yield f"postgresql://tacit@127.0.0.1:{port}"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd="/")
    shutil.rmtree(folder, ignore_errors=True)


def _fresh_postgres(server: str) -> str:
    import psycopg

    name = f"t{os.urandom(6).hex()}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{server}/{name}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a migrated, empty database; every test that takes it runs on both."""
    if request.param == "sqlite":
        shutil.copy(_migrated_sqlite(), tmp_path / "tacit.db")
        return f"sqlite:///{tmp_path}/tacit.db"
    url = _fresh_postgres(request.getfixturevalue("postgres_server"))
    database = Database(url)
    database.migrate()
    database.dispose()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated, empty database."""
    opened = Database(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """A migrated, empty SQLite database, for tests where the backend does not matter."""
    shutil.copy(_migrated_sqlite(), tmp_path / "tacit.db")
    opened = Database(f"sqlite:///{tmp_path}/tacit.db")
    yield opened
    opened.dispose()


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """An empty checkpoint store."""
    return CheckpointStore(tmp_path / "checkpoints")


@cache
def _initialized_mlflow() -> Path:
    """MLflow takes seconds to make its tables; one test session makes them once."""
    from mlflow import MlflowClient

    folder = Path(tempfile.mkdtemp(prefix="tacit-mlflow-"))
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty MLflow store of its own, without a server.

    Tests that take it ignore ``SADeprecationWarning``: MLflow uses a loader SQLAlchemy deprecates.
    """
    monkeypatch.chdir(tmp_path)  # artifacts of a plain SQLite store go to the working folder
    shutil.copy(_initialized_mlflow(), tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"
