"""Fixtures shared by all tests: a migrated database on SQLite and on PostgreSQL, a store."""

import gc
import os
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from tacit.checkpoints import CheckpointStore
from tacit.commands.options import console
from tacit.database import Database
from tacit.ports import free_port

# Tiny models are slower on two threads than on one, the more so on a busy machine. torch reads it
# on import, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine may take any time over an example.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

OWN_THREADS = ("wal-", "tacit-")
_ENDING_S = 2.0
"""For threads that were told to end and that nobody waited for."""

POSTGRES_BINARIES = Path("/usr/lib/postgresql/15/bin")


def skip_or_fail(reason: str) -> None:
    """Skip where a tool is missing on a laptop; in CI a skip would hide a hole, so fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def pytest_collection_finish() -> None:
    """What is imported stays for good: were it looked through, each collection would take seconds.

    Several parts collect garbage on purpose, as does the end of every test that opened a file.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Fails a test whose threads go on after it, to log and write amid the tests that follow."""
    before = set(threading.enumerate())
    yield
    started = set(threading.enumerate()) - before
    left = [thread for thread in started if thread.name.startswith(OWN_THREADS)]
    deadline = time.monotonic() + _ENDING_S
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    names = sorted(thread.name for thread in left if thread.is_alive())
    assert not names, f"expected a test that closes what it opens; got threads {names} left"


@pytest.fixture(autouse=True)
def _sockets_of_kafka_go_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """What kafka-python leaves to the garbage collector is collected here, at nobody's expense.

    A client that is closed while it connects, as when a broker was killed, forgets its socket. A
    later test would be blamed for it.
    """
    yield
    if request.node.get_closest_marker("kafka"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
            gc.collect()


@pytest.fixture(autouse=True)
def _wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide in every test, whatever the first one to import the commands had set."""
    monkeypatch.setattr(console, "width", 200)


@cache
def _migrated_sqlite() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tacit-schema-"))
    database = Database(f"sqlite:///{folder}/template.db")
    database.migrate()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    return folder / "template.db"


def as_postgres() -> list[str]:
    """How a command of PostgreSQL's begins here: it refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL prefix of a PostgreSQL server of our own in a temporary folder."""
    if not (POSTGRES_BINARIES / "initdb").exists():
        skip_or_fail("expected PostgreSQL 15; apt-get install postgresql-15")
    folder = Path(tempfile.mkdtemp(prefix="tacit-pg-", dir="/tmp"))
    as_user = as_postgres()
    if as_user:
        shutil.chown(folder, "postgres")
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


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> str:
    """URL of a migrated database that all tests share, one after the other."""
    import psycopg

    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE tacit")
    database = Database(f"{postgres_server}/tacit")
    database.migrate()
    database.dispose()
    return f"{postgres_server}/tacit"


def _empty(url: str) -> None:
    """Take every row out of the database at ``url``, and every connection that is left to it."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        tables = connection.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables "
            "WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).fetchone()
        assert tables is not None
        connection.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY".encode())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a migrated, empty database; every test that takes it runs on both."""
    if request.param == "sqlite":
        shutil.copy(_migrated_sqlite(), tmp_path / "tacit.db")
        return f"sqlite:///{tmp_path}/tacit.db"
    url: str = request.getfixturevalue("migrated_postgres")
    _empty(url)
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, with two CPUs however many there are."""
    import ray

    from tacit.cluster import NAMESPACE

    ray.init(
        address="local",
        num_cpus=2,
        namespace=NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 1024 * 1024,
    )
    yield
    ray.shutdown()
