"""SQLAlchemy engine, sessions and migrations: SQLite by default, PostgreSQL by URL.

Every stage keeps its tables in its own ``tables.py`` on the ``Base`` below. On SQLite a writing
session takes the write lock when it begins, so that two writers queue rather than deadlock.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Engine,
    MetaData,
    any_,
    cast,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session, sessionmaker
from sqlalchemy.types import TypeDecorator

from tacit.errors import ConfigError, UnavailableError

MIGRATIONS_PATH = Path(__file__).parent / "migrations"
_BEGIN_OPTION = "tacit_begin"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets time zones, so they are taken off and put back here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC on the way in."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC attached on the way out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Declarative base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime}


class Database:
    """One engine and its sessions; safe to share between threads."""

    def __init__(self, url: str, *, lock_timeout_s: float = 30.0) -> None:
        """``lock_timeout_s``: how long to wait for another's write lock on SQLite."""
        self.url = url
        self.engine = _create_engine(url, lock_timeout_s)
        self._writers = sessionmaker(
            self.engine.execution_options(**{_BEGIN_OPTION: "BEGIN IMMEDIATE"}),
            expire_on_commit=False,
        )
        self._readers = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A writing transaction: committed on leaving, rolled back on an exception.

        Raises UnavailableError when the database is locked, full or away.
        """
        with self._scoped(self._writers) as session:
            yield session

    @contextmanager
    def reader(self) -> Iterator[Session]:
        """A reading transaction; never blocks a writer on SQLite."""
        with self._scoped(self._readers) as session:
            yield session

    @contextmanager
    def _scoped(self, factory: sessionmaker[Session]) -> Iterator[Session]:
        with _answering(), factory.begin() as session:
            yield session

    def migrate(self) -> None:
        """Bring the schema to the newest version; does nothing if it is there already.

        Raises UnavailableError when the database is away.
        """
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS_PATH))
        config.attributes["engine"] = self.engine
        with _answering():
            command.upgrade(config, "head")

    def versions(self) -> tuple[str | None, str | None]:
        """The schema's version, None where there is none, and the newest one."""
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        with self.engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        return current, ScriptDirectory(str(MIGRATIONS_PATH)).get_current_head()

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise UnavailableError(
            "a database that answers",
            got=str(error.orig),
            mend="Check free disk space and that the database is reachable, then try again.",
        ) from error


def _create_engine(url: str, lock_timeout_s: float) -> Engine:
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = create_engine(
            url, connect_args={"timeout": lock_timeout_s, "check_same_thread": False}
        )
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if url.startswith("postgresql"):
        return create_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1), pool_pre_ping=True
        )
    raise ConfigError(
        "a database_url that begins with sqlite:/// or postgresql://",
        got=url.split("://")[0] + "://…",
    )


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling begins too late; _begin_sqlite does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get(_BEGIN_OPTION, "BEGIN")
    connection.exec_driver_sql(begin)


def among(
    session: Session, column: InstrumentedAttribute[Any], values: Collection[str | int]
) -> ColumnElement[bool]:
    """``column IN values`` as one parameter: cheap however many there are, and never too many."""
    if session.get_bind().dialect.name == "postgresql":
        return column == any_(cast(list(values), postgresql.ARRAY(column.type)))
    each = func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(select(each.c.value))


def insert_missing(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert ``rows``, leaving out those whose primary key is there already."""
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    session.execute(insert(table).on_conflict_do_nothing(), rows)
